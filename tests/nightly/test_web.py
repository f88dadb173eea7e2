from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest
from support.web_peer import Reply, WebPeer

from tuner.nightly.web import WebError, check_reachable, post

REPLIES: list[Reply] = []


@pytest.fixture
def peer() -> Iterator[WebPeer]:
    REPLIES.clear()
    with WebPeer(lambda _asked: REPLIES.pop(0) if REPLIES else Reply(204)) as peer:
        yield peer


def test_json_is_posted(peer: WebPeer) -> None:
    post(f"http://{peer.address}/hook?key=s3cret", {"text": "ü"})
    (asked,) = peer.asked
    assert asked.line == "POST /hook?key=s3cret"
    assert json.loads(asked.body) == {"text": "ü"}
    assert asked.headers["Content-Type"] == "application/json"


def test_a_bad_moment_is_waited_out(peer: WebPeer) -> None:
    REPLIES.extend([Reply(503), Reply(raw=b"")])
    post(f"http://{peer.address}/hook", {}, pause_s=0.01)
    assert len(peer.asked) == 3


def test_a_refusal_is_not_asked_again(peer: WebPeer) -> None:
    REPLIES.append(Reply(403))
    with pytest.raises(WebError, match=r"http://127.0.0.1:\d+/... answers with status 403$"):
        post(f"http://{peer.address}/s3cret", {}, pause_s=0.01)
    assert len(peer.asked) == 1


def test_it_gives_up_in_the_end(peer: WebPeer) -> None:
    REPLIES.extend([Reply(500)] * 3)
    with pytest.raises(WebError, match="status 500"):
        post(f"http://{peer.address}/s3cret", {}, pause_s=0.01)
    assert len(peer.asked) == 3


def test_nobody_is_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/s3cret"
        with pytest.raises(WebError, match="cannot be reached: ") as caught:
            check_reachable(url)
        with pytest.raises(WebError, match="cannot be reached: ") as posted:
            post(url, {}, pause_s=0.01)
        assert "s3cret" not in f"{caught.value}{posted.value}"


def test_a_silent_one_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuner.nightly.web._WITHIN_S", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(WebError, match="no answer in time"):
            check_reachable(f"http://127.0.0.1:{silent.getsockname()[1]}/")


def test_whatever_is_said_somebody_is_there(peer: WebPeer) -> None:
    REPLIES.append(Reply(405))
    check_reachable(f"http://{peer.address}/hook")


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(status: int, peer: WebPeer) -> None:
    """What is told would go to whom nobody named."""
    REPLIES.append(Reply(status, headers={"Location": f"http://{peer.address}/elsewhere"}))
    with pytest.raises(
        WebError, match=rf"/\.\.\. answers with status {status}, a redirect; give the address it leads to$"
    ):
        post(f"http://{peer.address}/s3cret", {}, pause_s=0.01)
    assert [asked.line for asked in peer.asked] == ["POST /s3cret"]
