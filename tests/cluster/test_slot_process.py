"""The process of a slot, and its owner's side."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.command_line import await_that

from tuner.cluster import slot_locks, slot_process
from tuner.cluster.slot_context import SlotRecipe
from tuner.cluster.slot_locks import SlotInUseError
from tuner.cluster.slot_process import SlotProcess
from tuner.cluster.slots import Slot
from tuner.core.errors import Cause, HostLostError, RepositoryError
from tuner.core.loads import Load
from tuner.measure.points import OperatingPoint
from tuner.measure.session import Session
from tuner.measure.work import UNHEARD
from tuner.options.tune_job import TuneJob
from tuner.servers.installation import TritonInstallation
from tuner.testing.executor_contract import MODEL, Heard, work
from tuner.testing.repositories import ModelRepositoryFactory

pytestmark = pytest.mark.slow

_CORES = sorted(os.sched_getaffinity(0))
_SLOT = Slot("h/cores", "h", (), frozenset(_CORES[-1:]), frozenset(_CORES[:1]))
_SECRET = "c0rrect-h0rse-battery"  # noqa: S105 (for a test)


@dataclass(frozen=True)
class Looks:
    """Looks at the server, and at the process that it was started by."""

    def __call__(self, session: Session) -> dict[str, Any]:
        del session
        own = psutil.Process()
        return {
            "own cores": own.cpu_affinity(),
            "cores below": dict(_cores_below(own)),
            "FROM_OWNER": os.environ.get("FROM_OWNER"),
            "HOME": os.environ.get("HOME"),
        }


def _cores_below(own: psutil.Process) -> Iterator[tuple[str, tuple[int, ...]]]:
    for process in own.children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            yield shlex.join(process.cmdline()), tuple(process.cpu_affinity())


class Bug:
    """Fails as no server does."""

    def __call__(self, session: Session) -> Any:
        raise BlockingIOError(session.effective.name)


class NoTraveller:
    """Finds what cannot be pickled."""

    def __call__(self, session: Session) -> Any:
        del session
        return lambda: None


@pytest.fixture(autouse=True, scope="module")
def _locks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slot_locks, "_FOLDER", tmp_path_factory.mktemp("locks"))
        yield


@pytest.fixture(scope="module")
def recipe(fake_triton: TritonInstallation, tmp_path_factory: pytest.TempPathFactory) -> SlotRecipe:
    repository = ModelRepositoryFactory(tmp_path_factory.mktemp("models"))
    job = TuneJob.make(
        {
            "repository": repository.path,
            "server": "process",
            "triton_path": fake_triton.root,
            "header": [f"authorization:Bearer {_SECRET}"],
        }
    )
    return SlotRecipe(job, (repository.add("identity", name=MODEL),), repository.path)


@pytest.fixture(scope="module")
def notes() -> list[str]:
    return []


@pytest.fixture(scope="class")
def process(recipe: SlotRecipe, notes: list[str]) -> Iterator[SlotProcess]:
    environment = {"FROM_OWNER": _SECRET, "HOME": None}
    with SlotProcess.start(recipe, _SLOT, note=notes.append, environment=environment) as process:
        yield process


class TestWork:
    def test_the_machine_of_the_slot_has_the_servers_cores(self, process: SlotProcess) -> None:
        opened = process.opened()
        assert opened.machine.cpus == opened.facts.cores == 1
        assert opened.description == opened.facts.server
        assert "cores" not in opened.description

    def test_server_and_load_generator_have_cores_of_their_own(self, process: SlotProcess, tmp_path: Path) -> None:
        seen = process.run(work(examine=Looks()), tmp_path / "launch", UNHEARD).examined
        server = {cores for command, cores in seen["cores below"].items() if "--model-repository" in command}
        load = {cores for command, cores in seen["cores below"].items() if "tuner.load" in command}
        assert tuple(seen["own cores"]) == (_CORES[0],)
        assert (server, load) == ({(_CORES[-1],)}, {(_CORES[0],)})
        # Variables come by the socket.
        assert (seen["FROM_OWNER"], seen["HOME"]) == (_SECRET, None)

    def test_secrets_are_in_no_argument_variable_or_file(self, process: SlotProcess, tmp_path: Path) -> None:
        process.run(work(), tmp_path / "launch", UNHEARD)
        own = psutil.Process(process.pid)
        assert _SECRET not in " ".join(own.cmdline())
        assert _SECRET not in Path(f"/proc/{process.pid}/environ").read_text()
        written = [file for file in tmp_path.rglob("*") if file.is_file()]
        assert written
        assert not [file for file in written if _SECRET.encode() in file.read_bytes()]

    def test_a_bug_comes_with_its_traceback(self, process: SlotProcess, tmp_path: Path) -> None:
        with pytest.raises(BlockingIOError, match=MODEL) as raised:
            process.run(work(examine=Bug()), tmp_path / "launch", UNHEARD)
        assert "in _measure" in str(raised.value.__cause__)
        assert process.run(work(), tmp_path / "again", UNHEARD).points

    def test_what_cannot_travel_is_an_error(self, process: SlotProcess, tmp_path: Path) -> None:
        with pytest.raises((AttributeError, TypeError, RuntimeError), match="pickle"):
            process.run(work(examine=NoTraveller()), tmp_path / "launch", UNHEARD)
        assert process.run(work(), tmp_path / "again", UNHEARD).points

    def test_its_slot_is_locked(self, process: SlotProcess, recipe: SlotRecipe) -> None:
        assert process.lives
        with pytest.raises(SlotInUseError, match=f"h/other: in use by another run .pid {os.getpid()}"):
            SlotProcess.start(recipe, replace(_SLOT, name="h/other"), note=print)


class TestOpening:
    def test_an_error_is_that_of_the_process(self, recipe: SlotRecipe, tmp_path: Path) -> None:
        slot = Slot("h/gpu", "h", ("GPU-none",))
        wrong = replace(recipe, repository=tmp_path / "nothing")
        with SlotProcess.start(wrong, slot, note=print) as process:
            with pytest.raises(RepositoryError, match="nothing"):
                process.opened()
            await_that(lambda: not process.lives)
        SlotProcess.start(recipe, slot, note=print).close(grace_s=0)

    def test_one_that_cannot_begin_says_its_last_words(
        self, recipe: SlotRecipe, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(slot_process, "_MAIN", "raise SystemExit('no memory{path!r:.0}')")
        slot = Slot("h/gpu", "h", ("GPU-x",))
        with SlotProcess.start(recipe, slot, note=print) as process, pytest.raises(HostLostError) as raised:
            process.opened()
        assert str(raised.value) == "h/gpu: its process ended with exit code 1: no memory"


@pytest.mark.faults
class TestLoss:
    """Each begins with a process of its own, which ends."""

    @pytest.fixture
    def own(self, recipe: SlotRecipe) -> Iterator[SlotProcess]:
        with SlotProcess.start(recipe, _SLOT, note=print) as process:
            process.opened()
            yield process

    def test_a_stopped_one_is_lost_and_killed(
        self, own: SlotProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        own._channel._end.settimeout(3.0)
        monkeypatch.setattr(slot_process, "_SILENCE_S", 3.0)

        class Stops(Heard):
            def level_began(self, load: Load) -> None:
                super().level_began(load)
                os.kill(own.pid, signal.SIGSTOP)

        server_log = tmp_path / "launch" / "server.log"
        with pytest.raises(HostLostError, match="h/cores: its process gave no sign of life for 3 s"):
            own.run(work(max_s=60), tmp_path / "launch", Stops())
        assert server_log.exists()
        assert not psutil.pid_exists(own.pid)
        assert not own.lives
        await_that(lambda: not _uses(str(tmp_path)))

    def test_one_that_is_asked_to_end_stops_its_server(self, own: SlotProcess, tmp_path: Path) -> None:
        class Asks(Heard):
            def level_began(self, load: Load) -> None:
                super().level_began(load)
                os.kill(own.pid, signal.SIGTERM)

        with pytest.raises(HostLostError, match="h/cores: its process ended with exit code 0"):
            own.run(work(max_s=60), tmp_path / "launch", Asks())
        with pytest.raises(HostLostError, match="h/cores: was closed"):
            own.run(work(), tmp_path / "again", UNHEARD)

    def test_a_receiver_that_fails_ends_it(self, own: SlotProcess, tmp_path: Path) -> None:
        class Fails(Heard):
            def point_measured(self, point: OperatingPoint) -> None:
                super().point_measured(point)
                raise OSError("disk full")

        with pytest.raises(OSError, match="disk full"):
            own.run(work(), tmp_path / "launch", Fails())
        assert not own.lives

    def test_closing_interrupts_a_launch(self, own: SlotProcess) -> None:
        own.interrupt()
        own.close()
        assert not psutil.pid_exists(own.pid)


def _uses(folder: str) -> bool:
    for process in psutil.process_iter():
        try:
            if folder in " ".join(process.cmdline()):
                return True
        except psutil.Error:
            continue
    return False


@pytest.mark.triton
def test_work_on_a_real_server(
    triton_installation: TritonInstallation, model_repository: ModelRepositoryFactory, tmp_path: Path
) -> None:
    model = model_repository.add("identity", name=MODEL)
    job = TuneJob.make({"repository": model_repository.path, "server": "process"})
    heard = Heard()
    with SlotProcess.start(SlotRecipe(job, (model,), model_repository.path), _SLOT, note=print) as process:
        outcome = process.run(work(examine=Looks()), tmp_path / "launch", heard)
        failed = process.run(work(patch=work().patch.with_config("wrong")), tmp_path / "failed", UNHEARD)
    assert outcome.failure is None
    assert heard.told == [outcome.points[0].load, *outcome.points]
    stubs = {cores for command, cores in outcome.examined["cores below"].items() if "triton_python_backend" in command}
    assert stubs == {(_CORES[-1],)}
    assert failed.failure is not None
    assert failed.failure.cause is Cause.INVALID_CONFIG
    assert triton_installation.version in process.opened().description
