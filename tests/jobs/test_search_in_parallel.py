"""A search with several trials under way, on slots of several hosts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.builders import MLP, identity, point
from support.executors import CarryOut, SlotsExecutor, host

from tuner.cluster.slots import Host
from tuner.config.config import ModelConfig
from tuner.config.instances import instance_count
from tuner.config.repository import ModelRepository
from tuner.core.errors import Cause, HostLostError, TuningError
from tuner.jobs.model_tuning import ModelTuning
from tuner.jobs.progress import Progress
from tuner.jobs.run_context import RunContext
from tuner.measure.quality_warnings import QualityCheck, QualityWarning
from tuner.measure.work import Failure, Outcome, TrialProgress, Work
from tuner.options.tune_job import TuneJob
from tuner.space.spec import load_space
from tuner.study.run_folder import RunFolder
from tuner.study.study import Study


def measured(work: Work, _folder: Path, progress: TrialProgress) -> Outcome:
    """The outcome of a launch whose throughput follows from its config."""
    config = ModelConfig.parse(work.patch.config, "it")
    batching = config.proto.HasField("dynamic_batching")
    throughput = 100.0 * instance_count(config.proto) ** 0.5 * (3 if batching else 1) + config.proto.max_batch_size
    measured = point(8, throughput, 10)
    progress.level_began(measured.load)
    progress.point_measured(measured)
    return Outcome((measured,), None, config.text, launch_s=1.0, first_answer_s=0.01, wall_s=2.0)


class Heard(Progress):
    """Remembers trials and points."""

    def __init__(self) -> None:
        self.began: dict[int, str] = {}
        self.points: list[int | None] = []
        self.again: list[int | None] = []
        self.phases: list[str] = []

    def phase_began(self, phase: str) -> None:
        self.phases.append(phase)

    def launch_began(self, slot: str, words: str) -> None:
        assert slot
        if words.startswith("round"):
            self.phases.append("a round")

    def trial_began(self, number: int, words: str, slot: str = "") -> None:
        assert words
        self.began[number] = slot

    def point_measured(self, point: Any, *, trial: int | None = None) -> None:
        assert point
        self.points.append(trial)

    def requeued(self, work: str, slot: str, reason: str, *, trial: int | None = None) -> None:
        assert work
        assert slot
        assert reason
        self.again.append(trial)


class Search:
    """Tunes a model on some hosts."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        (folder / "models" / "mlp" / "1").mkdir(parents=True)
        (folder / "models" / "mlp" / "config.pbtxt").write_text(MLP)
        self.out = RunFolder(folder / "run")
        self.out.path.mkdir()
        self.folder, self.heard = folder, Heard()
        self._executor = SlotsExecutor(measured, ())

    def on(self, *hosts: Host, carry_out: CarryOut = measured) -> SlotsExecutor:
        """The hosts from now on."""
        self._executor = SlotsExecutor(carry_out, hosts)
        self._monkeypatch.setattr("tuner.cluster.dispatcher.first_of", self._executor.first_of)
        return self._executor

    def run(self, **options: Any) -> Study:
        """Run or resume it, without verification."""
        job = TuneJob.make(
            {
                "repository": str(self.folder / "models"),
                "slo": {"p99": "25ms"},
                "verify": False,
                "output_tolerance": "off",
                "parallel": "auto",
                "sampler": "random",
                **options,
            }
        )
        model = ModelRepository.open(self.folder / "models").model("mlp")
        study = Study.create_or_resume(self.out.database, identity(output_tolerance=None))
        context = RunContext(job, self.out, load_space("default"), self._executor, self.heard, ("mlp",))
        assert ModelTuning(context, model, study).run()
        return Study.load(self.out.database, "mlp")


@pytest.fixture
def search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Search:
    return Search(tmp_path, monkeypatch)


@pytest.mark.parametrize("sampler", ["random", "tpe", "twin"])
def test_all_slots_have_work_and_each_trial_says_what_it_was_proposed_after(search: Search, sampler: str) -> None:
    executor = search.on(host("a", 2), host("b", 2))
    trials = search.run(trials=12, sampler=sampler).trials
    assert executor.most == 4
    assert len(trials) == 12 or sampler == "twin"
    assert trials[0].number == 0
    assert {trial.number for trial in trials} == set(range(len(trials)))
    parameters = [tuple(trial.parameters.items()) for trial in trials]
    assert len(set(parameters)) == len(parameters)
    assert {trial.host for trial in trials} == {"a", "b"}
    assert max(len(trial.beside) for trial in trials) == 3
    finished = list[int]()
    for trial in trials:
        assert trial.after is not None
        # In order of completion; what was finished or under way when it was proposed has a lower number.
        assert set(trial.after) <= set(finished)
        assert sorted({*trial.after, *trial.beside}) == list(range(trial.number))
        finished.append(trial.number)
    assert set(search.heard.points) == set(range(len(trials)))
    assert set(search.heard.began.values()) == {"a/0", "a/1", "b/0", "b/1"}


def test_a_lost_host_loses_no_trial(search: Search) -> None:
    def lose(work: Work, folder: Path, progress: TrialProgress) -> Outcome:
        if len(search.heard.began) > 6:
            executor.lost.add("b")
        return measured(work, folder, progress)

    executor = search.on(host("a", 2), host("b", 2), carry_out=lose)
    study = search.run(trials=12)
    assert len(study.trials) == 12
    assert all(trial.failure is None for trial in study.trials)
    assert len({tuple(trial.parameters.items()) for trial in study.trials}) == 12
    assert search.heard.again
    assert {trial.host for trial in study.trials[-4:]} == {"a"}


def test_the_baseline_is_launched_once_on_every_host(search: Search) -> None:
    executor = search.on(host("a", 2), host("b", 2), host("../c"))
    study = search.run(trials=9)
    own = [slot.host for work, slot in executor.submitted if work.patch == study.trials[0].patch]
    assert own == ["a", "b", "../c"]
    assert [(record.name, len(record.launches)) for record in study.hosts] == [("a", 0), ("b", 1), ("../c", 1)]
    search.run(trials=10)
    own = [slot.host for work, slot in executor.submitted if work.patch == study.trials[0].patch]
    assert len(own) == 3


def test_a_host_on_which_the_baseline_fails_gets_no_more_work(search: Search) -> None:
    def on_b_it_fails(work: Work, folder: Path, progress: TrialProgress) -> Outcome:
        if "host-b" in folder.name:
            return Outcome(failure=Failure(cause=Cause.OUT_OF_MEMORY, message="no memory is left"))
        return measured(work, folder, progress)

    executor = search.on(host("a", 2), host("b", 2), carry_out=on_b_it_fails)
    study = search.run(trials=12)
    assert executor.drained == {"b": "the baseline failed on it: no memory is left"}
    assert [record.drained for record in study.hosts] == [None, executor.drained["b"]]
    assert len(study.trials) == 12
    assert {trial.host for trial in study.trials[-6:]} == {"a"}


def test_a_host_that_is_not_to_be_trusted_gets_no_more_work_and_its_trials_are_measured_elsewhere(
    search: Search,
) -> None:
    warning = QualityWarning(check=QualityCheck.MACHINE_LOAD, reason="others use the machine")

    def disturbed_on_b(work: Work, folder: Path, progress: TrialProgress) -> Outcome:
        outcome = measured(work, folder, progress)
        if executor.host != "b" or "trials" not in str(folder):
            return outcome
        points = tuple(each.model_copy(update={"warnings": (warning,)}) for each in outcome.points)
        return replace(outcome, points=points)

    executor = search.on(host("a"), host("b"), host("c"), carry_out=disturbed_on_b)
    study = search.run(trials=12)
    assert list(executor.drained) == ["b"]
    assert "failed quality checks (load from elsewhere)" in executor.drained["b"]
    (drained,) = [record for record in study.hosts if record.drained]
    assert (drained.name, drained.drained) == ("b", executor.drained["b"])
    # The three trials that b disturbed do not count, and their candidates were launched on other hosts.
    assert all(trial.host != "b" for trial in study.trials)
    on_b = [work.patch for work, slot in executor.submitted if slot.host == "b"][-3:]
    elsewhere = [work.patch for work, slot in executor.submitted if slot.host != "b"]
    assert all(patch in elsewhere for patch in on_b)
    assert len(study.trials) == 12
    assert len({tuple(trial.parameters.items()) for trial in study.trials}) == 12
    assert study.next_number == 15
    resumed = search.run(trials=13)
    assert len(resumed.trials) == 13
    assert resumed.trials[-1].number == 15


def test_a_lost_baseline_is_launched_when_its_host_is_back(search: Search) -> None:
    lost: list[str] = []

    def lose(work: Work, folder: Path, progress: TrialProgress) -> Outcome:
        if "host-b" in folder.name and not lost:
            lost.append("b")
            raise HostLostError("its process was killed")
        return measured(work, folder, progress)

    search.on(host("a"), host("b"), carry_out=lose)
    study = search.run(trials=8)
    assert lost
    assert [len(record.launches) for record in study.hosts] == [0, 1]


def test_idle_slots_verify_the_leaders(search: Search) -> None:
    search.on(host("a", 3))
    study = search.run(trials=6, verify=True, budget="1h")
    assert study.verified
    assert study.recommendation.best
    assert study.recommendation.best.verified
    assert search.heard.phases.index("verification") > search.heard.phases.index("a round")


def test_a_resumed_search_goes_on_after_the_highest_number(search: Search) -> None:
    search.on(host("a", 2))
    search.run(trials=5)
    study = search.run(trials=9)
    assert {trial.number for trial in study.trials} == set(range(9))
    assert study.took_s < 60  # by the clock, not the sum over slots


def test_the_end_of_all_hosts_ends_the_run(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuner.cluster.dispatcher._WITHOUT_HOSTS_S", 0.0)
    monkeypatch.setattr("tuner.cluster.dispatcher._LOOK_S", 0.01)

    def lose(work: Work, folder: Path, progress: TrialProgress) -> Outcome:
        if len(search.heard.began) > 3:
            executor.lost.add("a")
        return measured(work, folder, progress)

    executor = search.on(host("a", 2), carry_out=lose)
    with pytest.raises(TuningError, match="^no host is left to go on with"):
        search.run(trials=12)
    assert len(Study.load(search.out.database, "mlp").trials) >= 3
