"""`tritontune run` from end to end, on Triton in containers."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from subprocess import Popen

import docker
import pytest
from support.command_line import await_that, start_tritontune, tritontune
from support.docker_image import IMAGE, containers_of, volumes_of
from support.engine_cable import Cable
from support.registry import registry

from tuner.core.mark import Mark
from tuner.study.study import Study
from tuner.testing.repositories import ModelRepositoryFactory, config_text

# Each awaits what it waits for, however busy the machine is.
pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

EXAMPLE = Path(__file__).parents[2] / "examples" / "model_repository"
IN_DOCKER = ("--server", "docker", "--image", IMAGE, "--gpus", "none")


def _space(folder: Path, *counts: int) -> Path:
    space = folder / "space.yaml"
    ladder = ", ".join(map(str, counts))
    space.write_text(
        f'schema: 1\nparameters:\n  instance_group.count: {{field: "instance_group[*].count", ladder: [{ladder}]}}\n'
    )
    return space


def _command(out: Path, model: str, number: int) -> Path:
    return out / model / "trials" / f"{number:03d}" / "command.txt"


def _left(run: Popen[str], engine: docker.DockerClient) -> set[str]:
    """The containers and volumes of a run."""
    return containers_of(run.pid, engine) | volumes_of(run.pid, engine)


@pytest.mark.faults
def test_tunes_the_example_after_a_run_that_was_killed_and_leaves_nothing(
    engine: docker.DockerClient, tmp_path: Path
) -> None:
    killed = start_tritontune("run", EXAMPLE, *IN_DOCKER, "--out", tmp_path / "killed")
    await_that(lambda: _command(tmp_path / "killed", "mlp", 0).exists() or killed.poll() is not None)
    killed.kill()
    killed.communicate()
    assert len(containers_of(killed.pid, engine)) == 1

    out = tmp_path / "run"
    limits = ("--trials", 1, "--max-concurrency", 2, "--no-verify")
    run = start_tritontune("run", EXAMPLE, *IN_DOCKER, *limits, "--out", out)
    _, stderr = run.communicate()
    assert run.returncode == 0, stderr
    assert re.search(r"removed leftovers of killed runs: \d+ servers? \(tritontune-", stderr)
    assert _left(killed, engine) == _left(run, engine) == set()
    assert json.loads((out / "mlp/front.json").read_text())["best"]
    assert _command(out, "mlp", 0).read_text().splitlines()[1].startswith("docker run --rm --name=tritontune-")
    server = Study.load(out / "study.db", "mlp").identity.server
    assert server == f"Triton 2.51.0, image {IMAGE} ({engine.images.get(IMAGE).id}) in Docker, GPUs none"


def test_doctor_removes_what_a_killed_run_left_and_says_so(engine: docker.DockerClient) -> None:
    gone = str(replace(Mark.new(), pid=999_999_999))
    engine.containers.create(IMAGE, "true", name=gone, labels={"tritontune.mark": gone})
    done = tritontune("doctor")
    (line,) = [line for line in done.stdout.splitlines() if "leftovers" in line]
    assert re.fullmatch(
        r"ok +leftovers +removed what killed runs left: (\d+ servers? \(.*\); )?\d+ containers? \(.*\)", line
    )
    assert containers_of(999_999_999, engine) == set()


@pytest.mark.faults
def test_servers_that_are_killed_or_out_of_memory_midway_are_trials_that_failed(
    model_repository: ModelRepositoryFactory, engine: docker.DockerClient, tmp_path: Path
) -> None:
    model_repository.add("hoards", config=config_text(hoard_when_instances=4))
    out = tmp_path / "run"
    memory = ("--memory", "640MiB", "--space", _space(tmp_path, 1, 2, 4))
    limits = ("--slo", "p99=1ms", "--max-concurrency", 1)  # which nothing holds, so nothing is verified
    expected: dict[int, str] = {}
    run = start_tritontune("run", model_repository.path, *IN_DOCKER, *memory, *limits, "--out", out)
    for number in (1, 2):
        command = _command(out, "hoards", number)
        await_that(lambda file=command: file.exists() or run.poll() is not None)  # type: ignore[misc]
        assert run.poll() is None, run.communicate()
        if "count: 4" in command.with_name("config.pbtxt").read_text():
            expected[number] = "out_of_memory"
            continue
        expected[number] = "crashed"
        (name,) = re.findall(r"--name=(\S+)", command.read_text())
        engine.containers.get(name).kill()
    _, stderr = run.communicate()
    assert run.returncode == 3, stderr
    assert "every candidate has been measured" in stderr
    assert _left(run, engine) == set()

    trials = Study.load(out / "study.db", "hoards").trials
    failures = {trial.number: trial.failure for trial in trials if trial.failure}
    assert {number: failure.cause.value for number, failure in failures.items()} == expected
    assert all(failure.last_words for failure in failures.values())
    messages = {failure.cause.value: failure.message for failure in failures.values()}
    # The processes of a container that is killed end in any order; Triton may report the end of another one first.
    assert messages["crashed"] in {"Triton was ended by SIGKILL", "an instance of model 'hoards' has ended"}
    assert messages["out_of_memory"].endswith("was ended by SIGKILL (out of memory)")
    rows = csv.DictReader((out / "hoards/trials.csv").read_text().splitlines())
    assert {row["failure"] for row in rows if row["failure"]} == messages.keys()


@pytest.mark.faults
def test_an_engine_that_goes_away_ends_the_run_which_goes_on_when_it_is_back(
    slow_model: Path, engine: docker.DockerClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, socket = tmp_path / "run", tmp_path / "docker.sock"
    job = (slow_model, *IN_DOCKER, "--space", _space(tmp_path, 1, 2, 3), "--out", out)
    options = ("--max-concurrency", 1, "--slo", "p99=1ms")  # which nothing holds, so nothing is verified
    monkeypatch.setenv("DOCKER_HOST", f"unix://{socket}")
    with Cable.at_file(socket):
        run = start_tritontune("run", *job, *options)
        await_that(lambda: _command(out, "slow", 1).exists() or run.poll() is not None)
        assert run.poll() is None, run.communicate()
    _, stderr = run.communicate()
    assert run.returncode == 1
    last = stderr.splitlines()[-1]
    assert re.match("tritontune: (no Docker engine|the Docker engine does not answer)", last)
    assert last.endswith(f"; once that is fixed, resume with: tritontune run --resume --out {out}")
    assert "Traceback" not in stderr
    finished = Study.load(out / "study.db", "slow").trials
    assert [trial.number for trial in finished] == [0]

    socket.unlink()
    with Cable.at_file(socket):
        resumed = tritontune("run", *job, *options, "--resume")
    assert resumed.returncode == 3, resumed.stderr
    trials = Study.load(out / "study.db", "slow").trials
    assert trials[:1] == finished
    assert [trial.number for trial in trials] == [0, 1, 2]
    assert _left(run, engine) == set()


def test_pulls_what_is_missing_and_says_when_that_is_no_triton(
    slow_model: Path, engine: docker.DockerClient, tmp_path: Path
) -> None:
    with registry(1 << 20) as serving:
        image = serving.image()
        try:
            done = tritontune("run", slow_model, "--server", "docker", "--image", image, "--out", tmp_path / "run")
        finally:
            engine.images.remove(image, force=True)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"pulling {image}",
        f"tritontune: --image {image} is not a Triton image: it has no tritonserver",
    ]
    assert not (tmp_path / "run").exists()
