from __future__ import annotations

from pathlib import Path

import pytest
from support.builders import MLP, SMALL_SPACE, identity, space, trial
from support.known_truth import LOADS, Truth

from tuner.analysis.capacity import capacities
from tuner.core.errors import JobError
from tuner.core.machine import Machine
from tuner.core.record import Interval
from tuner.core.slo import SLO
from tuner.options.tune_job import TuneJob
from tuner.search.scheduling_map import SchedulingMap
from tuner.search.twin_sampler import calibrations
from tuner.space.spec import parse_space
from tuner.study.provenance import provenance
from tuner.study.study import Study

TRUTH = Truth(fixed_ms=5.0, item_ms=0.2, neighbour=0.3)
P99_40 = SLO({"p99": 40.0})


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """For all tests, which only read it."""
    built = space(SMALL_SPACE)
    spec = parse_space(SMALL_SPACE, "test.yaml").model_dump_json(by_alias=True)
    study = Study.create_or_resume(tmp_path_factory.mktemp("capacity") / "study.db", identity(space=spec))
    for number, assignment in enumerate([built.baseline, *calibrations(built)]):
        study.add(TRUTH.trial(built, number, assignment), built)
    return study


def blurred(study: Study, folder: Path) -> Study:
    """The same, had its latencies been known to within a factor of two."""
    same = Study.create_or_resume(folder / "blurred.db", study.identity)
    for before in study.trials:
        curve = [
            point.model_copy(update={"latency_ms": {name: wide(each) for name, each in point.latency_ms.items()}})
            for point in before.curve
        ]
        same.add(before.model_copy(update={"curve": tuple(curve)}), study.space)
    return same


def wide(interval: Interval) -> Interval:
    return Interval(value=interval.value, low=interval.value / 2, high=interval.value * 2)


def test_more_load_takes_more_hosts(study: Study) -> None:
    hosts = [capacities(study, rate, P99_40)[0].hosts for rate in (100.0, 8_000.0, 50_000.0)]
    assert hosts[0] == 1 < hosts[1] < hosts[2]


def test_what_one_host_holds_is_below_what_it_can_do_and_not_far(study: Study) -> None:
    best = {each.trial: each for each in capacities(study, 100.0, P99_40)}
    # 64 inferences in 17.8 ms, and within 40 ms not all of it.
    one = best[1]
    assert 0.4 * 3_595 < one.rate.value < 3_595
    assert one.rate.low < one.rate.value < one.rate.high
    # Without batching, 5.2 ms each.
    assert 100 < best[0].rate.value < 192


def test_the_fewest_hosts_come_first_and_of_these_the_fewest_instances(study: Study) -> None:
    found = capacities(study, 3_000.0, P99_40)
    assert [(each.hosts, each.instances) for each in found] == sorted((each.hosts, each.instances) for each in found)
    assert all(each.most and each.fewest <= each.hosts <= each.most for each in found)
    assert {each.trial for each in found} >= {0, 1, 2, None}


@pytest.mark.parametrize("limit_ms", [12.0, 20.0, 30.0, 60.0])
def test_with_so_many_hosts_the_limit_is_held(study: Study, limit_ms: float) -> None:
    found = capacities(study, 3_000.0, SLO({"p99": limit_ms}))
    assert all(each.latency_ms.value <= limit_ms or each.hosts >= 2 * each.fewest for each in found)
    assert any(each.latency_ms.value <= limit_ms for each in found)


@pytest.mark.slow
def test_what_was_measured_badly_leaves_more_open(study: Study, tmp_path: Path) -> None:
    unsure = blurred(study, tmp_path)
    for limit_ms in (12.0, 40.0):
        slo = SLO({"p99": limit_ms})
        well, badly = ({each.trial: each for each in capacities(s, 3_000.0, slo)}[1] for s in (study, unsure))
        assert badly.rate.low < well.rate.low < well.rate.value < well.rate.high <= badly.rate.high


def test_where_it_may_hold_the_limit_at_no_rate_no_number_of_hosts_is_surely_enough(
    study: Study, tmp_path: Path
) -> None:
    slo = SLO({"p99": 7.0})
    (best,) = (each for each in capacities(blurred(study, tmp_path), 3_000.0, slo) if each.trial == 0)
    assert (best.rate.low, best.most) == (0.0, None)
    assert best.fewest <= best.hosts
    (best,) = (each for each in capacities(study, 3_000.0, slo) if each.trial == 0)
    assert best.most


def test_a_limit_that_no_request_can_hold(study: Study) -> None:
    assert capacities(study, 10.0, SLO({"p99": 1.0})) == ()


@pytest.mark.parametrize("slo", [SLO(), SLO({"p50": 10.0, "p99": 40.0})])
def test_one_limit_is_asked_for(study: Study, slo: SLO) -> None:
    with pytest.raises(JobError, match=r"^--slo: must be one limit, such as p99=20ms"):
        capacities(study, 10.0, slo)


def test_a_study_that_tells_too_little(tmp_path: Path) -> None:
    built = space()
    empty = Study.create_or_resume(tmp_path / "empty.db", identity())
    with pytest.raises(JobError, match="has no finished trial"):
        capacities(empty, 10.0, P99_40)
    sequences = MLP + "sequence_batching {}"
    other = Study.create_or_resume(tmp_path / "other.db", identity(config=sequences))
    other.add(trial(0, TRUTH.trial(built, 0, built.baseline).curve[0], config=sequences), built)
    with pytest.raises(JobError, match="cannot simulate this model's scheduler: it batches sequences"):
        capacities(other, 10.0, P99_40)


WIDE = SMALL_SPACE.replace("[1, 2]", "[1, 2, 4, 8, 16]")


def measured_on(machine: Machine, truth: Truth, database: Path) -> Study:
    """The baseline and the calibrations of a model, measured on a machine."""
    built = space(WIDE, cpus=machine.cpus)
    study = Study.create_or_resume(database, identity(space=parse_space(WIDE, "t.yaml").model_dump_json(by_alias=True)))
    study.begin(provenance(TuneJob.make({"repository": "/models"}), machine))
    for number, assignment in enumerate([built.baseline, *calibrations(built)]):
        study.add(truth.trial(built, number, assignment), built)
    return study


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1.0, 1.8], ids=["two instances fill the cores", "one fills the cores"])
def test_a_host_has_no_more_cores_than_the_one_that_was_measured(threads: float, tmp_path: Path) -> None:
    truth = Truth(5.0, 0.2, cores=2, threads=threads)
    study = measured_on(Machine(cpus=2, gpus=(), processor="x86_64"), truth, tmp_path / "study.db")
    most = truth.most_per_s(64)
    wanted = 3.4 * most
    found = capacities(study, wanted, SLO({"p99": 100.0}))
    assert found[0].hosts in {4, 5}
    assert {each.instances for each in found} >= {4, 16}
    for each in found:
        assert each.rate.value <= 1.05 * most
        assert each.rate.high <= 1.25 * most
        assert each.hosts >= 4


@pytest.mark.slow
def test_instances_that_were_not_launched_may_hold_far_less(tmp_path: Path) -> None:
    truth = Truth(5.0, 0.2, cores=2, threads=1.8)
    study = measured_on(Machine(cpus=2, gpus=(), processor="x86_64"), truth, tmp_path / "study.db")
    slo = SLO({"p99": 200.0})
    beyond = [each for each in capacities(study, 3_000.0, slo) if "instances (at most" in each.beyond]
    assert beyond
    for each in beyond:
        scheduling, _ = SchedulingMap(study.space).of(each.parameters)
        reached = max(p.throughput.value for load in LOADS if (p := truth.point(scheduling, load)).holds(slo))
        # At random arrivals a server holds some less than in a closed loop.
        assert each.rate.low <= reached <= 1.25 * each.rate.high


def test_of_a_large_space_only_launched_values_of_what_is_not_simulated_are_estimated(tmp_path: Path) -> None:
    text = SMALL_SPACE + "".join(
        f"  unknown{number}: {{field: 'parameters[\"u{number}\"].string_value', ladder: [off, 1, 2, 3, 4, 5, 6, 7]}}\n"
        for number in range(4)
    )
    built = space(text)
    assert built.size() > 10_000
    spec = parse_space(text, "test.yaml").model_dump_json(by_alias=True)
    study = Study.create_or_resume(tmp_path / "study.db", identity(space=spec))
    changed = built.normalize({**next(iter(calibrations(built))), "unknown1": 3})
    for number, assignment in enumerate([built.baseline, *calibrations(built), changed]):
        study.add(TRUTH.trial(built, number, assignment), built)
    found = capacities(study, 100.0, P99_40)
    assert {each.parameters.get("unknown1") for each in found} <= {"off", 3}
    assert {each.parameters.get("unknown0") for each in found} == {"off"}
    assert any(each.trial is None for each in found)
