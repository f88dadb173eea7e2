"""The way from Python."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command_line import servers_of
from support.rough import rough_measurements

from tuner import TuneJob, tune
from tuner.analysis.effects import field_effects
from tuner.core.errors import Cause, ConfigError, InputError, JobError, TuningError
from tuner.jobs.output_check import GOLDEN_FILE
from tuner.jobs.progress import ModelOutcome, Progress
from tuner.measure.points import OperatingPoint
from tuner.measure.trial import TrialResult
from tuner.recommend.recommend import Recommendation
from tuner.study.run_folder import RunFolder
from tuner.study.study import Study
from tuner.testing.repositories import ModelRepositoryFactory, config_text

# One change and the other multiply, and no rule of thumb tries either alone.
QUICKER_AND_MORE = """\
schema: 1
parameters:
  quickness: {field: 'parameters["sleep_ms"].string_value', ladder: ["10", "11", "12", "13", "14", "15"]}
  instances: {field: "instance_group[0].count", ladder: [1, 2, 3, 4], max_per_cpu: 4}
"""

NAMES = {"quickness", "instances"}

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("rough", "fake_on_path")]


@pytest.fixture
def rough() -> Iterator[None]:
    """How precise the numbers are is not for these tests."""
    with rough_measurements():
        yield


class Told(Progress):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def note(self, text: str) -> None:
        self.events.append(text)

    def model_began(self, model: str, *, study: Study, budget_s: float) -> None:
        self.events.append(f"{model} began with {len(study.trials)} trials and {budget_s:.0f} s")

    def trial_began(self, number: int, words: str, slot: str = "") -> None:
        assert not slot  # the run has only one
        self.events.append(f"trial {number} began: {words}")

    def trial_ended(self, result: TrialResult, recommendation: Recommendation) -> None:
        self.events.append(f"trial {result.number} ended")
        assert recommendation.best is not None or result.failure

    def model_ended(self, outcome: ModelOutcome) -> None:
        self.events.append(f"{outcome.model} ended: {outcome.ended}")


def _job(repository: ModelRepositoryFactory, **options: object) -> TuneJob:
    defaults = {"repository": repository.path, "trials": 2, "max_concurrency": 2, "server": "process", "verify": False}
    return TuneJob.make({**defaults, **options})


def test_it_returns_the_recommendation_and_its_study(model_repository: ModelRepositoryFactory, tmp_path: Path) -> None:
    model_repository.add("slow")
    told = Told()
    result = tune(_job(model_repository, verify=True), out=RunFolder(tmp_path / "run"), progress=told)
    (outcome,) = result.outcomes
    assert result.failures == {}
    assert outcome.recommendation.best is not None
    assert outcome.recommendation.best.point.throughput.value > 10
    assert len(outcome.study.trials) == 2
    assert outcome.recommendation.best.verified
    assert outcome.study.took_s > outcome.study.spent_s
    # How many finalists there are, and which, and whether first answers are slow, is for the measurements to say;
    # leftovers are another test's.
    assert any(event.startswith("verifying trial ") and " at concurrency " in event for event in told.events)
    assert [e for e in told.events[:-1] if "warm-up" not in e][-1].startswith("certifying trial ")
    assert outcome.study.certified is not None
    others = ("verifying", "relaunched", "confirming", "certifying", "removed", "trial 0 at", "trial 1 at")
    assert [event for event in told.events if not event.startswith(others) and "warm-up" not in event] == [
        "slow began with 0 trials and 600 s",
        "trial 0 began: the baseline",
        "trial 0 ended",
        "trial 1 began: dynamic_batching, max_batch_size 128, instance_group.count 1",
        "trial 1 ended",
        "slow ended: all 2 trials are done",
    ]


def test_a_warm_start_takes_up_what_an_earlier_run_measured(
    model_repository: ModelRepositoryFactory, tmp_path: Path
) -> None:
    model_repository.add("slow")
    tune(_job(model_repository, sampler="tpe"), out=RunFolder(tmp_path / "first"))
    again = _job(model_repository, sampler="tpe", warm_start=tmp_path / "first")
    told = Told()
    (outcome,) = tune(again, out=RunFolder(tmp_path / "second"), progress=told).outcomes
    assert f"{tmp_path / 'first'}: reusing 1 trials, measured under the same conditions" in told.events
    assert [trial.imported for trial in outcome.study.trials] == [False, True, False]
    assert outcome.study.own_trials == outcome.study.launches == 2
    sent = tune(_job(model_repository, batch_size=2, warm_start=tmp_path / "first"), out=RunFolder(tmp_path / "other"))
    assert [trial.imported for trial in sent.outcomes[0].study.trials] == [False, False]


def test_a_warm_start_from_nowhere_is_said_before_anything_is_launched(
    model_repository: ModelRepositoryFactory, tmp_path: Path
) -> None:
    model_repository.add("slow")
    with pytest.raises(JobError, match=f"^{tmp_path}: not a run folder"):
        tune(_job(model_repository, warm_start=tmp_path), out=RunFolder(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("sampler", ["random", "grid"])
def test_other_samplers_search_too(model_repository: ModelRepositoryFactory, tmp_path: Path, sampler: str) -> None:
    model_repository.add("slow")
    told = Told()
    space = tmp_path / "space.yaml"
    space.write_text("schema: 1\nparameters: {max_batch_size: {ladder: [4]}, dynamic_batching: {ladder: [off, on]}}")
    job = _job(model_repository, sampler=sampler, trials=None, space=str(space))
    (outcome,) = tune(job, out=RunFolder(tmp_path / "run"), progress=told).outcomes
    assert outcome.ended == "every candidate has been measured"
    assert len(outcome.study.trials) == 3
    launches = [event for event in told.events if event.startswith("grid: 3 candidates take about ")]
    assert len(launches) == (sampler == "grid")


def test_each_change_is_explained_by_a_launch_without_it(
    model_repository: ModelRepositoryFactory, tmp_path: Path
) -> None:
    model_repository.add("slow", config=config_text(sleep_ms=40))
    space = tmp_path / "space.yaml"
    space.write_text(QUICKER_AND_MORE)
    # The walk at random follows from the seed alone: its first candidate has both changes. It serves far more than the
    # baseline on any machine.
    job = _job(model_repository, space=str(space), sampler="random", explain=True, seed=7)
    (outcome,) = tune(job, out=RunFolder(tmp_path / "run")).outcomes
    best = outcome.recommendation.best
    assert best is not None
    study = Study.load(outcome.folder.database, "slow")
    # Two launches on top of the two trials that were asked for.
    _, both, *without = study.trials
    assert {name for name in both.parameters if both.parameters[name] != study.space.baseline[name]} == NAMES
    assert [
        {name for name in NAMES if trial.parameters[name] == study.space.baseline[name]} for trial in without[:2]
    ] == [{"quickness"}, {"instances"}]
    # On a machine that stood still for a while, the best may be one of those. Whichever it is, it is explained.
    effects = field_effects(study, best)
    assert effects
    for effect in effects:
        assert effect.trial is not None
        assert effect.trial.failure is None
        assert best.point.load in [point.load for point in effect.trial.curve]
        assert effect.gain is not None
        assert effect.gain.value > 1


def test_without_verifying_the_search_has_all_of_the_budget(
    model_repository: ModelRepositoryFactory, tmp_path: Path
) -> None:
    model_repository.add("slow")
    (outcome,) = tune(_job(model_repository), out=RunFolder(tmp_path / "run")).outcomes
    assert outcome.recommendation.best is not None
    assert not outcome.recommendation.best.verified
    assert (outcome.study.verified, outcome.study.certified, outcome.study.launches) == ((), None, 2)


def test_the_budget_ends_a_run(model_repository: ModelRepositoryFactory, tmp_path: Path) -> None:
    model_repository.add("slow")
    (outcome,) = tune(_job(model_repository, trials=None, budget="3s"), out=RunFolder(tmp_path / "run")).outcomes
    assert outcome.ended == "the budget is spent"
    assert outcome.study.trials


def test_a_candidate_that_answers_otherwise_is_infeasible(
    model_repository: ModelRepositoryFactory, tmp_path: Path
) -> None:
    """Here, batching is what makes it faster, and wrong."""
    model_repository.add("mixes", config=config_text(max_batch_size=64))
    space = tmp_path / "space.yaml"
    space.write_text("schema: 1\nparameters:\n  dynamic_batching: {ladder: [off, on]}\n")
    out, told = RunFolder(tmp_path / "run"), Told()
    (outcome,) = tune(_job(model_repository, space=str(space), trials=1), out=out).outcomes
    golden = out.model("mixes") / GOLDEN_FILE
    golden.unlink()
    (outcome,) = tune(_job(model_repository, space=str(space)), out=out, resume=True, progress=told).outcomes
    # What was lost has been recorded anew.
    assert golden.exists()
    assert f"{golden} is missing; relaunching the baseline to record its outputs" in told.events
    baseline, batching = outcome.study.trials
    assert baseline.failure is None
    assert batching.parameters == {"dynamic_batching": "on"}
    assert batching.failure
    assert batching.failure.cause is Cause.OUTPUTS_DIFFER
    assert batching.failure.message.startswith("output 'OUT' of request ")
    assert batching.curve == ()
    assert outcome.recommendation.best
    assert outcome.recommendation.best.trial.number == 0
    assert ",outputs_differ,\"output 'OUT' of request " in (out.model("mixes") / "trials.csv").read_text()
    assert outcome.study.optuna_trials()[1].constraints["launch"] == 1.0


class Accident(Told):
    """Kills the first server after its first point."""

    def __init__(self, repository: Path) -> None:
        super().__init__()
        self._repository = repository
        self._points: list[OperatingPoint] = []

    def point_measured(self, point: OperatingPoint, *, trial: int | None = None) -> None:
        del trial
        self._points.append(point)
        if len(self._points) == 1:
            for process in servers_of(self._repository):
                process.kill()


def test_a_baseline_that_failed_by_accident_is_measured_once_more(
    model_repository: ModelRepositoryFactory, tmp_path: Path
) -> None:
    model_repository.add("slow")
    told, out = Accident(tmp_path), RunFolder(tmp_path / "run")
    # As a run leaves it that ended before the baseline was measured once more.
    (out.model("slow") / "trials" / "000-failed" / "old").mkdir(parents=True)
    (outcome,) = tune(_job(model_repository, trials=1), out=out, progress=told).outcomes
    (baseline,) = outcome.study.trials
    assert (baseline.number, baseline.failure) == (0, None)
    assert outcome.recommendation.best
    assert outcome.recommendation.best.trial.number == 0
    (note,) = [event for event in told.events if event.startswith("the baseline failed midway (crashed: ")]
    assert note.endswith("; measuring it once more")
    assert {path.name for path in (out.model("slow") / "trials").iterdir()} == {"000", "000-failed"}


def test_a_baseline_that_fails_again_stays_failed(model_repository: ModelRepositoryFactory, tmp_path: Path) -> None:
    batching = config_text(more="dynamic_batching { max_queue_delay_microseconds: 50000 }", crash_when_batch_exceeds=1)
    model_repository.add("crashes", config=batching)
    job = _job(model_repository, trials=1, output_tolerance="off")
    (outcome,) = tune(job, out=RunFolder(tmp_path / "run")).outcomes
    (baseline,) = outcome.study.trials
    assert baseline.failure
    assert baseline.failure.cause is Cause.CRASHED
    assert len(baseline.curve) == 1
    assert outcome.recommendation.best is None


def test_what_does_not_vary_is_noted(model_repository: ModelRepositoryFactory, tmp_path: Path) -> None:
    model_repository.add("identity", config=config_text(max_batch_size=0))
    told = Told()
    tune(_job(model_repository, trials=1, output_tolerance="off"), out=RunFolder(tmp_path / "run"), progress=told)
    assert not (tmp_path / "run/identity" / GOLDEN_FILE).exists()
    assert "max_batch_size does not vary: the model does not batch (max_batch_size is 0)" in told.events


def test_the_only_models_error_is_the_runs(model_repository: ModelRepositoryFactory, tmp_path: Path) -> None:
    model_repository.add("refuses")
    with pytest.raises(TuningError, match=": the baseline failed: .*no weights here"):
        tune(_job(model_repository), out=RunFolder(tmp_path / "run"))
    assert not RunFolder(tmp_path / "run").database.exists()


@pytest.mark.triton
def test_what_a_model_calls_is_loaded_with_each_launch(
    model_repository: ModelRepositoryFactory, tmp_path: Path
) -> None:
    """The first launch does not know of it yet."""
    common = model_repository.path.parent / "common"
    common.mkdir()
    (common / "callee.py").write_text('NAME = "identity"\n')
    model_repository.add("identity")
    model_repository.add("calls", config=config_text(more="dynamic_batching { }"))
    told = Told()
    job = _job(model_repository, model="calls", trials=2, verify=False)
    result = tune(job, out=RunFolder(tmp_path / "run"), progress=told)
    assert all(trial.failure is None for trial in result.outcomes[0].study.trials)
    commands = [(tmp_path / f"run/calls/trials/{number:03}/command.txt").read_text() for number in range(2)]
    assert ["--load-model=identity" in command for command in commands] == [False, True]
    assert (
        told.events.count(
            "loaded identity, because calls calls it; use --load-model identity to load it from the start"
        )
        == 1
    )


def test_one_models_error_is_not_the_others(model_repository: ModelRepositoryFactory, tmp_path: Path) -> None:
    model_repository.add("identity", name="a", config="max_batch_size: :")
    model_repository.add("identity", name="b", config=config_text().replace("dims: [ 4 ]", "dims: [ -1 ]"))
    model_repository.add("slow", name="c")
    # A shape that is for one model is not for the others.
    job = _job(model_repository, trials=1, shape=["c/IN:4"])
    result = tune(job, out=RunFolder(tmp_path / "run"))
    assert [outcome.model for outcome in result.outcomes] == ["c"]
    assert {name: type(error) for name, error in result.failures.items()} == {"a": ConfigError, "b": InputError}


def test_a_shape_that_is_for_none_of_the_models_is_said_before_anything_is_launched(
    model_repository: ModelRepositoryFactory, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        model_repository.add("identity", name=name)
    with pytest.raises(JobError, match="--shape: no input 'IM' in any of the models a, b; did you mean 'IN'"):
        tune(_job(model_repository, shape=["IM:4"]), out=RunFolder(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_repository_in_which_nothing_can_be_tuned(model_repository: ModelRepositoryFactory, tmp_path: Path) -> None:
    for name in ("a", "b"):
        model_repository.add("identity", name=name, config='platform: "ensemble"\nensemble_scheduling { }')
    with pytest.raises(TuningError, match="none of its models can be tuned"):
        tune(_job(model_repository), out=RunFolder(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_results_do_not_go_into_the_repository(model_repository: ModelRepositoryFactory) -> None:
    model_repository.add("identity")
    with pytest.raises(JobError, match="lies in the model repository"):
        tune(_job(model_repository), out=RunFolder(model_repository.path / "run"))


def test_a_candidate_that_may_answer_otherwise_is_measured_and_its_difference_reported(
    model_repository: ModelRepositoryFactory, tmp_path: Path
) -> None:
    model_repository.add("mixes", config=config_text(max_batch_size=64))
    space = tmp_path / "space.yaml"
    space.write_text(
        "schema: 1\nparameters:\n  dynamic_batching: {ladder: [off, on], changes_numerics: [on], does: Batches.}\n"
    )
    out = RunFolder(tmp_path / "run")
    (outcome,) = tune(_job(model_repository, space=str(space), allow_numerics=True), out=out).outcomes
    baseline, batching = outcome.study.trials
    assert (baseline.output_difference, batching.failure) == ("", None)
    assert "baseline" in batching.output_difference
    study = Study.load(out.database, "mixes")
    assert study.trials[1].output_difference == batching.output_difference
    said = f"the best config changes what the model answers: {batching.output_difference}"
    best = study.recommendation.best
    assert best is not None
    assert (said in study.remarks) is (best.trial.number == 1)
    # Without leave, the value is not searched.
    told = Told()
    (outcome,) = tune(
        _job(model_repository, space=str(space)), out=RunFolder(tmp_path / "strict"), progress=told
    ).outcomes
    assert len(outcome.study.trials) == 1
    assert (
        "dynamic_batching: on left out: it may change what the model answers; allow it with --allow-numerics"
        in told.events
    )


def test_a_value_that_the_server_lacks_is_tried_alone_and_left_out(
    model_repository: ModelRepositoryFactory, tmp_path: Path
) -> None:
    """As an accelerator that the image lacks: the model refuses to load with it."""
    model_repository.add("refuses", config=config_text(out_of_memory_when_instances=100))
    space = tmp_path / "space.yaml"
    field = 'parameters["out_of_memory_when_instances"].string_value'
    space.write_text(
        "schema: 1\nparameters:\n"
        f"  accelerator: {{field: '{field}', ladder: [100, 1], try_alone: true}}\n"
        "  instance_group.count: {field: 'instance_group[*].count', ladder: [1, 2, 3], max_per_cpu: 4}\n"
    )
    told = Told()
    job = _job(model_repository, space=str(space), sampler="random", trials=None, budget="60s")
    (outcome,) = tune(job, out=RunFolder(tmp_path / "run"), progress=told).outcomes
    with_it = [trial for trial in outcome.study.trials if trial.parameters["accelerator"] == 1]
    assert [trial.parameters["instance_group.count"] for trial in with_it] == [1]
    assert with_it[0].launch_s is None
    assert len(outcome.study.trials) == 4
    number = with_it[0].number
    assert any(f"trial {number} did not load with accelerator 1 alone" in event for event in told.events)


def test_the_composed_space_is_stored_and_a_resumed_run_has_the_same(
    model_repository: ModelRepositoryFactory, tmp_path: Path
) -> None:
    model_repository.add("slow")
    out = RunFolder(tmp_path / "run")
    tune(_job(model_repository, trials=1), out=out)
    study = Study.load(out.database, "slow")
    assert '"backend":"auto"' in study.identity.space
    assert study.composed_space is not None
    assert study.composed_space.backend == ""
    before = study.space
    assert "instance_group.count" in {p.name for p in before.parameters}
    (outcome,) = tune(_job(model_repository), out=out, resume=True).outcomes
    assert len(outcome.study.trials) == 2
    assert Study.load(out.database, "slow").space == before
