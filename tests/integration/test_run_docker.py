"""`tritontune run` from end to end, on Triton in containers."""

from __future__ import annotations

import csv
import json
import re
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from subprocess import Popen

import docker
import pytest
from support.command_line import await_that, start_tritontune, tritontune
from support.docker_image import IMAGE, containers_of
from support.own_engine import own_engine
from support.registry import registry
from support.repositories import ModelRepositoryFactory, config_text

from tuner.search.study import Study
from tuner.servers.mark import Mark

pytestmark = pytest.mark.docker

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


@contextmanager
def _started(*arguments: object) -> Iterator[Popen[str]]:
    """A run, which is ended at the end if it has not come to its own."""
    run = start_tritontune("run", *arguments)
    try:
        yield run
    finally:
        if run.poll() is None:
            run.send_signal(signal.SIGINT)
            run.communicate(timeout=120)


def _pause(engine: docker.DockerClient, name: str) -> None:
    """On a busy machine, the kernel does not always freeze all of a container in the time that it is given."""
    for _ in range(9):
        with suppress(docker.errors.APIError):
            engine.containers.get(name).pause()
            return
    engine.containers.get(name).pause()


def _left(run: Popen[str], engine: docker.DockerClient) -> set[str]:
    """The containers and volumes of a run."""
    volumes = {volume.name or "" for volume in engine.volumes.list()}
    return containers_of(run.pid, engine) | {
        name for name in volumes if (mark := Mark.of(name)) and mark.pid == run.pid
    }


def _ended(run: Popen[str], within_s: float = 100) -> str:
    """What a run that was started says, when it has come to its end."""
    _, stderr = run.communicate(timeout=within_s)
    return stderr


def test_tunes_the_example_after_a_run_that_was_killed_and_leaves_nothing(
    engine: docker.DockerClient, tmp_path: Path
) -> None:
    killed = start_tritontune("run", EXAMPLE, *IN_DOCKER, "--out", tmp_path / "killed")
    await_that(lambda: _command(tmp_path / "killed", "mlp", 0).exists() or killed.poll() is not None, within_s=60)
    killed.kill()
    killed.communicate(timeout=120)
    assert len(containers_of(killed.pid, engine)) == 1

    out = tmp_path / "run"
    limits = ("--budget", "5s", "--trials", 2, "--max-concurrency", 2)
    with _started(EXAMPLE, *IN_DOCKER, *limits, "--out", out) as run:
        stderr = _ended(run)
    assert run.returncode == 0, stderr
    assert re.search(r"removed \d+ servers? that a killed run had left behind", stderr)
    assert _left(killed, engine) == _left(run, engine) == set()
    assert json.loads((out / "mlp/front.json").read_text())["best"]
    assert _command(out, "mlp", 0).read_text().startswith("docker run --rm --name=tritontune-")
    server = Study.load(out / "study.db", "mlp").identity.server
    assert server == f"Triton 2.51.0, image {IMAGE} ({engine.images.get(IMAGE).id}) in Docker, GPUs none"


def test_doctor_removes_what_a_killed_run_left_and_says_so(engine: docker.DockerClient) -> None:
    mark = Mark.new()
    gone = str(replace(mark, pid=999_999_999, number=1))
    labels = {"tritontune.mark": gone, "tritontune.host": socket.gethostname()}
    engine.containers.create(IMAGE, "true", name=gone, labels=labels)
    done = tritontune("doctor")
    (line,) = [line for line in done.stdout.splitlines() if "leftovers" in line]
    assert re.fullmatch(r"ok +leftovers +removed (\d+ servers? and )?\d+ containers? of killed runs", line)
    assert containers_of(999_999_999, engine) == set()


def test_servers_that_are_killed_paused_or_out_of_memory_midway_are_trials_that_failed(
    model_repository: ModelRepositoryFactory, engine: docker.DockerClient, tmp_path: Path
) -> None:
    model_repository.add("hoards", config=config_text(hoard_when_instances=4))
    out = tmp_path / "run"
    memory = ("--memory", "640MiB", "--space", _space(tmp_path, 1, 2, 3, 4))
    # Nothing holds that SLO, so nothing is verified.
    limits = ("--slo", "p99=1ms", "--max-concurrency", 2)
    harm: list[tuple[str, Callable[[str], None]]] = [
        ("crashed", lambda name: engine.containers.get(name).kill()),
        ("hung", lambda name: _pause(engine, name)),
    ]
    expected: dict[int, str] = {}
    with _started(model_repository.path, *IN_DOCKER, *memory, *limits, "--out", out) as run:
        for number in (1, 2, 3):
            command = _command(out, "hoards", number)
            await_that(lambda file=command: file.exists() or run.poll() is not None, within_s=60)  # type: ignore[misc]
            assert run.poll() is None, run.communicate()
            if "count: 4" in command.with_name("config.pbtxt").read_text():
                expected[number] = "out_of_memory"
                continue
            expected[number], do = harm.pop()
            (name,) = re.findall(r"--name=(\S+)", command.read_text())
            do(name)
        stderr = _ended(run)
    assert run.returncode == 3, stderr
    assert "every candidate has been measured" in stderr
    assert _left(run, engine) == set()

    trials = Study.load(out / "study.db", "hoards").trials
    failures = {trial.number: trial.failure for trial in trials if trial.failure}
    assert {number: failure.cause.value for number, failure in failures.items()} == expected
    assert all(failure.last_words for failure in failures.values())
    messages = {failure.cause.value: failure.message for failure in failures.values()}
    assert messages["crashed"] == "Triton was ended by SIGKILL"
    assert messages["hung"].startswith("the container is paused: ")
    assert messages["out_of_memory"].endswith("was ended by SIGKILL for want of memory")
    rows = csv.DictReader((out / "hoards/trials.csv").read_text().splitlines())
    assert {row["failure"] for row in rows if row["failure"]} == messages.keys()


@pytest.mark.timeout(240)  # an engine is started twice, and an image loaded
def test_an_engine_that_is_stopped_ends_the_run_which_goes_on_when_it_is_back(
    slow_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    job = (slow_model, *IN_DOCKER, "--space", _space(tmp_path, 1, 2, 3), "--out", out)
    options = ("--max-concurrency", 2, "--slo", "p99=1ms")  # which nothing holds, so nothing is verified
    with own_engine() as own:
        monkeypatch.setenv("DOCKER_HOST", own.host)
        with _started(*job, *options) as run:
            await_that(lambda: _command(out, "slow", 1).exists() or run.poll() is not None, within_s=60)
            assert run.poll() is None, run.communicate()
            own.stop()
            stderr = _ended(run)
        assert run.returncode == 1
        last = stderr.splitlines()[-1]
        assert re.match("tritontune: (there is no Docker engine|the Docker engine does not answer)", last)
        assert last.endswith(f"; when that is mended, go on with: tritontune run --resume --out {out}")
        assert "Traceback" not in stderr
        finished = Study.load(out / "study.db", "slow").trials
        assert finished

        own.start()
        resumed = tritontune("run", *job, *options, "--resume")
        assert resumed.returncode == 3, resumed.stderr
        trials = Study.load(out / "study.db", "slow").trials
        assert trials[: len(finished)] == finished
        assert [trial.number for trial in trials] == [0, 1, 2]
        assert own.docker("ps", "--all", "--quiet") == ""


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
        f"tritontune: --image {image} is no Triton image: it holds no tritonserver",
    ]
    assert not (tmp_path / "run").exists()
