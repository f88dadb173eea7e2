"""What is asked wrongly gets one line and exit code 2."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.command_line import tritontune

from tuner.testing.repositories import ModelRepositoryFactory, config_text

SYNTAX = 'backend: "python"\nmax_batch_size: : 8\n'
VARIABLE = config_text().replace("dims: [ 4 ]", "dims: [ -1, 4 ]", 1)


def _repository(factory: ModelRepositoryFactory) -> Path:
    factory.add("identity")
    return factory.path


def _empty(factory: ModelRepositoryFactory) -> Path:
    return factory.path


def _file(factory: ModelRepositoryFactory) -> Path:
    file = factory.path / "file"
    file.touch()
    return file


def _missing(factory: ModelRepositoryFactory) -> Path:
    return factory.path / "nowhere"


def _with_syntax_error(factory: ModelRepositoryFactory) -> Path:
    factory.add("identity", config=SYNTAX)
    return factory.path


def _model_itself(factory: ModelRepositoryFactory) -> Path:
    return factory.path / factory.add("identity")


@pytest.mark.parametrize(
    ("make", "options", "complaint"),
    [
        (_missing, [], "nowhere: no such folder"),
        (_file, [], "is a file; a model repository is a folder"),
        (_empty, [], "model_repository"),
        (_model_itself, [], "did you mean"),
        (_with_syntax_error, [], "identity/config.pbtxt:2:17: "),
        (_repository, ["--model", "identitty"], "did you mean 'identity'?"),
        (_repository, ["--budget", "10x"], "--budget: '10x' is not a duration"),
        (_repository, ["--slo", "p99=fast"], "--slo: 'fast' is not a duration"),
        (_repository, ["--slo", "p98=1ms"], "'p98' is not a supported percentile; write p50, p90, p95 or p99"),
        (_repository, ["--trials", "none"], "--trials: "),
        (_repository, ["--space", "defualt"], "did you mean 'default'?"),
        (_repository, ["--server", "dokcer"], "--server: "),
        (_repository, ["--server", "process", "--memory", "1g"], "--memory needs Docker; leave it out, or use"),
        (_repository, ["--gpus", "first"], "--gpus: 'first' is not a GPU; write all, none, or indices and UUIDs"),
        (
            _repository,
            ["--gpus", "0", "--env", "CUDA_VISIBLE_DEVICES=0"],
            "'CUDA_VISIBLE_DEVICES' conflicts with --gpus",
        ),
        (
            _repository,
            ["--docker-arg", "cpuset=0"],
            "--docker-arg: 'cpuset' is not a keyword of docker-py's containers",
        ),
        (_repository, ["--server", "process", "--image", "x"], "--image needs Docker"),
        (_repository, ["--triton-path", "/nowhere"], "/nowhere"),
        (_repository, ["--resume"], "--resume needs --out"),
        (_repository, ["--resume", "--out", "/nowhere"], "/nowhere: no such folder"),
        (_repository, ["--bugdet", "5s"], "--budget"),
        (_repository, ["--job", "/nowhere.yaml"], "/nowhere.yaml: cannot be read"),
        (_repository, ["--shape", "IN"], "--shape: 'IN' is not a shape"),
        (_repository, ["--input-data", __file__], "test_bad_input.py:1:3: invalid JSON"),
        (_repository, ["--image", ""], "--image: must not be empty"),
        (_repository, ["--output-shared-memory-size", "5"], "needs --shared-memory"),
        (_repository, ["--load-model", "identity"], "--load-model identity: this is the model itself"),
    ],
)
def test_run(
    make: Callable[[ModelRepositoryFactory], Path],
    options: list[str],
    complaint: str,
    model_repository: ModelRepositoryFactory,
    tmp_path: Path,
) -> None:
    done = tritontune("run", make(model_repository), *options, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("tritontune: ")
    assert complaint in line
    assert not (tmp_path / "tritontune-runs").exists()


def test_results_do_not_go_into_the_repository(model_repository: ModelRepositoryFactory) -> None:
    done = tritontune("run", ".", cwd=_repository(model_repository))
    assert done.returncode == 2
    assert "lies in the model repository, which is never written to" in done.stderr
    assert {path.name for path in model_repository.path.iterdir()} == {"identity"}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("schema: 1\nparameters: {max_batch_size: {lader: [8]}}", "parameters: max_batch_size: unknown key 'lader'"),
        ("schema: 1\nparameters: [", "space.yaml:2:"),
        (
            "schema: 1\nparameters: {max_batchsize: {ladder: [8]}}",
            "space.yaml: max_batchsize: ModelConfig has no field 'max_batchsize'; did you mean 'max_batch_size'?",
        ),
        (
            "schema: 1\nparameters: {max_batch_size: {ladder: [8, x]}}",
            "space.yaml: max_batch_size: must be a whole number",
        ),
        (
            "schema: 1\nparameters: {n: {field: 'instance_group[0].cont', ladder: [8]}}",
            "space.yaml: n: instance_group[*].cont: ModelInstanceGroup has no field 'cont'",
        ),
        ("schema: 1\nbackend: onnx", "space.yaml: backend: nothing is known of 'onnx'; did you mean 'onnxruntime'?"),
        ("schema: 1\nbackend: fil", "space.yaml: backend: 'fil' is not the model's backend, which is 'python'"),
        ("schema: 1\nbackand: auto", "space.yaml: unknown key 'backand'; did you mean 'backend'?"),
        (
            "schema: 1\nbackend: auto\nlaws: [instance_group.cont <= 2]",
            "laws: 'instance_group.cont <= 2': this space has no parameter 'instance_group.cont'; did you mean",
        ),
        (
            (
                "schema: 1\nparameters: {max_batch_size: {ladder: [2, 4, 8]}}\n"
                "laws: [max_batch_size <= 2, max_batch_size > 4]"
            ),
            "space.yaml: laws: they contradict each other: no candidate but the baseline keeps 'max_batch_size <= 2'",
        ),
    ],
)
def test_a_wrong_space_file(
    text: str, complaint: str, model_repository: ModelRepositoryFactory, tmp_path: Path
) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(text)
    done = tritontune("run", _repository(model_repository), "--space", space, cwd=tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert complaint in done.stderr


@pytest.mark.triton
def test_a_variable_dimension_without_a_shape(model_repository: ModelRepositoryFactory, tmp_path: Path) -> None:
    model_repository.add("identity", config=VARIABLE)
    done = tritontune("run", model_repository.path, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "--shape IN:" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["rnu"], "unknown command 'rnu'; did you mean 'run'?"),
        (["run"], "nothing to tune: give MODEL_REPO, or the --url of a running Triton"),
        (["measure"], "measure needs either MODEL_REPO or the --url"),
        (["measure", "--url", "127.0.0.1:1", "--triton-path", "x"], "--triton-path cannot be used with --url"),
        (["measure", "repo", "--concurrency", "0"], "--concurrency: '0' is not a concurrency"),
        (["export", "nowhere"], "nowhere: no such folder; give the RUN_DIR of a run"),
        (["report", "nowhere"], "nowhere: no such folder"),
        (["report", "."], ".: not a run folder (it has no study.db); give the RUN_DIR of a run"),
        (["history"], "no such file tritontune-nightly/history.db; `tritontune nightly JOBS.yaml` creates it"),
        (["doctor", "--image", ""], "--image: must not be empty"),
        (["export"], "RUN_DIR is missing; see tritontune export --help"),
        (["history", "--nights", "0"], "--nights: 0 is not in the range"),
        (["run", "repo", "--budgt", "1m"], "unknown option '--budgt'; did you mean '--budget'?"),
    ],
)
def test_other_commands(arguments: list[str], complaint: str, tmp_path: Path) -> None:
    done = tritontune(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert complaint in line


def test_a_version_that_the_repository_lacks(model_repository: ModelRepositoryFactory, tmp_path: Path) -> None:
    done = tritontune("measure", _repository(model_repository), "--model-version", "7", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "tritontune: --model-version: model 'identity' has no version 7 (available: 1)\n"
