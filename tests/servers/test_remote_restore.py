"""How a server that is not ours gets its own configs back, and what Ctrl-C does meanwhile; no Triton is asked."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tuner.core.errors import Cause, InterruptedRunError, ServerHungError
from tuner.core.interrupts import ignore_what_ends
from tuner.options.endpoint import Endpoint
from tuner.servers.own_configs import OwnConfigs
from tuner.servers.remote import RemoteLauncher

BEFORE = {"first": "its own", "second": None, "third": "its own"}
HOST = "elsewhere:8001"


@pytest.fixture(autouse=True)
def _handlers_as_they_were() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    before = [(number, signal.getsignal(number)) for number in numbers]
    yield
    for number, known in before:
        signal.signal(number, known)


@pytest.fixture
def own(tmp_path: Path) -> OwnConfigs:
    """What a killed run had taken."""
    own = OwnConfigs(tmp_path / "own.json", HOST)
    own.keep(BEFORE)
    return own


class Slow:
    """The way in which models get their configs back; at one of them, signals come."""

    def __init__(self, *signals: int) -> None:
        self.restored: list[str] = []
        self._signals = signals

    def restore(self, model: str, _config: str | None) -> None:
        if model == "second":
            for number in self._signals:
                signal.raise_signal(number)
        self.restored.append(model)


def launcher_of(own: OwnConfigs, slow: Slow, notes: list[str], monkeypatch: pytest.MonkeyPatch) -> RemoteLauncher:
    launcher = RemoteLauncher(Endpoint(HOST), None, notes.append, own)
    monkeypatch.setattr(launcher, "_restore", slow.restore)
    return launcher


def test_ctrl_c_once_is_waited_out(own: OwnConfigs, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(signal.SIGINT)
    notes: list[str] = []
    launcher_of(own, slow, notes, monkeypatch).close()
    assert slow.restored == list(BEFORE)
    (note,) = notes
    assert note.startswith(f"restoring the models' own configs at {HOST}; press Ctrl-C again")
    assert own.kept() == {}


@pytest.mark.parametrize("when", ["while it restores", "of the run before"])
def test_ctrl_c_once_more_ends_it_and_says_what_is_not_restored(
    when: str,
    own: OwnConfigs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    interrupted = when == "of the run before"
    if interrupted:
        ignore_what_ends()
    slow = Slow(*[signal.SIGINT] * (1 if interrupted else 2))
    with pytest.raises(InterruptedRunError) as ended:
        launcher_of(own, slow, [], monkeypatch).close()
    assert str(ended.value) == (
        f"interrupted before the own configs at {HOST} were restored: second, third; "
        "tritontune run --resume restores them"
    )
    assert slow.restored == ["first"]
    # Which is true.
    assert own.kept() == {"second": None, "third": "its own"}
    assert json.loads((tmp_path / "own.json").read_text())["address"] == HOST


def test_what_cannot_be_restored_is_told_and_kept(own: OwnConfigs, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(model: str, _config: str | None) -> None:
        if model == "first":
            raise ServerHungError("it hangs", cause=Cause.HUNG)

    notes: list[str] = []
    launcher = RemoteLauncher(Endpoint(HOST), None, notes.append, own)
    monkeypatch.setattr(launcher, "_restore", fails)
    launcher.close()
    assert notes == [f"first at {HOST} may still have a candidate's config: it hangs; unload and reload it there"]
    assert own.kept() == {"first": "its own"}
