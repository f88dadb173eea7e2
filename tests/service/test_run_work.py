"""The work of a job, in this process: what it ends with, and what it leaves."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.event_files import events_in, of, states_in
from support.rough import rough_measurements

from tuner.client.resources import Job, JobKind, Policy
from tuner.cluster import slot_locks
from tuner.core.errors import InterruptedRunError, JobError, TuningError
from tuner.jobs.event_log import EventLog
from tuner.jobs.events import ArtifactWritten, ModelEnded, StateChanged, TrialEnded
from tuner.nightly.jobs import JobsFile
from tuner.nightly.outcome import NightReport
from tuner.options.tune_job import TuneJob
from tuner.service import night_work, run_work
from tuner.service.job_folder import JobFolder, SubmissionRecord
from tuner.service.job_view import JobView
from tuner.service.place import Place, nights_of
from tuner.service.run_work import run
from tuner.service.work import pinned
from tuner.study.run_folder import RunFolder
from tuner.testing.repositories import ModelRepositoryFactory, config_text

_ANYWHERE = Place()
_ROUGH = {"max_concurrency": 2, "precision": "20%,50%", "verify": False, "seed": 7}


@pytest.fixture(autouse=True)
def _secrets_come_through_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"KEY": "hush-hush-12"}'))


@pytest.fixture
def repository(model_repository: ModelRepositoryFactory) -> Path:
    model_repository.add("slow", config=config_text(max_batch_size=16))
    return model_repository.path


Make = Callable[..., JobFolder]


@pytest.fixture
def make(tmp_path: Path, repository: Path) -> Make:
    """Submits a job and starts its attempt."""

    def made(kind: Any = "tune", policy: Policy | None = None, target: str | None = None, **options: Any) -> JobFolder:
        folder = JobFolder.of(tmp_path / "data/jobs", 12)
        options = {"repository": str(repository), "model": ["slow"], **options}
        if kind == "measure":
            options["model"] = "slow"
        job = Job(
            id=12,
            kind=kind,
            state="queued",
            created_at=datetime.now(timezone.utc),
            target=target,
            repository=options["repository"],
            job=options,
        )
        folder.write(SubmissionRecord(job=job, policy=policy or Policy()))
        EventLog(folder.path).append(StateChanged, state="starting", attempt=2)
        return folder

    return made


def _final(folder: JobFolder) -> tuple[str, int | None, str]:
    last = EventLog(folder.path).last_state()
    assert last is not None
    assert last.attempt == 2
    return last.state, last.exit_code, last.reason


class TestTheEnd:
    @pytest.mark.parametrize(
        ("error", "code", "reason"),
        [
            (JobError("--slo: wrong"), 2, "--slo: wrong"),
            (TuningError("no Triton"), 1, "no Triton"),
            (ValueError("oh"), 1, "unexpected ValueError: oh; the log is "),
            (OSError(28, "No space left on device", "x"), 1, "unexpected OSError: No space left on device"),
        ],
    )
    def test_by_an_error(
        self, make: Make, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, reason: str
    ) -> None:
        folder = make()
        monkeypatch.setattr(run_work, "tune", _raising(error))
        assert run(folder, Place()) == code
        ended = _final(folder)
        assert ended[:2] == ("failed", code)
        assert ended[2].startswith(reason)
        assert folder.error_log.exists() == ("unexpected" in reason)

    @pytest.mark.parametrize("error", [InterruptedRunError("interrupted"), KeyboardInterrupt()])
    def test_by_an_interruption_is_left_to_the_service(
        self, make: Make, monkeypatch: pytest.MonkeyPatch, error: BaseException
    ) -> None:
        folder = make()
        monkeypatch.setattr(run_work, "tune", _raising(error))
        if isinstance(error, KeyboardInterrupt):
            with pytest.raises(KeyboardInterrupt):
                run(folder, Place())
        else:
            assert run(folder, Place()) == 130
        assert _final(folder) == ("running", None, "")

    @pytest.mark.parametrize(
        ("best", "failures", "ended"),
        [
            ({"a": 1, "b": 2}, {}, ("succeeded", 0, "")),
            ({"a": 1, "b": None}, {}, ("succeeded", 3, "no candidate of b holds p99 <= 5 ms")),
            ({"a": 1}, {"b": TuningError("b: crashed")}, ("failed", 1, "1 model (b) failed: b: crashed")),
        ],
    )
    def test_by_the_results_of_the_models(
        self,
        make: Make,
        monkeypatch: pytest.MonkeyPatch,
        best: dict[str, int | None],
        failures: dict[str, Exception],
        ended: tuple[str, int, str],
    ) -> None:
        outcomes = [
            SimpleNamespace(model=model, recommendation=SimpleNamespace(best=trial)) for model, trial in best.items()
        ]
        monkeypatch.setattr(run_work, "tune", lambda *_, **__: SimpleNamespace(outcomes=outcomes, failures=failures))
        folder = make(slo={"p99": "5ms"})
        assert run(folder, Place()) == ended[1]
        assert _final(folder) == ended

    def test_by_wrong_options_names_them(self, make: Make) -> None:
        folder = make(budgt="10m")
        assert run(folder, Place()) == 2
        assert _final(folder) == ("failed", 2, "job: unknown option 'budgt'; did you mean 'budget'?")

    def test_by_a_missing_repository(self, make: Make) -> None:
        folder = make(repository="/nowhere/models")
        assert run(folder, Place()) == 2
        assert _final(folder)[2] == "/nowhere/models: no such folder"


class TestWhatItIsTold:
    def _job(self, folder: JobFolder, monkeypatch: pytest.MonkeyPatch, place: Place = _ANYWHERE) -> TuneJob:
        jobs: list[TuneJob] = []

        def tune(job: TuneJob, **_: object) -> SimpleNamespace:
            jobs.append(job)
            return SimpleNamespace(outcomes=(), failures={})

        monkeypatch.setattr(run_work, "tune", tune)
        assert run(folder, place) == 0
        return jobs[0]

    def test_secrets_are_known_to_the_job_and_stored_nowhere(
        self, make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        folder = make(header={"authorization": "Bearer ${KEY}"}, env={"API_KEY": "${KEY}"})
        job = self._job(folder, monkeypatch)
        assert job.header == (("authorization", "Bearer hush-hush-12"),)
        assert job.env == {"API_KEY": "hush-hush-12"}
        assert not [file for file in _files(tmp_path) if b"hush-hush" in file.read_bytes()]

    def test_a_secret_that_is_gone_is_an_error(self, make: Make) -> None:
        folder = make(header={"authorization": "${OTHER}"})
        assert run(folder, Place()) == 2
        assert "OTHER" in _final(folder)[2]

    def test_the_gpu_of_its_slot(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self._job(make(), monkeypatch, Place(gpus="GPU-1a")).gpus == "GPU-1a"
        assert self._job(make(), monkeypatch).gpus is None

    def test_the_cores_of_its_slot(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        cores: dict[int, object] = {}
        monkeypatch.setattr(os, "sched_setaffinity", cores.__setitem__)
        job = self._job(make(), monkeypatch, Place(cores=frozenset({3, 1})))
        assert cores.keys() >= {int(thread.name) for thread in Path("/proc/self/task").iterdir()}
        assert set(map(str, cores.values())) == {str(frozenset({3, 1}))}
        assert job.docker_arg == {}  # a process inherits them
        job = self._job(make(server="docker"), monkeypatch, Place(cores=frozenset({3, 1})))
        assert job.docker_arg == {"cpuset_cpus": "1,3"}

    def test_but_the_users_own_cores_count(self) -> None:
        job = TuneJob.make({"repository": "m", "docker_arg": {"cpuset_cpus": "0"}})
        assert pinned(job, frozenset({1})) == {}


def test_a_log_that_cannot_be_written_does_not_end_the_job(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_work, "tune", lambda *_, **__: SimpleNamespace(outcomes=(), failures={}))
    with open("/dev/full", "w") as full:  # noqa: PTH123 (no path is meant)
        monkeypatch.setattr(sys, "stdout", full)
        assert run(make(), Place()) == 0
        with pytest.raises(OSError, match="No space left"):
            full.close()


def _raising(error: BaseException) -> Callable[..., Any]:
    def tune(*_: object, **__: object) -> Any:
        raise error

    return tune


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
@pytest.mark.usefixtures("fake_on_path")
class TestOnAServer:
    @pytest.fixture(autouse=True)
    def rough(self) -> Iterator[None]:
        with rough_measurements():
            yield

    def test_a_model_is_tuned(self, make: Make) -> None:
        folder = make(**_ROUGH, trials=1)
        assert run(folder, Place()) == 0
        assert _final(folder) == ("succeeded", 0, "")
        assert RunFolder(folder.run).report.exists()
        events = list(EventLog(folder.path).read())
        assert [event.result.trial for event in events if isinstance(event, ModelEnded)] == [0]
        assert [event.trial for event in events if isinstance(event, TrialEnded)] == [0]
        assert len(events_in(folder.path)) == len(events)

    def test_a_model_is_measured(self, make: Make) -> None:
        folder = make("measure", concurrency="1,2", time="300ms")
        assert run(folder, Place()) == 0
        points = json.loads((folder.run / "points.json").read_text())
        assert points["complete"]
        assert [point["load"]["concurrency"] for point in points["points"]] == [1, 2]
        assert len(of(events_in(folder.path), "point")) == 2
        assert "run/points.json" in [e.path for e in EventLog(folder.path).read() if isinstance(e, ArtifactWritten)]

    def test_a_job_on_two_slots_tells_what_each_does(
        self, make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        # Other tests may use the cores of this machine.
        monkeypatch.setattr(slot_locks, "_FOLDER", tmp_path_factory.mktemp("locks"))
        folder = make(**_ROUGH, sampler="random", trials=3, parallel=2, cores_per_slot=1, slo={"p50": "5s"})
        assert run(folder, Place()) == 0
        events = events_in(folder.path)
        (admitted,) = of(events, "host")
        assert (admitted["event"], len(admitted["slots"])) == ("admitted", 2)
        began = {event["trial"]: event["slot"] for event in of(events, "trial_began")}
        assert set(began.values()) == set(admitted["slots"])
        assert {event["trial"] for event in of(events, "point")} == set(began)
        most = 0
        view = JobView()
        for event in EventLog(folder.path).read():
            view.fold(event)
            most = max(most, sum(slot.work is not None for host in view.hosts for slot in host.slots))
        assert most == 2
        (host,) = view.hosts
        assert (host.name, host.state) == (admitted["host"], "admitted")
        assert {slot.work for slot in host.slots} == {None}
        assert len(view.trials) == len(began)
        front = json.loads((folder.run / "slow/front.json").read_text())
        assert "hosts" not in front  # there is one

    def test_a_night_keeps_its_folder_and_one_history(self, make: Make) -> None:
        folder = make("nightly", Policy(min_gain=0.5), target="mlp-prod", **_ROUGH, trials=1, slo={"p50": "5s"})
        assert run(folder, Place()) == 0
        state, code, reason = _final(folder)
        assert (state, code) == ("succeeded", 0)
        assert reason.startswith("slow: kept")
        nights = nights_of(folder, folder.read().job)
        assert nights == folder.data / "nightly/mlp-prod"
        assert (nights.parent / "history.db").exists()
        report = json.loads((folder.run / "report.json").read_text())
        assert report["outcome"] == "kept"
        assert (folder.run / "model_repository/slow/study.db").exists()
        events = events_in(folder.path)
        assert [event["night"] for event in of(events, "night_ended")] == report["jobs"]
        assert len(of(events, "trial_ended")) == 1
        own = events_in(folder.run / "model_repository/slow")
        assert states_in(own)[-1] == ("succeeded", 1, 0)


def test_nights_without_a_target_have_a_folder_by_repository(make: Make) -> None:
    folder = make("nightly")
    job = folder.read().job
    assert nights_of(folder, job) == nights_of(folder, job.model_copy(update={"id": 99}))
    assert nights_of(folder, job) != nights_of(folder, job.model_copy(update={"repository": "/other"}))
    assert nights_of(folder, job).name.startswith("_")


def _waited(folder: JobFolder, window_s: float, waited: timedelta) -> None:
    """Let a job have waited in the queue, with a window."""
    record = folder.read()
    job = record.job.model_copy(update={"created_at": datetime.now(timezone.utc) - waited})
    folder.write(record.model_copy(update={"job": job, "window_s": window_s}))


def test_the_window_of_a_night_counts_from_its_submission(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    windows: list[float] = []

    def told(file: JobsFile, *_: object) -> NightReport:
        windows.append(file.window)
        return NightReport.of("2026-01-01T02:00:00+00:00", (), notes=(), duration_s=1.0)

    monkeypatch.setattr(night_work, "run_night", told)
    folder = make("nightly", slo={"p50": "5s"}, budget="1m")
    _waited(folder, 8 * 3600, timedelta(hours=3))
    assert run(folder, Place()) == 0
    assert windows == [pytest.approx(5 * 3600, abs=600)]


@pytest.mark.parametrize("kind", ["nightly", "tune", "measure"])
def test_a_job_whose_window_is_over_does_not_start(make: Make, kind: JobKind) -> None:
    folder = make(kind)
    _waited(folder, 3600, timedelta(hours=3))
    assert run(folder, Place()) == 2
    state, code, reason = _final(folder)
    assert (state, code) == ("failed", 2)
    assert reason == "window: 1h00m was over before the job could start; it has waited for 3h00m"
