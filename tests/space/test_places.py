"""Parameters that are not fields of the tuned model's config.pbtxt."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.builders import MLP

from tuner.config.config import ModelConfig
from tuner.config.patch import Patch
from tuner.config.repository import ModelRepository
from tuner.core.errors import SpaceError
from tuner.core.machine import Machine
from tuner.options.tune_job import TuneJob
from tuner.space.bounds import check_places
from tuner.space.candidate import Assignment
from tuner.space.originals import check_reachable, originals_of
from tuner.space.place import AS_IS
from tuner.space.space import SearchSpace
from tuner.space.spec import OFF, ON, SpaceSpec, parse_space

SPACE = """\
schema: 1
parameters:
  dynamic_batching: {ladder: [off, on]}
  encoder.count: {model: encoder, field: "instance_group[*].count", ladder: [1, 2]}
  encoder.batching: {model: encoder, field: dynamic_batching, ladder: [off, on]}
  encoder.delay: {model: encoder, field: dynamic_batching.max_queue_delay_microseconds, ladder: [off, 100]}
  seqs: {file: 1/model.json, field: max_num_seqs, ladder: [off, 64, 256]}
  mode: {file: 1/more.yaml, field: "engine.modes", ladder: [[1, 2], [3]]}
  threads: {server_arg: --grpc-infer-thread-count, ladder: [off, 2, 8]}
  pool: {server_arg: "--backend-config=python,thread-pool-size", ladder: [off, 16]}
  verbose: {server_arg: --log-verbose-off, ladder: [off, on]}
  omp: {env: OMP_NUM_THREADS, ladder: [off, 1, 2]}
"""
JSON = '{"max_num_seqs": 128, "dtype": "auto"}\n'
YAML = "engine:\n  modes: [1, 2]  # both\n"
ENCODER = "max_batch_size: 4 # small\n"


@pytest.fixture
def repository(tmp_path: Path) -> ModelRepository:
    for name, text in {
        "mlp/config.pbtxt": MLP,
        "mlp/1/model.json": JSON,
        "mlp/1/more.yaml": YAML,
        "encoder/config.pbtxt": ENCODER,
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return ModelRepository.open(tmp_path)


def job(repository: ModelRepository, **options: object) -> TuneJob:
    return TuneJob.make({"repository": str(repository.path), **options}, source="job")


def built(repository: ModelRepository, spec: SpaceSpec, **options: object) -> SearchSpace:
    model = repository.model("mlp")
    originals = originals_of(spec, model, job(repository, **options))
    own = model.config
    assert own is not None
    machine = Machine(2, (), "x86_64")
    return SearchSpace.build(spec, own, own, machine, model="mlp", originals=originals)


def test_the_baseline_has_the_users_own_values(repository: ModelRepository) -> None:
    spec = parse_space(SPACE, "s.yaml")
    space = built(repository, spec, triton_arg=["--grpc-infer-thread-count=4"], env={"OMP_NUM_THREADS": "3"})
    assert {p.name: p.base for p in space.parameters} == {
        "dynamic_batching": OFF,
        "encoder.count": OFF,
        "encoder.batching": OFF,
        "encoder.delay": OFF,
        "seqs": 128,
        "mode": (1, 2),
        "threads": 4,
        "pool": OFF,
        "verbose": OFF,
        "omp": 3,
    }
    own = space.candidate(space.baseline)
    assert own.config.text == MLP
    assert own.others == originals_of(
        spec,
        repository.model("mlp"),
        job(repository, triton_arg=["--grpc-infer-thread-count=4"], env={"OMP_NUM_THREADS": "3"}),
    )


def test_a_candidate_changes_only_what_its_parameters_name(repository: ModelRepository) -> None:
    space = built(repository, parse_space(SPACE, "s.yaml"))
    wanted: Assignment = {
        "encoder.count": 2,
        "seqs": 64,
        "mode": (3,),
        "threads": 8,
        "pool": 16,
        "verbose": ON,
        "omp": 1,
    }
    patch = space.candidate(space.normalize(wanted)).patch
    assert patch == Patch(
        config=MLP,
        files={
            "encoder/config.pbtxt": ENCODER + "instance_group {\n  count: 2\n}\n",
            "mlp/1/model.json": JSON.replace("128", "64"),
            "mlp/1/more.yaml": YAML.replace("[1, 2]", "[3]"),
        },
        server_args={
            "--grpc-infer-thread-count": "8",
            "--backend-config=python,thread-pool-size": "16",
            "--log-verbose-off": "",
        },
        env={"OMP_NUM_THREADS": "1"},
    )


def test_a_field_below_a_message_that_is_off_has_no_effect_in_another_model_either(
    repository: ModelRepository,
) -> None:
    space = built(repository, parse_space(SPACE, "s.yaml"))
    assert space.normalize({"encoder.delay": 100}) == space.baseline
    both = space.normalize({"encoder.batching": ON, "encoder.delay": 100})
    assert "max_queue_delay_microseconds: 100" in space.candidate(both).patch.files["encoder/config.pbtxt"]


def test_candidates_that_differ_elsewhere_are_not_the_same(repository: ModelRepository) -> None:
    space = built(repository, parse_space(SPACE, "s.yaml"))
    assignments = [space.baseline, *(space.normalize(one) for one in ({"omp": 1}, {"threads": 2}, {"seqs": 64}))]
    assert len({space.candidate(assignment).fingerprint for assignment in assignments}) == 4


def test_off_removes_a_key(repository: ModelRepository) -> None:
    space = built(repository, parse_space(SPACE, "s.yaml"))
    patch = space.candidate(space.normalize({"seqs": OFF})).patch
    assert patch.files["mlp/1/model.json"] == '{"dtype": "auto"}\n'


def test_instances_of_several_groups_of_another_model_stay(repository: ModelRepository) -> None:
    groups = "instance_group [ { count: 1 }, { count: 3 } ]\n"
    (repository.path / "encoder/config.pbtxt").write_text(groups)
    space = built(repository, parse_space(SPACE, "s.yaml"))
    assert next(p for p in space.parameters if p.name == "encoder.count").base == AS_IS
    assert space.candidate(space.baseline).patch.files["encoder/config.pbtxt"] == groups


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ("{server_arg: --x, env: Y, ladder: [1]}", "has both server_arg and env; a parameter sets one thing"),
        ("{env: Y, model: m, ladder: [1]}", "has both env and model; a parameter sets one thing"),
        ("{model: ../m, field: max_batch_size, ladder: [1]}", "model: '../m' contains a slash"),
        ("{file: 1/model.txt, ladder: [1]}", "file: '1/model.txt' is not a JSON or YAML file"),
        ("{file: ../model.json, ladder: [1]}", "file: '../model.json' must be a path in the model's folder"),
        ("{file: /etc/model.json, ladder: [1]}", "file: '/etc/model.json' must be a path in the model's folder"),
        ("{server_arg: http-thread-count, ladder: [1]}", "server_arg: 'http-thread-count' is not an argument"),
        ("{server_arg: --grpc-port, ladder: [1]}", "server_arg: --grpc-port cannot be set: tritontune chooses"),
        ("{server_arg: --log-info, ladder: [true, false]}", "server_arg: --log-info must stay true, got 'False'"),
        ("{env: 1X, ladder: [1]}", "env: '1X' is not a variable name"),
        ("{env: TMPDIR, ladder: [x]}", "env: TMPDIR cannot be set: each server gets its own folder"),
    ],
)
def test_places_that_are_wrong(parameter: str, message: str) -> None:
    with pytest.raises(SpaceError) as raised:
        parse_space(f"schema: 1\nparameters: {{p: {parameter}}}", "s.yaml")
    assert str(raised.value).startswith(f"s.yaml: parameters: p: {message}")


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ("{model: encodr, field: max_batch_size, ladder: [1]}", "no model 'encodr' in the repository; did you"),
        ("{file: 1/modl.json, ladder: [1]}", "model 'mlp' has no file '1/modl.json'; did you mean '1/model.json'?"),
        ("{file: 1/model.json, field: a.b, ladder: [1]}", "1/model.json: a.b: no 'a' (available: dtype,"),
        ("{file: 1/more.yaml, field: engine, ladder: [1]}", "mlp/1/more.yaml: engine is neither a value nor a list"),
        ("{file: 1/model.json, field: dtype, ladder: [on]}", "mlp/1/model.json: dtype: on is only for messages"),
        ("{model: encoder, field: max_bach_size, ladder: [1]}", "ModelConfig has no field 'max_bach_size'"),
        ("{model: encoder, field: max_batch_size, ladder: [x]}", "max_batch_size: "),
    ],
)  # fmt: skip
def test_places_that_do_not_exist_are_found_before_any_launch(
    repository: ModelRepository, parameter: str, message: str
) -> None:
    spec = parse_space(f"schema: 1\nparameters: {{p: {parameter}}}", "s.yaml")
    with pytest.raises(SpaceError) as raised:
        check_places(spec, originals_of(spec, repository.model("mlp"), job(repository)), "mlp", "s.yaml")
    told = str(raised.value)
    assert "\n" not in told
    assert message in told
    assert ": p: " in told


@pytest.mark.parametrize(
    ("parameter", "what"),
    [
        ("{server_arg: --http-thread-count, ladder: [1]}", "arguments"),
        ("{env: OMP_NUM_THREADS, ladder: [1]}", "environment"),
        ("{file: 1/model.json, ladder: [1]}", "files"),
    ],
)
def test_what_a_running_server_cannot_change_is_refused(parameter: str, what: str) -> None:
    spec = parse_space(f"schema: 1\nparameters: {{p: {parameter}}}", "s.yaml")
    remote = TuneJob.make({"url": "localhost:8001"}, source="job")
    with pytest.raises(SpaceError, match=rf"^--space: p: the {what} of the Triton at --url cannot be changed"):
        check_reachable(spec, remote)
    check_reachable(parse_space("schema: 1\nparameters: {p: {model: m, field: x, ladder: [1]}}", "s"), remote)


def test_a_json_file_of_no_text_is_an_error(repository: ModelRepository) -> None:
    (repository.path / "mlp/1/model.json").write_bytes(b"\xff")
    with pytest.raises(SpaceError, match=r"mlp/1/model\.json: cannot be read: it is not UTF-8 text$"):
        originals_of(parse_space(SPACE, "s.yaml"), repository.model("mlp"), job(repository))


def test_a_model_without_a_config_gets_one(repository: ModelRepository) -> None:
    (repository.path / "encoder/config.pbtxt").unlink()
    (repository.path / "encoder/1").mkdir()
    space = built(repository, parse_space(SPACE, "s.yaml"))
    patch = space.candidate(space.normalize({"encoder.count": 2})).patch
    assert ModelConfig.parse(patch.files["encoder/config.pbtxt"], "x").proto.instance_group[0].count == 2
