"""`tritontune run` on a server that somebody else runs, and on one that loads all candidates in turn."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command_line import await_that, start_tritontune, tritontune
from tritonclient.grpc import model_config_pb2

from tuner.servers.client import TritonClient
from tuner.servers.process import ProcessLauncher
from tuner.servers.protocols import Launch, Server
from tuner.testing.repositories import ModelRepositoryFactory, config_text

pytestmark = pytest.mark.usefixtures("fake_on_path")


@pytest.fixture(scope="module")
def elsewhere(fake_launcher: ProcessLauncher, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "repository").mkdir()
    ModelRepositoryFactory(folder / "repository").add("slow", config=config_text(max_batch_size=16))
    with fake_launcher.launch(Launch(folder / "repository", "slow", folder / "log", 60)) as server:
        yield server


def config_at(server: Server) -> model_config_pb2.ModelConfig:
    with TritonClient(server.endpoint) as client:
        return client.model_config("slow")


def test_it_is_tuned_without_its_repository_and_left_as_it_was(elsewhere: Server, tmp_path: Path) -> None:
    before, out = config_at(elsewhere), tmp_path / "run"
    address = elsewhere.endpoint.address
    done = tritontune(
        "run",
        "--url",
        address,
        "--max-concurrency",
        8,
        "--slo",
        "p90=400ms",
        "--trials",
        2,
        "--budget",
        "5m",
        "--no-verify",
        "--out",
        out,
    )
    assert done.returncode == 0, done.stderr
    best = json.loads((out / "slow" / "front.json").read_text())["best"]
    # Batches of eight take as long as one request.
    assert best["gain"]["throughput"]["value"] > 1.1
    assert "dynamic_batching" in (out / "slow" / "best" / "config.pbtxt").read_text()
    assert config_at(elsewhere) == before
    # Of a server that is not ours there is no log.
    assert not (out / "slow" / "verified").exists()
    again = tritontune("export", out, "--in-place")
    assert again.returncode == 2
    assert "has no repository here; use --to FILE.pbtxt" in again.stderr


def test_ctrl_c_leaves_it_as_it_was(elsewhere: Server, slow_model: Path, tmp_path: Path) -> None:
    before, out = config_at(elsewhere), tmp_path / "run"
    with start_tritontune(
        "run", slow_model, "--url", elsewhere.endpoint.address, "--precision", "20%,50%", "--trials", 9, "--out", out
    ) as running:
        began = out / "slow" / "trials" / "001" / "command.txt"
        await_that(lambda: began.exists() or running.poll() is not None)
        assert config_at(elsewhere) != before
        running.send_signal(signal.SIGINT)
        assert running.wait(30) == 130
    assert config_at(elsewhere) == before


def test_all_candidates_on_one_server(slow_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = tritontune(
        "run",
        slow_model,
        "--isolation",
        "reload",
        "--max-concurrency",
        8,
        "--slo",
        "p90=400ms",
        "--trials",
        3,
        "--budget",
        "5m",
        "--out",
        out,
    )
    assert done.returncode == 0, done.stderr
    front = json.loads((out / "slow" / "front.json").read_text())
    assert front["best"]["gain"]["throughput"]["value"] > 1.1
    commands = [(out / "slow" / "trials" / number / "command.txt").read_text() for number in ("000", "001")]
    started = {command.partition("--grpc-port=")[2].split()[0] for command in commands}
    assert len(started) == 1
    log = (out / "slow" / "trials" / "001" / "server.log").read_text()
    assert log.count("successfully loaded 'slow'") == 1


def test_what_would_be_searched_there_is_printed_and_nothing_is_loaded(elsewhere: Server, tmp_path: Path) -> None:
    before = config_at(elsewhere)
    done = tritontune("run", "--url", elsewhere.endpoint.address, "--list-space", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("slow: backend python, as the server completed it; space auto\n")
    assert "not searched: the server at --url keeps its arguments\n" in done.stdout
    assert config_at(elsewhere) == before
    assert list(tmp_path.iterdir()) == []
