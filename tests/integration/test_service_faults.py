"""Jobs of the service on Triton, killed and cancelled at the worst moments."""

from __future__ import annotations

import os
import resource
import signal
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.command_line import Running, await_that, servers_of
from support.service_jobs import Bench, bench, serving

from tuner.client.client import Client
from tuner.client.resources import Submission
from tuner.core.mark import marks_on_files
from tuner.jobs.events import ModelEnded, PhaseBegan, StateChanged, TrialEnded
from tuner.servers.ports import free_port
from tuner.service.job_folder import JobFolder
from tuner.service.job_processes import processes_of
from tuner.study.study import Study
from tuner.testing.repositories import ModelRepositoryFactory, config_text

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(500)]

_ROUGH = {"max_concurrency": 1, "precision": "20%,50%", "slo": {"p50": "5s"}, "budget": "1h", "seed": 7}
_LONG = {**_ROUGH, "trials": 99, "verify": False}
_SHORT = {**_ROUGH, "trials": 2, "verify": False}


@pytest.fixture
def made(tmp_path: Path, each_triton: None) -> Iterator[Bench]:  # noqa: ARG001 (it is on the PATH of the jobs)
    """A data folder with a runner."""
    with bench(tmp_path) as found:
        yield found


def _submitted(made: Bench, repository: ModelRepositoryFactory, **options: Any) -> int:
    repository.add("slow", config=config_text(max_batch_size=16))
    return made.submit(repository=str(repository.path), model=["slow"], **options)


def _in_trial(made: Bench, number: int, trial: int) -> None:
    """Wait until it measures a trial."""
    command = made.folder(number).run / f"slow/trials/{trial:03d}/command.txt"
    await_that(lambda: command.exists() or made.states(number)[-1] in {"succeeded", "failed"}, within_s=200)
    assert made.states(number)[-1] == "running"


def _kill(made: Bench, number: int) -> None:
    lease = made.folder(number).lease()
    assert lease is not None
    os.kill(lease.pid, signal.SIGKILL)


def _assert_nothing_is_left(folder: JobFolder) -> None:
    lease = folder.lease()
    assert lease is not None
    assert not folder.is_running()
    assert processes_of(lease) == []
    assert servers_of(folder.path) == []
    assert not [mark for mark in marks_on_files() if mark.pid == lease.pid and mark.started == lease.started]
    assert not list(Path(tempfile.gettempdir()).glob(f"work-of-tritontune-{lease}-*"))
    assert not (folder.run / ".work").exists()


def _assert_events_are_whole(made: Bench, number: int) -> None:
    """No gap and no repetition, of numbers or of trials."""
    events = made.events(number)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    trials = [event.trial for event in events if isinstance(event, TrialEnded)]
    assert trials == list(range(len(trials)))
    assert trials == [trial.number for trial in Study.load(made.folder(number).run / "study.db", "slow").trials]


@contextmanager
def _service(data: Path, port: int) -> Iterator[Running]:
    """`tritontune serve`, which is ready."""
    with Running("serve", "--data", data, "--listen", f"127.0.0.1:{port}") as service:
        try:
            assert service.stdout is not None
            assert "tritontune serves" in service.stdout.readline()
            yield service
        finally:
            service.kill()
            service.communicate()


@pytest.mark.parametrize("each_triton", [pytest.param("real", marks=pytest.mark.triton)], indirect=True)
@pytest.mark.usefixtures("each_triton")
def test_a_killed_service_does_not_touch_its_job_and_the_next_one_adopts_it(
    tmp_path: Path, model_repository: ModelRepositoryFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who follows the events sees each of them once."""
    model_repository.add("slow", config=config_text(max_batch_size=16))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(model_repository.path.parent)
    data, port = tmp_path / "data", free_port()
    with ThreadPoolExecutor(1) as thread:
        with _service(data, port) as service:
            token = (data / "admin.token").read_text().strip()
            client = Client(f"http://127.0.0.1:{port}", token, patience_s=240)
            options = {"repository": str(model_repository.path), "model": "slow", **_SHORT}
            number = client.submit(Submission(job=options)).id
            followed = thread.submit(lambda: list(client.events(number)))
            folder = JobFolder.of(data / "jobs", number)
            await_that((folder.run / "slow/trials/000/command.txt").exists, within_s=200)
            service.kill()
            service.wait()
        assert folder.is_running()
        with _service(data, port):
            events = followed.result(240)
            assert client.job(number).state == "succeeded"
            await_that(lambda: next(client.hosts()).slots[0].job is None)
            client.close()
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    states = [event.state for event in events if isinstance(event, StateChanged)]
    assert states == ["queued", "starting", "running", "succeeded"]
    assert [event.trial for event in events if isinstance(event, TrialEnded)] == [0, 1]
    _assert_nothing_is_left(folder)


@pytest.mark.parametrize("each_triton", ["fake"], indirect=True)
def test_a_killed_service_and_its_killed_job_are_resumed(
    made: Bench, tmp_path: Path, model_repository: ModelRepositoryFactory
) -> None:
    number = _submitted(made, model_repository, **_SHORT)
    with serving(tmp_path) as service:
        _in_trial(made, number, 1)
        service.send_signal(signal.SIGKILL)
        _kill(made, number)
        service.wait()
    finished = Study.load(made.folder(number).run / "study.db", "slow").trials
    assert finished
    made.restart()
    job = made.until(number, "succeeded")
    assert job.attempt == 2
    assert job.progress.trials == 2
    assert made.states(number) == ["queued", "starting", "running", "queued", "starting", "running", "succeeded"]
    assert Study.load(made.folder(number).run / "study.db", "slow").trials[: len(finished)] == finished
    _assert_events_are_whole(made, number)
    made.step_until(lambda: made.is_gone(number))
    _assert_nothing_is_left(made.folder(number))


@pytest.mark.parametrize(
    ("each_triton", "phase", "trial"),
    [
        ("fake", "baseline", 0),
        pytest.param("real", "search", 1, marks=pytest.mark.triton),
        ("fake", "verification", None),
    ],
    indirect=["each_triton"],
)
def test_a_cancelled_job_leaves_its_partial_result_and_nothing_else(
    made: Bench, model_repository: ModelRepositoryFactory, phase: str, trial: int | None
) -> None:
    options = _LONG if trial is not None else {**_ROUGH, "trials": 2}
    number = _submitted(made, model_repository, **options)
    made.until(number, "running")
    made.step_until(
        lambda: any(isinstance(event, PhaseBegan) and event.phase == phase for event in made.events(number))
    )
    if trial is not None:
        _in_trial(made, number, trial)
    made.runner.cancel(number)
    assert made.job(number).state == "cancelling"
    job = made.until(number, "cancelled")
    _assert_nothing_is_left(made.folder(number))
    assert (job.exit_code, job.slots) == (130, ())
    if trial != 0:
        assert (made.folder(number).run / "report.html").exists()
        assert job.results[0].trial is not None
        assert any(isinstance(event, ModelEnded) for event in made.events(number))
        _assert_events_are_whole(made, number)


@pytest.mark.parametrize("each_triton", ["fake"], indirect=True)
def test_a_job_that_can_write_no_more_is_resumed_when_it_can(
    made: Bench, model_repository: ModelRepositoryFactory
) -> None:
    """Its disk is full; that of the service has a little left."""
    number = _submitted(made, model_repository, **{**_SHORT, "trials": 1})
    made.until(number, "running")
    _in_trial(made, number, 0)
    lease = made.folder(number).lease()
    assert lease is not None
    resource.prlimit(lease.pid, resource.RLIMIT_FSIZE, (1, 1))
    job = made.until(number, "succeeded")
    assert job.attempt == 2
    lost = [event.reason for event in made.events(number) if isinstance(event, StateChanged) and event.attempt == 2]
    assert lost[0] == "its process was lost (ended with exit code 1); resuming"
    _assert_events_are_whole(made, number)
