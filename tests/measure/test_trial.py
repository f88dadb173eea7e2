from __future__ import annotations

from pathlib import Path

import pytest
from support.builders import point
from support.executors import run_trial
from support.tritons import on_fake_server, on_real_server

from tuner.config.config import ModelConfig
from tuner.config.repository import ModelRepository
from tuner.config.staging import stage
from tuner.core import deadlines
from tuner.core.errors import Cause, InputError, TuningError
from tuner.core.loads import Concurrency, Load
from tuner.core.slo import SLO
from tuner.measure.plan import points_of
from tuner.measure.points import OperatingPoint
from tuner.measure.quality_warnings import QualityCheck
from tuner.measure.rules import LevelRules
from tuner.measure.trial import TrialResult
from tuner.measure.work import Limits, TrialContext, TrialTerms, _one_more
from tuner.options.groups import LoadOptions
from tuner.servers.callees import Callees
from tuner.servers.installation import TritonInstallation
from tuner.servers.process import ProcessLauncher
from tuner.space.candidate import Candidate
from tuner.testing.repositories import ModelRepositoryFactory, config_text

_ENSEMBLE = """
platform: "ensemble"
max_batch_size: 8
input [ { name: "IN" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [ { name: "OUT" data_type: TYPE_FP32 dims: [ 4 ] } ]
ensemble_scheduling {
  step [
    {
      model_name: "part"
      model_version: -1
      input_map { key: "IN" value: "IN" }
      output_map { key: "OUT" value: "OUT" }
    }
  ]
}
"""


class Heard:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.levels: list[Load] = []
        self.points: list[OperatingPoint] = []

    def level_began(self, load: Load) -> None:
        self.levels.append(load)

    def point_measured(self, point: OperatingPoint) -> None:
        self.points.append(point)


class Trials:
    """Runs trials of the one model of a repository."""

    def __init__(self, launcher: ProcessLauncher, repository: ModelRepositoryFactory, folder: Path) -> None:
        self._launcher = launcher
        self._repository = repository
        self._folder = folder
        self.heard = Heard()

    def add(self, source: str, *, name: str) -> None:
        """One more model, which only the others may use."""
        self._repository.add(source, name=name)

    def run(self, source: str, config: str, *, until_s: float = 60, number: int = 3, **changes: object) -> TrialResult:
        name = self._repository.add(source, config=config)
        terms = {"options": LoadOptions(), "rules": LevelRules(max_s=0.5), "max_concurrency": 4, **changes}
        callees = terms.pop("callees", Callees(""))
        context = TrialContext(
            TrialTerms(model=name, **terms),  # type: ignore[arg-type]  # the parts have the types that their names say
            self._launcher,
            stage(ModelRepository.open(self._repository.path), self._folder / "staged"),
            callees=callees,  # type: ignore[arg-type]  # the same
        )
        return run_trial(
            context,
            Candidate({"instance_group.count": 1}, ModelConfig.parse(config, "candidate")),
            number,
            self._folder / "trial",
            limits=Limits(launch_s=30.0, first_answer_s=5.0, total_s=until_s),
            progress=self.heard,
        )


@pytest.fixture
def trials(installation: TritonInstallation, model_repository: ModelRepositoryFactory, tmp_path: Path) -> Trials:
    return Trials(ProcessLauncher(installation), model_repository, tmp_path)


ON_BOTH = pytest.mark.parametrize("installation", [on_fake_server(), on_real_server()], indirect=True)


@pytest.mark.slow
@ON_BOTH
def test_one_launch_is_one_curve(trials: Trials, tmp_path: Path) -> None:
    result = trials.run("slow", config_text())
    assert result.number == 3
    assert result.failure is None
    assert [point.load for point in result.curve] == sorted(trials.heard.levels, key=lambda load: load.level)
    assert list(result.curve) == sorted(trials.heard.points, key=lambda point: point.load.level)
    assert result.launch_s is not None
    assert 0 < result.launch_s < result.wall_s
    assert (tmp_path / "trial/config.pbtxt").read_text() == result.config == config_text()


@ON_BOTH
def test_the_effective_config_is_the_servers(trials: Trials) -> None:
    result = trials.run("auto_complete", "max_batch_size: 4\n", max_concurrency=1)
    effective = ModelConfig.parse(result.effective_config or "", "effective").proto
    assert effective.input[0].name == "IN"
    # The model itself raises the limit.
    assert effective.max_batch_size == 8
    assert result.config == "max_batch_size: 4\n"


@pytest.mark.slow
def test_time_that_is_up_ends_the_curve_after_the_level_under_way(trials: Trials) -> None:
    result = trials.run("slow", config_text(), until_s=0.0)
    assert [point.load for point in result.curve] == [Concurrency(1)]
    assert result.failure is None


@pytest.mark.parametrize(
    ("source", "config", "cause"),
    [
        ("refuses", config_text(message="no weights"), Cause.INVALID_CONFIG),
        ("crashes", config_text(), Cause.CRASHED),
        pytest.param("hangs", config_text(), Cause.HUNG, marks=pytest.mark.slow),
        ("fails_requests", config_text(message="never"), Cause.REQUESTS_FAILED),
    ],
)
def test_a_failure_is_a_result(trials: Trials, source: str, config: str, cause: Cause) -> None:
    result = trials.run(source, config)
    assert result.failure is not None
    assert result.failure.cause is cause
    assert "\n" not in result.failure.message
    assert result.curve == ()


@pytest.mark.slow
def test_a_server_that_stops_answering_leaves_the_points_before(
    trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    # How patient to be is another test's; it would be 5 s and more.
    monkeypatch.setattr(deadlines, "_ANSWER_PATIENCE_S", 1.0)
    monkeypatch.setattr(deadlines, "_ANSWER_FACTOR", 10.0)
    config = config_text(hang_when_batch_exceeds=2, more="dynamic_batching {}")
    result = trials.run("hangs", config, max_concurrency=32)
    assert result.failure is not None
    assert result.failure.cause is Cause.HUNG
    assert result.failure.message.startswith("no request was answered for ")
    assert result.failure.message.endswith(f" at {trials.heard.levels[-1]}")
    assert result.curve[0].load == Concurrency(1)
    assert len(result.curve) < len(trials.heard.levels)


@pytest.mark.slow
def test_a_model_that_fails_one_request_in_a_hundred_says_so_at_each_point(trials: Trials) -> None:
    rules = LevelRules(min_s=0.2, max_s=0.3, min_requests=600)
    result = trials.run("fails_requests", config_text(fail_every=100), rules=rules, max_concurrency=2)
    assert result.failure is None
    assert len(result.curve) == 2
    for measured in result.curve:
        assert QualityCheck.FAILURES in {warning.check for warning in measured.warnings}


def test_what_no_request_can_be_made_for_is_no_failure_of_the_config_as_it_is(trials: Trials) -> None:
    with pytest.raises(InputError, match="--shape IN:"):
        trials.run("identity", config_text().replace("dims: [ 4 ]", "dims: [ -1 ]"), number=0)


def test_a_kind_of_model_that_cannot_be_tuned(trials: Trials) -> None:
    trials.add("identity", name="part")
    with pytest.raises(
        TuningError, match="model 'identity': it is an ensemble; tune its composing models instead: part"
    ):
        trials.run("identity", _ENSEMBLE, number=0)


@pytest.mark.parametrize(
    ("load", "measured"),
    [
        (3, [3]),  # between those of the sweep
        (4, []),  # the sweep has it
        (12, []),  # 8 breaks the SLO already
        (1, []),
    ],
)
def test_one_load_more_is_measured_where_it_tells_something(load: int, measured: list[int]) -> None:
    asked: list[int] = []

    def measure(load: Concurrency) -> OperatingPoint:
        asked.append(load.requests)
        return point(load)

    swept = [point(1, 100, 5), point(4, 300, 20), point(8, 310, 40), point(2, 200, 10)]
    more = list(points_of(_one_more(Concurrency(load), swept, SLO.parse(["p99=25ms"])), measure))
    assert [each.load for each in more] == [Concurrency(each) for each in measured]
    assert asked == measured
    assert list(_one_more(None, swept, SLO())) == []
