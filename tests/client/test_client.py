"""The client against a service of tests: a real socket, and failures that are made on purpose."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from support.certificates import Certificates
from support.service_peer import NOW, TOKEN, ServicePeer, notes, proposal, states
from support.tls_proxy import tls_proxy

from tuner.client import Client, connection
from tuner.client import client as module
from tuner.client.local_service import LocalService, local_services, registered
from tuner.client.resources import Submission
from tuner.core.errors import (
    JobError,
    NotThereError,
    RefusedError,
    ServiceAwayError,
    ServiceError,
    StateConflictError,
    TokenRefusedError,
)
from tuner.jobs.events import Noted, StateChanged


@pytest.fixture
def peer() -> Iterator[ServicePeer]:
    with ServicePeer() as peer:
        yield peer


@pytest.fixture
def client(peer: ServicePeer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setattr(connection, "_PAUSE_S", 0.001)
    monkeypatch.setattr(module, "_FIRST_PAUSE_S", 0.001)
    with Client(peer.address, TOKEN, timeout_s=10) as client:
        yield client


_JOB = Submission(job={"repository": "/models", "slo": {"p99": "40ms"}})


def test_a_submission(client: Client, peer: ServicePeer) -> None:
    job = client.submit(_JOB)
    assert (job.id, job.state, job.job) == (1, "queued", _JOB.job)
    assert client.job(1) == job
    assert peer.headers[0]["authorization"] == f"Bearer {TOKEN}"


def test_a_submission_is_repeated_without_harm(client: Client, peer: ServicePeer) -> None:
    peer.ill = [None, (503, {"retry-after": "0"})]
    assert client.submit(_JOB).id == 1
    keys = {headers["idempotency-key"] for headers in peer.headers}
    assert (len(peer.asked), len(keys), len(peer.jobs)) == (3, 1, 1)
    assert client.submit(_JOB).id == 2, "another submission has another key"


def test_a_key_of_the_caller(client: Client) -> None:
    assert client.submit(_JOB, key="v7").id == client.submit(_JOB, key="v7").id == 1
    with pytest.raises(StateConflictError, match="the key 'v7' was used for another job"):
        client.submit(Submission(job={"repository": "/other"}), key="v7")


def test_a_decision_is_not_repeated(client: Client, peer: ServicePeer) -> None:
    peer.proposals[1] = proposal()
    peer.ill = [None]
    with pytest.raises(ServiceAwayError, match=f"{peer.address}: cannot be reached: .*; is `tritontune serve` running"):
        client.approve(1)
    assert len(peer.asked) == 1


def test_decisions(client: Client, peer: ServicePeer) -> None:
    peer.proposals = {1: proposal(), 2: proposal(2)}
    assert [each.id for each in client.proposals(state="open")] == [1, 2]
    assert client.approve(1).state == "approved"
    rejected = client.reject(2, "too slow", if_version=1)
    assert (rejected.state, rejected.reason) == ("rejected", "too slow")
    assert peer.headers[-1]["if-match"] == '"1"'
    with pytest.raises(StateConflictError, match="proposal 1 was approved by peer"):
        client.reject(1)


def test_lists_are_fetched_in_parts(client: Client, peer: ServicePeer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAGE", 2)
    for _ in range(5):
        peer.add()
    assert [job.id for job in client.jobs()] == [5, 4, 3, 2, 1]
    assert len(peer.asked) == 3
    assert [job.id for job in client.jobs(limit=3)] == [5, 4, 3]
    assert next(client.jobs()).id == 5
    assert len(peer.asked) == 6, "parts that nobody wants are not fetched"


def test_events_have_no_gap_and_no_repetition(client: Client, peer: ServicePeer) -> None:
    peer.add()
    peer.tell(1, *notes(10), StateChanged(seq=11, at=NOW, state="succeeded", exit_code=0))
    peer.hang_up_after = 3
    assert [event.seq for event in client.events(1)] == list(range(1, 12))
    assert [headers.get("last-event-id") for headers in peer.headers] == [None, "3", "6", "9"]


def test_events_after_one(client: Client, peer: ServicePeer) -> None:
    peer.add()
    peer.tell(1, *states("queued", "running", "failed", exit_code=1))
    assert [event.seq for event in client.events(1, after=2)] == [3]
    assert list(client.events(1, after=3, follow=False)) == []


def test_a_job_that_has_ended_has_no_further_events(client: Client, peer: ServicePeer) -> None:
    peer.add(state="succeeded")
    peer.tell(1, *states("queued", "succeeded", exit_code=0))
    peer.streams_end = True
    assert list(client.events(1, after=2)) == []


def test_events_are_awaited(client: Client, peer: ServicePeer) -> None:
    peer.add()
    peer.tell(1, *states("queued"))
    seen: list[int] = []

    def tell(event: object) -> None:
        seen.append(event.seq)  # type: ignore[attr-defined]
        if len(seen) == 1:
            peer.tell(1, *peer.numbered(1, states("running", "succeeded", exit_code=3)))

    ended = client.wait(1, told=tell)
    assert (seen, ended.state, ended.exit_code) == ([1, 2, 3], "succeeded", 3)


def test_the_index_of_jobs_may_be_a_moment_behind(
    client: Client, peer: ServicePeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer.add(state="running")
    peer.events[1] += states("running", "succeeded", exit_code=3, reason="none holds the SLO")
    monkeypatch.setattr(module, "_INDEXED_S", 0.01)
    ended = client.wait(1)
    assert (ended.state, ended.exit_code, ended.reason) == ("succeeded", 3, "none holds the SLO")
    assert client.job(1).state == "running"


def test_events_of_later_versions_are_skipped(client: Client, peer: ServicePeer) -> None:
    class Later(Noted):
        type: str = "later"  # type: ignore[assignment]

    peer.add()
    first, second = notes(2)
    peer.tell(1, first, Later(seq=2, at=first.at, text="?"), *notes(1, first=3))
    peer.tell(1, StateChanged(seq=4, at=second.at, state="cancelled"))
    assert [event.seq for event in client.events(1)] == [1, 3, 4]


def test_a_service_that_stays_away(peer: ServicePeer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_PAUSE_S", 0.001)
    with Client(peer.address, TOKEN, patience_s=0.01) as client:
        peer.add()
        peer.tell(1, *notes(1))
        events = client.events(1)
        assert next(events).seq == 1
        peer.stop()
        with pytest.raises(ServiceAwayError, match=peer.address):
            list(events)


def test_what_the_service_says(client: Client, peer: ServicePeer) -> None:
    with pytest.raises(NotThereError, match="there is no 7") as missing:
        client.job(7)
    assert (missing.value.exit_code, missing.value.status) == (2, 404)
    with pytest.raises(RefusedError, match="^the job is wrong; slow: unknown option; did you mean 'slo'[?]$"):
        client.submit(Submission(job={"slow": 1}))
    with (
        Client(peer.address, "another") as stranger,
        pytest.raises(TokenRefusedError, match="the token is unknown"),
    ):
        stranger.job(1)


@pytest.mark.parametrize(
    ("status", "kind", "text"),
    [
        (500, ServiceError, "answers with status 500; is it the address of `tritontune serve`?"),
        (404, NotThereError, "answers with status 404"),
        (502, ServiceAwayError, "answers with status 502"),
    ],
)
def test_what_is_no_service_says(
    client: Client, peer: ServicePeer, status: int, kind: type[ServiceError], text: str
) -> None:
    peer.ill = [(status, {})] * 9
    with pytest.raises(kind, match=text):
        client.job(1)
    assert len(peer.asked) == (4 if status == 502 else 1)


def test_an_answer_of_something_else(client: Client, peer: ServicePeer) -> None:
    peer.ill = [(200, {})]
    with pytest.raises(ServiceError, match="unexpected answer: the content: .*; is it a tritontune of another version"):
        client.job(1)


def test_the_token_goes_nowhere_else(client: Client, peer: ServicePeer) -> None:
    with ServicePeer() as other:
        peer.ill = [(307, {"location": f"{other.address}/api/v1/jobs/1"})]
        with pytest.raises(ServiceError, match=f"redirects to {other.address}/api/v1/jobs/1; give that address"):
            client.job(1)
        assert other.asked == []


def test_a_service_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_PAUSE_S", 0.001)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with Client(address, TOKEN, timeout_s=0.02) as client, pytest.raises(ServiceAwayError, match="answer in time"):
            client.job(1)
    with Client(address, TOKEN) as client, pytest.raises(ServiceAwayError, match="Connection refused"):
        client.job(1)


def test_files_of_a_job(client: Client, peer: ServicePeer) -> None:
    peer.add()
    peer.files["mlp/front.json"] = b"{}"
    assert client.artifact(1, "mlp/front.json") == b"{}"
    with pytest.raises(NotThereError, match="there is no 'mlp/none'"):
        client.artifact(1, "mlp/none")


def test_cancelling_and_repeating(client: Client) -> None:
    client.submit(_JOB)
    client.cancel(1)
    assert client.wait(1).state == "cancelled"
    with pytest.raises(StateConflictError, match="job 1 has ended: cancelled"):
        client.cancel(1)
    assert client.retry(1).retry_of == 1


@pytest.mark.parametrize(
    ("server", "text"),
    [
        ("127.0.0.1:8100", "'127.0.0.1:8100' is not an address; write http://HOST:PORT or https://HOST"),
        ("ftp://a", "is not an address"),
        ("http://", "is not an address"),
        ("http://a:port", "is not an address"),
        ("http://a:99999", "is not an address"),
        ("http://a b", "is not an address"),
        ("http://a?b", "is not an address"),
        ("http://me:word@a", "an address has no user; set TRITONTUNE_TOKEN"),
    ],
)
def test_wrong_addresses(server: str, text: str) -> None:
    with pytest.raises(JobError, match=text.replace("?", "[?]")):
        Client(server, TOKEN)


def test_a_token_is_one_word() -> None:
    with pytest.raises(JobError, match="the token has characters that no token has"):
        Client("http://a", "two words")


@pytest.fixture
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (module.SERVER_VARIABLE, module.TOKEN_VARIABLE, module.CA_VARIABLE):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("nothing_known")
def test_the_environment_names_both(peer: ServicePeer, monkeypatch: pytest.MonkeyPatch) -> None:
    peer.add()
    monkeypatch.setenv("TRITONTUNE_SERVER", f"{peer.address}/")
    monkeypatch.setenv("TRITONTUNE_TOKEN", f" {TOKEN}\n")
    with Client() as client:
        assert client.server == peer.address
        assert client.page("jobs/1") == f"{peer.address}/jobs/1"
        assert client.job(1).id == 1


@pytest.mark.usefixtures("nothing_known")
def test_a_service_of_the_same_user_is_found(peer: ServicePeer, tmp_path: Path) -> None:
    (tmp_path / "admin.token").write_text(f"{TOKEN}\n")
    peer.add()
    with pytest.raises(TokenRefusedError, match=f"no token for {peer.address}: set TRITONTUNE_TOKEN, or start `tri"):
        Client(peer.address)
    with registered(peer.address, tmp_path):
        assert [each.data for each in local_services()] == [tmp_path]
        # Another name of the same address is the same service.
        for address in (peer.address, peer.address.replace("127.0.0.1", "localhost")):
            with Client(address) as client:
                assert client.job(1).id == 1
                assert client.server == peer.address, "others may listen where else localhost leads"
        with Client(data=tmp_path) as client:
            assert client.server == peer.address
        with Client() as client:
            assert client.server == peer.address
        with pytest.raises(TokenRefusedError, match=f"; your services on this machine are at {peer.address}$"):
            Client("http://127.0.0.1:1")
        with (
            registered("http://127.0.0.1:1", tmp_path),
            pytest.raises(TokenRefusedError, match=r"for http://\S+:8100: "),
        ):
            Client()
    assert local_services() == ()


@pytest.mark.usefixtures("nothing_known")
def test_the_token_of_a_service_that_has_ended_is_not_sent(peer: ServicePeer, tmp_path: Path) -> None:
    """Somebody else may listen at its address by now."""
    (tmp_path / "admin.token").write_text(TOKEN)
    with registered(peer.address, tmp_path):
        folder = Path(os.environ["XDG_STATE_HOME"]) / "tritontune/services"
        (file,) = folder.iterdir()
        stored = LocalService.model_validate_json(file.read_text())
        host, namespace, pid, _ = stored.lease.split("-")
        file.write_text(stored.model_copy(update={"lease": f"{host}-{namespace}-{pid}-1"}).model_dump_json())
        with pytest.raises(TokenRefusedError):
            Client(peer.address)
        with pytest.raises(TokenRefusedError, match="no service of yours runs with this folder; start it, or give --s"):
            Client(data=tmp_path)
    assert file.exists()
    with registered("http://127.0.0.1:1", tmp_path):
        assert not file.exists(), "the next service removes what a killed one has left"


@pytest.mark.usefixtures("nothing_known")
def test_a_home_that_cannot_be_written_to(peer: ServicePeer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/nowhere")
    (tmp_path / "admin.token").write_text(TOKEN)
    with registered(peer.address, tmp_path), Client(peer.address, data=tmp_path) as client:
        assert list(client.jobs()) == []


def test_a_folder_without_a_token(tmp_path: Path) -> None:
    with pytest.raises(
        TokenRefusedError, match="admin.token: no such file; name the data folder of `tritontune serve`"
    ):
        Client("http://127.0.0.1:1", data=tmp_path)


def test_over_tls(peer: ServicePeer, certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    peer.add()
    with tls_proxy(urlsplit(peer.address).netloc, certificates.serving()) as place:
        with Client(f"https://{place}", TOKEN, ca=certificates.ca) as client:
            assert client.job(1).id == 1
        monkeypatch.setenv("TRITONTUNE_TLS_CA", str(certificates.ca))
        with Client(f"https://{place}", TOKEN) as client:
            assert client.job(1).id == 1
        with (
            Client(f"https://{place}", TOKEN, ca=certificates.other_ca) as client,
            pytest.raises(ServiceError, match="no secure connection: .*; name its CA certificates by --tls-ca FILE"),
        ):
            client.job(1)
    with pytest.raises(JobError, match="--tls-ca: .*/none: no such file"):
        Client("https://a", TOKEN, ca=certificates.ca.with_name("none"))


def test_a_proxy_of_the_environment(peer: ServicePeer, monkeypatch: pytest.MonkeyPatch) -> None:
    peer.add()
    monkeypatch.setenv("http_proxy", peer.address)
    monkeypatch.delenv("no_proxy", raising=False)
    with Client("http://tuner.example", TOKEN) as client, pytest.raises(NotThereError):
        client.job(9)
    assert peer.asked == ["GET http://tuner.example/api/v1/jobs/9"]


def test_clients_of_many_threads(client: Client, peer: ServicePeer) -> None:
    peer.add()
    got: list[int] = []
    work: Callable[[], None] = lambda: got.append(client.job(1).id)  # noqa: E731
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [1] * 8
