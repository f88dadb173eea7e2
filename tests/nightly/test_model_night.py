"""One model's part of a night after the other, on a machine that is made up: no Triton, and no time."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.builders import identity, interval, point, space, trial
from support.nights import jobs_file, launch_at

from tuner.config.config import ModelConfig
from tuner.config.patch import Patch
from tuner.core.errors import Cause, ServerDiedError, TuningError
from tuner.core.lease import own_lease
from tuner.core.loads import Concurrency, RequestRate, SteadyLoad
from tuner.jobs.event_log import EventLog
from tuner.jobs.event_progress import EventProgress
from tuner.jobs.events import NightEnded, Noted, PhaseBegan, StateChanged
from tuner.jobs.progress import ModelOutcome
from tuner.measure.points import OperatingPoint
from tuner.measure.quality_warnings import QualityCheck, QualityWarning
from tuner.nightly import model_night
from tuner.nightly.actions import act
from tuner.nightly.comparison import PairedLaunch
from tuner.nightly.history import History, Night
from tuner.nightly.jobs import JobsFile
from tuner.nightly.model_night import NightContext, run_model_night
from tuner.nightly.tasks import tasks_of
from tuner.study.run_folder import RunFolder
from tuner.study.study import Study
from tuner.testing.repositories import ModelRepositoryFactory, config_text

OWN = config_text(max_batch_size=32)
BETTER = ModelConfig.parse(OWN, "own").edited({"dynamic_batching.max_queue_delay_microseconds": 100}).text


class Machine:
    """What configs give on it; what is not named gives 100 inferences/s.

    Args:
        folder: For the repository's job file, and the work.
    """

    def __init__(self, folder: Path, repository: ModelRepositoryFactory) -> None:
        self.folder, self.repository = folder, repository
        self.rates = {"own": 100.0, "better": 150.0}
        self.over = 0
        self.fails: dict[str, int] = {}
        self.dice = random.Random(5)  # noqa: S311 (no secret)
        self.said: list[str] = []
        self.launches: list[tuple[str, tuple[SteadyLoad, ...]]] = []
        self.number = 0
        self.events: EventProgress | None = None

    def kind(self, config: str) -> str:
        return "better" if ModelConfig.parse(config, "x").holds("dynamic_batching") else "own"

    def launch(self, patch: Patch, loads: Sequence[SteadyLoad], name: str, *, candidate: bool = False) -> PairedLaunch:
        kind = self.kind(patch.config)
        assert candidate == name.startswith("candidate")
        self.launches.append((kind, tuple(loads)))
        if self.fails.get(kind, 0):
            self.fails[kind] -= 1
            raise ServerDiedError("it died", cause=Cause.CRASHED)
        rate = self.rates[kind] * self.dice.lognormvariate(0.0, 0.01)
        assert name.startswith(("deployed", "candidate"))
        if isinstance(loads[0], RequestRate):
            # The quicker a config is, the lower is its latency under the same rate.
            return PairedLaunch(points=tuple(point(load, load.level, 1e3 / rate, kept_up=True) for load in loads))
        return launch_at(*((int(load.level), rate) for load in loads), over=self.over if kind == "better" else 0)

    def tuned(self, context: Any, model: Any) -> ModelOutcome:
        """A search that has measured the baseline, and the better one where that is another."""
        run: RunFolder = context.out
        study = Study.create_or_resume(run.database, self.identity(context, model))
        built, own = space(config=OWN), model.config.text

        def measured(config: str) -> OperatingPoint:
            rate = self.rates[self.kind(config)]
            if per_s := context.job.rate:
                return point(RequestRate(per_s), per_s, 1e3 / rate, kept_up=True)
            return point(8, rate, 10.0)

        study.add(trial(0, measured(own), config=own, parameters=built.baseline), built)
        if self.kind(own) != "better":
            study.add(trial(1, measured(BETTER), config=BETTER, parameters=built.baseline), built)
        return ModelOutcome(run, model.name, study, study.recommendation, "done")

    def identity(self, context: Any, model: Any) -> Any:
        return identity(
            objective=context.job.objective,
            model=model.name,
            repository=str(self.repository.path),
            files=model.fingerprint(),
            config=model.config.text,
        )

    def night(self, **job: Any) -> Night:
        path = jobs_file(
            self.folder / "jobs.yaml",
            {"repository": str(self.repository.path), "slo": {"p99": "25ms"}, "action": "apply", **job},
        )
        (task,) = tasks_of(JobsFile.read(path), path, print)
        self.number += 1
        self.launches.clear()
        with History.opened(str(self.folder / "history.db")) as history, ExitStack() as until_reported:
            night_context = NightContext(
                night=f"2026-01-{self.number:02d}T03:00:00+00:00",
                folder=self.folder / f"work/{self.number}",
                work=self.folder / "work",
                last=None,
                budget=60.0,
                spare_until=0.0,
                at_last=1e12,
                say=self.said.append,
                until_reported=until_reported,
                events=self.events,
            )
            found = run_model_night(task, night_context, history)
            history.add(found)
        return found

    @property
    def config(self) -> Path:
        return self.repository.path / "slow/config.pbtxt"


@pytest.fixture
def machine(model_repository: ModelRepositoryFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    model_repository.add("slow", config=OWN)
    made = Machine(tmp_path, model_repository)

    @contextmanager
    def run_context(job: Any, out: RunFolder, *, progress: Any) -> Iterator[Any]:
        assert progress is not None
        path = made.folder / "jobs.yaml"
        (task,) = tasks_of(JobsFile.read(path), path, print)
        with out.opened(resume=False):
            progress.run_began()
            yield SimpleNamespace(job=job, out=out), (task.model,)

    monkeypatch.setattr(model_night, "run_context", run_context)
    monkeypatch.setattr(model_night, "tune_model", made.tuned)
    monkeypatch.setattr(model_night, "identity_of", made.identity)
    monkeypatch.setattr(model_night, "reported", lambda *_: nullcontext())

    def launches(_context: Any, model: Any, _folder: Path) -> SimpleNamespace:
        return SimpleNamespace(launch=made.launch, deployed=Patch(config=model.config.text))

    monkeypatch.setattr(model_night, "Launches", launches)
    return made


def test_a_night_writes_its_events(machine: Machine) -> None:
    with EventProgress.of_job(machine.folder, pytest.fail) as machine.events:
        machine.night()
    own = list(EventLog(machine.folder / "work/1").read())
    states = [(event.state, event.exit_code) for event in own if isinstance(event, StateChanged)]
    assert states == [("starting", None), ("running", None), ("succeeded", 10)]
    phases = [event.phase for event in own if isinstance(event, PhaseBegan)]
    assert phases == ["comparison"]
    (night,) = [event.night for event in own if isinstance(event, NightEnded)]
    assert (night["outcome"], night["gain"]["value"]) == ("improved", pytest.approx(1.5, rel=0.05))
    said = [event.text for event in own if isinstance(event, Noted)]
    assert any("comparing trial 1 at " in text for text in said)
    # Those of the whole night have the same, but for the end of the model, which the night tells.
    assert [event.text for event in EventLog(machine.folder).read() if isinstance(event, Noted)] == said
    assert set(said) <= set(machine.said)


def test_it_improves_then_keeps_then_tells_a_slowdown(machine: Machine) -> None:
    first = machine.night()
    assert (first.outcome, first.regression) == ("improved", False)
    assert first.gain
    assert first.gain.value == pytest.approx(1.5, rel=0.05)
    assert first.candidate
    assert first.candidate.throughput.value == pytest.approx(150, rel=0.05)
    assert machine.config.read_text().endswith(BETTER)
    assert machine.config.read_text().startswith("# tritontune: trial 1 of 2")
    assert first.action.startswith(f"{machine.config} replaced; backup: config.pbtxt.bak-")

    second = machine.night()
    assert (second.outcome, second.reason) == ("kept", "the search found nothing better")
    assert "against 1 earlier night" in second.drift
    assert machine.launches == [("better", (Concurrency(8),))] * 3

    machine.rates["better"] /= 1.3
    (machine.repository.path / "slow/1/more.py").touch()
    third = machine.night()
    assert (third.outcome, third.regression) == ("regression", True)
    assert "the model's files have changed" in third.drift
    # It was measured once more before that was said.
    assert len(machine.launches) == 6


def test_both_configs_are_measured_at_the_load_of_the_candidate(machine: Machine) -> None:
    machine.night()
    assert {loads for kind, loads in machine.launches if kind == "own"} == {(Concurrency(8),)}
    # It is tried once under the load that the search found.
    tried, *compared = [loads for kind, loads in machine.launches if kind == "better"]
    assert tried == (Concurrency(8),)
    assert set(compared) == {(Concurrency(8), Concurrency(4))}


def test_a_candidate_is_compared_at_the_highest_load_at_which_it_holds_the_slo(machine: Machine) -> None:
    """Under the load that the search found it is far over the limit tonight; under less it is far inside."""

    def launch(patch: Patch, loads: Sequence[SteadyLoad], name: str, *, candidate: bool = False) -> PairedLaunch:
        side = machine_launch(patch, loads, name, candidate=candidate)
        late = [point.load.level > 4 and machine.kind(patch.config) == "better" for point in side.points]
        slow = {"latency_ms": dict.fromkeys(side.points[0].latency_ms, interval(61.0))}
        broken = launch_at((8, 1.0), over=1000).points[0].limits
        return PairedLaunch(
            points=tuple(
                each.model_copy(update={**slow, "limits": broken}) if is_late else each
                for each, is_late in zip(side.points, late, strict=True)
            )
        )

    machine_launch = machine.launch
    machine.launch = launch  # type: ignore[method-assign]
    found = machine.night()
    assert found.outcome == "improved"
    assert found.candidate
    assert found.candidate.concurrency == 4
    assert any(
        "too little margin to p99 <= 25 ms at concurrency 8: candidate p99 61 ms" in said for said in machine.said
    )
    # 6 lies between 4 and 8, and is over the limit, too.
    tried = [loads for kind, loads in machine.launches if kind == "better"]
    assert tried[:3] == [(Concurrency(8),), (Concurrency(4),), (Concurrency(6),)]
    assert set(tried[3:]) == {(Concurrency(4), Concurrency(2))}


def test_beside_a_busy_neighbour_a_config_that_is_unchanged_is_no_regression(machine: Machine) -> None:
    machine.night()
    machine.night()
    machine_launch = machine.launch

    def beside(patch: Patch, loads: Sequence[SteadyLoad], name: str, *, candidate: bool = False) -> PairedLaunch:
        warning = QualityWarning(
            check=QualityCheck.MACHINE_LOAD,
            reason="load from elsewhere: other processes used 1.2 of 2 cores",
        )
        side = machine_launch(patch, loads, name, candidate=candidate)
        return PairedLaunch(points=tuple(each.model_copy(update={"warnings": (warning,)}) for each in side.points))

    machine.rates["better"] /= 2
    machine.launch = beside  # type: ignore[method-assign]
    found = machine.night()
    assert (found.outcome, found.regression) == ("kept", False)
    assert found.drift.startswith("inconclusive: machine busy with other load: 7")
    assert any("inconclusive" in said for said in machine.said)

    # Where enough launches had the machine to themselves, it is for these to say.
    calls = count()

    def at_first(patch: Patch, loads: Sequence[SteadyLoad], name: str, *, candidate: bool = False) -> PairedLaunch:
        launch = beside if next(calls) < 2 else machine_launch
        return launch(patch, loads, name, candidate=candidate)

    machine.launch = at_first  # type: ignore[method-assign]
    assert machine.night().outcome == "regression"


def test_what_only_seemed_better_is_not_applied(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned = machine.tuned

    def lucky(context: Any, model: Any) -> ModelOutcome:
        machine.rates["better"] = 150.0
        found = tuned(context, model)
        machine.rates["better"] = 100.0
        return found

    monkeypatch.setattr(model_night, "tune_model", lucky)
    found = machine.night()
    assert found.outcome == "kept"
    assert "gain not shown to exceed 3.0% (95 % confidence)" in found.reason
    assert machine.config.read_text() == OWN
    assert not list(machine.config.parent.glob("*.bak-*"))


def test_who_does_not_surely_hold_the_slo_is_not_applied(machine: Machine) -> None:
    machine.over = 21
    found = machine.night()
    assert found.outcome == "kept"
    assert "p99 <= 25 ms" in found.reason
    assert machine.config.read_text() == OWN


def test_a_proposal_changes_nothing_that_is_deployed(machine: Machine) -> None:
    found = machine.night(action="propose")
    assert (found.outcome, found.candidate) == ("improved", None)
    assert machine.config.read_text() == OWN
    proposed = machine.folder / "work/proposed/model_repository/slow"
    assert (proposed / "config.pbtxt").read_text().endswith(BETTER)
    again = machine.night(action="propose")
    assert (again.outcome, again.regression) == ("improved", False)
    assert "against 1 earlier night" in again.drift
    # Once it is deployed, it is no proposal any more.
    machine.config.write_text((proposed / "config.pbtxt").read_text())
    assert machine.night(action="propose").outcome == "kept"
    assert not proposed.exists()


def test_a_command_may_deploy_it(machine: Machine) -> None:
    found = machine.night(action="command", command=["sh", "-c", 'cp "$TRITONTUNE_CONFIG" "$TRITONTUNE_DEPLOYED"'])
    assert found.outcome == "improved"
    assert found.candidate
    assert machine.night(action="propose").drift.endswith("against 1 earlier night")


def test_an_interruption_while_it_is_applied_waits_until_that_is_told(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: Any, **rest: Any) -> str:
        signal.raise_signal(signal.SIGINT)
        return act(*args, **rest)

    monkeypatch.setattr(model_night, "act", interrupted)
    with pytest.raises(KeyboardInterrupt):
        machine.night()
    with History.opened(str(machine.folder / "history.db")) as history:
        assert [each.outcome for each in history.nights()] == ["improved"]
    assert machine.config.read_text().endswith(BETTER)


def test_a_hand_in_between_is_not_overwritten(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned = machine.tuned

    def edits(context: Any, model: Any) -> ModelOutcome:
        found = tuned(context, model)
        machine.config.write_text(OWN + "# a hand was here\n")
        return found

    monkeypatch.setattr(model_night, "tune_model", edits)
    found = machine.night()
    assert (found.outcome, found.action) == ("failed", "")
    assert "has changed since it was read; nothing was written; the config is in " in found.reason
    assert found.gain
    assert found.deployed
    assert machine.config.read_text() == OWN + "# a hand was here\n"


def test_a_deployed_config_that_does_not_work_is_told(machine: Machine) -> None:
    machine.night(action="propose")
    machine.fails = {"own": 1}
    assert machine.night(action="propose").outcome == "improved"
    machine.fails = {"own": 2}
    with pytest.raises(TuningError, match="the deployed config does not work: crashed: it died"):
        machine.night(action="propose")


def test_a_candidate_that_fails_is_not_applied(machine: Machine) -> None:
    machine.fails = {"better": 1}
    found = machine.night()
    assert (found.outcome, found.reason) == ("kept", "the candidate failed: crashed: it died")
    assert found.deployed


def test_a_slowdown_that_passes_is_none(machine: Machine) -> None:
    machine.night()
    machine.night()
    launch, calls = machine.launch, [0]

    def slow_at_first(patch: Patch, loads: Sequence[SteadyLoad], name: str, *, candidate: bool = False) -> PairedLaunch:
        calls[0] += 1
        machine.rates["better"] = 105.0 if calls[0] <= 1 else 150.0
        return launch(patch, loads, name, candidate=candidate)

    machine.launch = slow_at_first  # type: ignore[method-assign]
    assert not machine.night().regression


def test_what_a_killed_night_left_beside_the_config_is_removed(machine: Machine) -> None:
    left = machine.config.with_name(f".config.pbtxt.new-0123abcd-{replace(own_lease(), pid=999_999_999)}")
    left.touch()
    machine.night()
    assert not left.exists()
    assert any("removed 1 unfinished file of a killed night" in line for line in machine.said)


def test_at_a_fixed_rate_the_quicker_config_is_the_improvement(machine: Machine) -> None:
    options = {"minimize": "latency.p99", "rate": 50, "slo": {}}
    first = machine.night(**options)
    assert (first.outcome, first.objective) == ("improved", "latency.p99")
    assert first.gain
    assert first.gain.value == pytest.approx(1.5, rel=0.05)
    assert "x as quick by p99 latency" in first.reason
    assert {load for _, loads in machine.launches for load in loads} == {RequestRate(50.0)}
    assert first.candidate
    assert (first.candidate.request_rate, first.candidate.concurrency) == (50.0, None)
    # The next night measures it under the same rate, and tells that it is slower.
    machine.rates["better"] /= 3
    second = machine.night(**options)
    assert second.regression
    assert second.drift.startswith("slower: 50 inferences/s at 50 requests/s")


def test_nights_with_another_load_are_no_history(machine: Machine) -> None:
    machine.night()
    machine.rates["better"] /= 2
    at_a_rate = machine.night(minimize="p99", rate=50, slo={})
    assert not at_a_rate.regression
