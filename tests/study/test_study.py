from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from support.builders import MLP, identity, ladders, point, space, trial

from tuner.core.errors import Cause, JobError
from tuner.core.loads import Concurrency, RequestRate
from tuner.core.machine import Machine
from tuner.core.objectives import THROUGHPUT
from tuner.core.slo import Limit
from tuner.options.tune_job import TuneJob
from tuner.recommend.certified import CertifiedRate
from tuner.recommend.host_effects import NO_HOSTS, BaselineLaunch, HostRecord
from tuner.recommend.verification import Verification
from tuner.space.candidate import Assignment
from tuner.stats.slo_verdict import SLOTest
from tuner.study.provenance import provenance
from tuner.study.study import Identity, Study


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "study.db"


@pytest.fixture
def storage(database: Path) -> Iterator[optuna.storages.RDBStorage]:
    """As others open the database."""
    opened = optuna.storages.RDBStorage(f"sqlite:///{database}")
    yield opened
    opened.engine.dispose()


def test_what_is_stored_comes_back(database: Path) -> None:
    built = space()
    study = Study.create_or_resume(database, identity())
    results = [
        trial(0, point(1, 100, 10), parameters=built.baseline),
        trial(1, point(1, 200, 20), parameters=built.normalize({"dynamic_batching.preferred_batch_size": 8})),
        trial(2, failure=Cause.OUT_OF_MEMORY, parameters=built.normalize({"instance_group.count": 4})),
    ]
    for result in results:
        study.add(result, built)
    for again in (Study.create_or_resume(database, identity()), Study.load(database, "mlp")):
        assert list(again.trials) == results
        assert again.hypervolumes == pytest.approx((1500.0, 1500 + 5 * 100, 2000.0))
        assert again.spent_s == pytest.approx(18.0)
        assert again.identity == identity()


def test_what_is_verified_anew_takes_the_place_of_what_was(database: Path) -> None:
    built = space()
    study = Study.create_or_resume(database, identity())
    study.add(trial(0, point(1, 100, 10), parameters=built.baseline), built)
    first = Verification(trial=0, load=Concurrency(1), rounds=(point(1, 90, 10),), numbers=(1,))
    other = Verification(trial=0, load=Concurrency(2), failure="crashed: it is gone")
    more = first.model_copy(update={"rounds": (*first.rounds, point(1, 95, 10)), "numbers": (1, 2)})
    study.add_verified([first, other])
    study.add_verified([more])
    assert Study.load(database, "mlp").verified == (more, other)
    assert study.launches == 1 + 2 + 1


def test_hosts_are_stored_and_a_study_of_an_earlier_version_has_none(database: Path) -> None:
    study = Study.create_or_resume(database, identity())
    assert list(study.hosts) == []
    launch = BaselineLaunch(curve=(point(1, 100, 10),), at=1.5e9)
    study.add_host_record(HostRecord(name="a", facts={"gpus": ["H200"], "driver": "580.1"}))
    study.add_host_record(HostRecord(name="b", host_class="b", launches=(launch,)))
    study.add_host_record(HostRecord(name="a", facts={"gpus": ["H200"]}, drained="its baseline became slower"))
    stored = Study.load(database, "mlp").hosts
    assert stored == study.hosts
    assert [(host.name, host.host_class, host.drained) for host in stored] == [
        ("a", "", "its baseline became slower"),
        ("b", "b", None),
    ]
    assert stored[0].facts == {"gpus": ["H200"]}
    assert stored[1].launches == (launch,)


def test_the_effects_of_hosts_follow_from_the_launches_of_the_baseline(database: Path) -> None:
    built = space()
    study = Study.create_or_resume(database, identity())
    study.add(trial(0, point(1, 100, 10), parameters=built.baseline).model_copy(update={"host": "a"}), built)
    assert study.host_effects is NO_HOSTS
    launch = BaselineLaunch(curve=(point(1, 120, 10 / 1.2),), at=1.5e9)
    study.add_host_record(HostRecord(name="a"))
    study.add_host_record(HostRecord(name="b", launches=(launch,)))
    effects = study.host_effects
    assert effects.throughput("a").mean < 0 < effects.throughput("b").mean < math.log(1.2)
    assert effects.latency("b").mean < 0 < effects.latency("a").mean


def test_a_certified_rate_is_that_of_what_is_best(database: Path) -> None:
    built = space()
    study = Study.create_or_resume(database, identity())
    study.add(trial(0, point(1, 100, 10), parameters=built.baseline), built)
    assert study.certified is None
    rate = CertifiedRate(trial=0, load=Concurrency(1), point=point(RequestRate(80), 80, 12, kept_up=True))
    study.certify(rate)
    assert Study.load(database, "mlp").certified == rate
    assert study.launches == 2
    study.certify(CertifiedRate(trial=0, load=Concurrency(1), reason="no time left", launched=False))
    assert study.launches == 1
    study.add(trial(1, point(1, 300, 10), parameters=built.normalize({"instance_group.count": 2})), built)
    assert study.certified is None


def test_several_models_share_the_database(database: Path) -> None:
    for name in ("mlp", "bert"):
        Study.create_or_resume(database, identity(model=name))
    assert Study.models(database) == ("bert", "mlp")


def test_optuna_opens_it(database: Path, storage: optuna.storages.RDBStorage) -> None:
    built = space()
    Study.create_or_resume(database, identity()).add(trial(0, point(), parameters=built.baseline), built)
    (told,) = optuna.load_study(storage=storage, study_name="mlp").get_trials()
    assert told.user_attrs["candidate"] == "instance_group.count 1"
    assert told.user_attrs["hypervolume"] > 0


def test_a_candidates_config_that_a_killed_run_left_on_a_server_is_told_of(database: Path) -> None:
    served = identity(repository="grpc://triton:8001")
    Study.create_or_resume(database, served)
    with pytest.raises(JobError, match="a killed run may have left a candidate's there: unload the model"):
        Study.create_or_resume(database, served.model_copy(update={"config": MLP + "# changed"}))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"slo": {"p99": 30}}, r"its slo has changed \(it was p99 <= 25 ms, now p99 <= 30 ms\)"),
        ({"files": "xyz"}, "its files has changed"),
        ({"config": MLP + "# changed"}, "its config has changed; choose another --out"),
        ({"seed": 1}, r"its seed has changed \(it was 0, now 1\)"),
        ({"output_tolerance": 0.01}, r"its output_tolerance has changed \(it was 0.001, now 0.01\)"),
        ({"max_gpu_memory": 2**30}, r"its max_gpu_memory has changed \(it was None, now 1073741824\)"),
    ],
)
def test_another_job_is_not_mixed_in(database: Path, changes: dict[str, object], complaint: str) -> None:
    Study.create_or_resume(database, identity())
    with pytest.raises(JobError, match=complaint) as caught:
        Study.create_or_resume(database, identity(**changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kept", [3_000, 0])
def test_a_broken_database_is_told_in_one_line_to_who_resumes_it(database: Path, kept: int) -> None:
    Study.create_or_resume(database, identity())
    database.write_bytes(database.read_bytes()[:kept] + b"no more" * 200)
    with pytest.raises(JobError, match="cannot be read as the study of a run: (database disk image|file is not)"):
        Study.create_or_resume(database, identity())


def test_what_another_version_stored_is_told_in_one_line(database: Path, storage: optuna.storages.RDBStorage) -> None:
    Study.create_or_resume(database, identity())
    stored = optuna.load_study(storage=storage, study_name="mlp")
    stored.set_user_attr("identity", '{"model": "mlp"}')
    for read in (Study.load, lambda path, _: Study.create_or_resume(path, identity())):
        with pytest.raises(
            JobError, match="study of 'mlp' was stored by another version of tritontune; choose"
        ) as caught:
            read(database, "mlp")
        assert "\n" not in str(caught.value)


def test_what_was_stored_before_there_were_figures_of_the_machine_is_read(
    database: Path, storage: optuna.storages.RDBStorage
) -> None:
    built = space()
    study = Study.create_or_resume(database, identity())
    study.add(trial(0, point(), parameters=built.baseline), built)
    stored = optuna.load_study(storage=storage, study_name="mlp")
    told = json.loads(stored.get_trials()[0].user_attrs["result"])
    del told["gpu_memory"], told["curve"][0]["gpu"], told["curve"][0]["server_resources"]
    about = json.loads(stored.user_attrs["identity"])
    del about["max_gpu_memory"]
    old = optuna.create_study(storage=storage, study_name="old", directions=["maximize", "minimize"])
    old.set_user_attr("identity", json.dumps(about))
    attributes = {**stored.get_trials()[0].user_attrs, "result": json.dumps(told)}
    old.add_trial(optuna.trial.create_trial(values=[1, 1], user_attrs=attributes))
    assert Study.load(database, "old").trials == study.trials
    assert Study.load(database, "old").identity == study.identity


def test_it_knows_its_space_but_for_the_ladders_that_the_machine_bounds(database: Path) -> None:
    built = space(cpus=1)
    study = Study.create_or_resume(database, identity())
    study.add(trial(0, point(), parameters=built.baseline), built)
    assert {p.name: p.base for p in study.space.parameters} == {p.name: p.base for p in built.parameters}
    changed: Assignment = {"dynamic_batching": "on", "max_batch_size": 64, "instance_group.count": 2}
    assert study.space.normalize(changed) == built.normalize(changed)
    assert ladders(built)["instance_group.count"] == (1, 2)
    # An older version noted no machine.
    assert ladders(study.space)["instance_group.count"][-1] == 16
    study.begin(provenance(TuneJob.make({"repository": "/models"}), Machine(cpus=1, gpus=(), processor="x86_64")))
    assert ladders(study.space) == ladders(built)
    assert study.space.machine.cpus == 1


def test_the_space_of_a_model_without_a_config_is_that_of_what_the_server_made_of_it(database: Path) -> None:
    study = Study.create_or_resume(database, identity(config=""))
    study.add(trial(0, point(), parameters=space().baseline, config=MLP), space())
    assert study.space.base.text == MLP


def test_how_it_was_measured_and_why_it_ended(database: Path) -> None:
    study = Study.create_or_resume(database, identity())
    assert (study.runs, study.ended) == ((), None)
    first = provenance(TuneJob.make({"repository": "/models"}), Machine(cpus=2, gpus=(), processor="x86_64"))
    study.begin(first)
    study.end("interrupted")
    assert Study.load(database, "mlp").ended == "interrupted"
    second = first.model_copy(update={"command": "tritontune run /models --resume"})
    Study.create_or_resume(database, identity()).begin(second)
    again = Study.load(database, "mlp")
    assert (again.runs, again.ended) == ((first, second), None)


def test_a_study_that_is_just_being_begun_is_none_yet(database: Path, storage: optuna.storages.RDBStorage) -> None:
    optuna.create_study(storage=storage, study_name="begun")
    Study.create_or_resume(database, identity())
    assert Study.models(database) == ("mlp",)


def test_a_study_of_an_earlier_version_maximizes_throughput() -> None:
    stored = identity().model_dump(mode="json", exclude={"objective"})
    assert Identity.model_validate(stored).objective == THROUGHPUT
    assert stored["slo"] == {"p99": 25.0}
    test = {"percentile": "p99", "limit_ms": 25.0, "requests": 10, "over": 0, "design_effect": 1.0}
    assert SLOTest.model_validate(test).limit == Limit("latency", "p99", 25.0)


def test_another_objective_is_another_study(database: Path) -> None:
    Study.create_or_resume(database, identity())
    with pytest.raises(JobError, match="its objective has changed"):
        Study.create_or_resume(database, identity(objective={"metric": "throughput_per_gpu"}))
