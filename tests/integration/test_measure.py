"""`tritontune measure`, on a server of its own and on one that runs."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from support.command_line import servers_of, start_tritontune, tritontune
from support.tritons import start_with_http

from tuner.cli.main import cli
from tuner.config.repository import ModelRepository
from tuner.config.staging import stage
from tuner.core.mark import Mark, marks_on_files
from tuner.servers.installation import TritonInstallation
from tuner.servers.protocols import Launch, Server
from tuner.testing.repositories import ModelRepositoryFactory, config_text

pytestmark = pytest.mark.usefixtures("fake_on_path")

# For what does not depend on how precise the numbers are.
QUICK = ("--time", "1s")


@dataclass(frozen=True)
class Running:
    """A Triton that serves the model `slow` over gRPC and HTTP."""

    server: Server
    http_url: str

    @property
    def grpc_address(self) -> str:
        return self.server.endpoint.address


@pytest.fixture(scope="module")
def server(fake_triton: TritonInstallation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("server")
    (folder / "models").mkdir()
    ModelRepositoryFactory(folder / "models").add("slow", config=config_text(max_batch_size=16))
    staged = stage(ModelRepository.open(folder / "models"), folder / "staged")
    ports = start_with_http(fake_triton, Launch(staged.path, "slow", folder / "log", 60.0))
    with ports.server:
        yield Running(ports.server, f"http://{ports.http.address}")


def points_of(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """What `--json` printed, and nothing else."""
    assert done.returncode == 0, done.stderr
    points: list[dict[str, Any]] = json.loads(done.stdout)["points"]
    return points


def rows_of(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.read_text().splitlines()))


def calling(folder: Path) -> Path:
    """A repository whose model `calls` has `identity` answer, and finds its name beside the repository."""
    (folder / "common").mkdir()
    (folder / "common/callee.py").write_text('NAME = "identity"\n')
    (folder / "models").mkdir()
    factory = ModelRepositoryFactory(folder / "models")
    factory.add("calls")
    factory.add("identity")
    return factory.path


@pytest.mark.triton
def test_a_model_that_calls_another_and_code_beside_the_repository(tmp_path: Path) -> None:
    repository = calling(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    done = CliRunner().invoke(cli, ["measure", str(repository), "--model", "calls", "--json", "--time", "0.3s"])
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["points"][0]["errors"] == 0
    assert "loaded identity, because calls calls it; use --load-model identity to load it from the start" in done.stderr
    # Python's compiled code lies in the copies.
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_nowhere_beside_the_copy_is_told_with_a_hint(tmp_path: Path) -> None:
    repository = calling(tmp_path)
    (tmp_path / "common/callee.py").unlink()
    done = CliRunner().invoke(cli, ["measure", str(repository), "--model", "calls"])
    told = str(done.exception)
    assert "No module named 'callee'; Triton serves a copy of the repository, with only common beside" in told


def test_ones_own_time_holds_at_a_low_rate_too(server: Running) -> None:
    options = ("--rate", 4, "--arrivals", "constant", "--time", "1s")
    (point,) = points_of(tritontune("measure", "--url", server.grpc_address, *options, "--json"))
    assert 2 <= point["requests"] <= 6


def test_a_repository(slow_model: Path) -> None:
    done = tritontune("measure", slow_model, "--concurrency", "1,4", "--json", *QUICK)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["schema"], told["model"]) == (1, "slow")
    one, four = told["points"]
    assert (one["load"], four["load"]) == ({"concurrency": 1}, {"concurrency": 4})
    # One instance of 10 ms, no batching: no load gets more than 100 a second, and more requests only wait longer.
    assert 10 < one["throughput"]["value"] < 101
    assert 10 < four["throughput"]["value"] < 101
    assert four["latency_ms"]["p50"]["value"] > one["latency_ms"]["p50"]["value"]
    assert one["errors"] == 0
    assert one["average_batch_size"] == 1.0
    contract = {"load", "throughput", "latency_ms", "average_batch_size", "requests", "errors", "verified"}
    assert contract <= set(one)
    assert sum(count for _, count in one["latency_histogram"]) == one["requests"]
    assert one["client"]["bound"] is None
    # The model sleeps for 10 ms, which a busy machine makes more.
    assert 9.5 < one["server"]["compute_infer_ms"] < 2 * one["latency_ms"]["p50"]["value"]
    assert servers_of(slow_model) == []


def test_a_server_that_runs(server: Running) -> None:
    done = tritontune("measure", "--url", server.grpc_address, "--concurrency", "2", *QUICK)
    assert done.returncode == 0, done.stderr
    assert "inferences/s" in done.stdout
    assert all(column in done.stdout for column in ("queue ms", "infer ms", "batch"))
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert "at concurrency 2" in done.stderr
    server.server.check()


def test_a_proxy_of_the_environment_is_not_asked(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    done = tritontune("measure", "--url", server.grpc_address, *QUICK)
    assert done.returncode == 0, done.stderr


def test_a_model_that_the_server_does_not_have(server: Running) -> None:
    done = tritontune("measure", "--url", server.grpc_address, "--model", "slwo")
    assert done.returncode == 2
    assert f"{server.grpc_address} serves no model 'slwo'; did you mean 'slow'?" in done.stderr


def test_nobody_at_the_url() -> None:
    done = tritontune("measure", "--url", "127.0.0.1:1")
    assert done.returncode == 2
    assert done.stderr == "tritontune: --url: no Triton answers at 127.0.0.1:1: Connection refused\n"


def test_several_models_and_none_named(model_repository: ModelRepositoryFactory) -> None:
    model_repository.add("slow", name="a")
    model_repository.add("slow", name="b")
    done = tritontune("measure", model_repository.path)
    assert done.returncode == 2
    assert "holds several models; choose one with --model: a, b" in done.stderr


def test_a_model_is_not_its_own_callee(model_repository: ModelRepositoryFactory) -> None:
    model_repository.add("slow")
    done = tritontune("measure", model_repository.path, "--load-model", "slow")
    assert done.returncode == 2
    assert done.stderr.startswith("tritontune: --load-model slow: this is the model itself")


def test_a_model_that_fails_every_request(model_repository: ModelRepositoryFactory) -> None:
    model_repository.add("fails_requests")
    done = tritontune("measure", model_repository.path)
    assert done.returncode == 1
    assert "not this one" in done.stderr.splitlines()[-1]


def test_failed_requests_are_counted(model_repository: ModelRepositoryFactory) -> None:
    model_repository.add("fails_requests", config=config_text(fail_every=10))
    done = tritontune("measure", model_repository.path, "--json", "--time", "1s")
    assert done.returncode == 0, done.stderr
    (point,) = json.loads(done.stdout)["points"]
    assert point["errors"] / (point["errors"] + point["requests"]) == pytest.approx(0.1, abs=0.03)


def test_a_variable_dimension(model_repository: ModelRepositoryFactory) -> None:
    model_repository.add("identity", config=config_text().replace("dims: [ 4 ]", "dims: [ -1 ]"))
    assert "--shape IN:" in tritontune("measure", model_repository.path).stderr
    done = tritontune("measure", model_repository.path, "--shape", "IN:7", *QUICK)
    assert done.returncode == 0, done.stderr


def test_a_server_of_which_only_http_is_reachable(server: Running) -> None:
    (point,) = points_of(tritontune("measure", "--url", server.http_url, "--concurrency", 2, "--json", *QUICK))
    assert 10 < point["throughput"]["value"] < 101
    assert point["errors"] == 0
    assert point["server"]["executions"] > 0


def test_rates_and_a_csv(server: Running, tmp_path: Path) -> None:
    file = tmp_path / "points.csv"
    loads = ("--rate", "20,40", "--arrivals", "constant", *QUICK)
    done = tritontune("measure", "--url", server.grpc_address, *loads, "--json", "--csv", file)
    points = points_of(done)
    assert [point["load"] for point in points] == [{"request_rate": 20.0}, {"request_rate": 40.0}]
    assert points[0]["client"]["send_lag_ms"]["p50"] < 10
    rows = rows_of(file)
    assert [float(row["requests_per_s_offered"]) for row in rows] == [20, 40]
    assert float(rows[0]["p99_ms"]) == points[0]["latency_ms"]["p99"]["value"]


def test_the_highest_rate(server: Running) -> None:
    done = tritontune("measure", "--url", server.grpc_address, "--rate", "max", "--slo", "p50=300ms", *QUICK)
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()[-1]
    assert told.startswith("highest sustained rate: ")
    assert told.endswith(" requests/s, p50 <= 300 ms")
    rate = told.split(": ")[1].split()[0]
    # One of the rates that were measured; how high a busy machine lets it be is not for this test.
    assert any(f" at {rate} requests/s" in line for line in done.stderr.splitlines())


def test_the_highest_rate_for_machines(server: Running) -> None:
    done = tritontune("measure", "--url", server.grpc_address, "--rate", "max", "--json", *QUICK)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    rates = [point["load"]["request_rate"] for point in told["points"] if "request_rate" in point["load"]]
    assert told["highest_rate"] in rates


def test_a_ramp(server: Running) -> None:
    points = points_of(tritontune("measure", "--url", server.grpc_address, "--ramp", "10:60:2s", "--json"))
    rates = [point["load"]["request_rate"] for point in points]
    assert len(rates) == 10
    assert rates == sorted(rates)
    assert 10 < rates[0] < rates[-1] < 60


def test_recorded_times(server: Running, tmp_path: Path) -> None:
    times = tmp_path / "times"
    times.write_text("".join(f"{1_000 + number / 40}\n" for number in range(50)))
    (point,) = points_of(tritontune("measure", "--url", server.grpc_address, "--timestamps", times, "--json"))
    assert point["load"] == {"replay": "times"}
    assert 40 <= point["requests"] <= 50


def test_inputs_of_ones_own_and_the_answers_that_they_should_get(server: Running, tmp_path: Path) -> None:
    file = tmp_path / "data.json"
    data = {"data": [{"IN": [1, 2, 3, 4]}], "validation_data": [{"OUT": [1, 2, 3, 4]}]}
    file.write_text(json.dumps(data))
    (point,) = points_of(tritontune("measure", "--url", server.grpc_address, "--input-data", file, "--json", *QUICK))
    assert point["errors"] == 0
    file.write_text(json.dumps({**data, "validation_data": [{"OUT": [1, 2, 3, 5]}]}))
    done = tritontune("measure", "--url", server.grpc_address, "--input-data", file)
    assert done.returncode == 1
    assert "output OUT differs from what --input-data expects" in done.stderr.splitlines()[-1]


def own_marks() -> set[Mark]:
    """Of what this process has made; others of this machine come and go."""
    return {mark for mark in marks_on_files() if mark.pid == os.getpid()}


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_tensors_in_shared_memory(server: Running, protocol: str) -> None:
    url = server.http_url if protocol == "http" else server.grpc_address
    before = own_marks()
    (point,) = points_of(tritontune("measure", "--url", url, "--shared-memory", "system", "-b", 4, "--json", *QUICK))
    assert point["batch_size"] == 4
    assert point["throughput"]["value"] > 101  # four inferences in 10 ms
    assert own_marks() == before


def test_a_decoupled_model(model_repository: ModelRepositoryFactory, tmp_path: Path) -> None:
    config = config_text(max_batch_size=0, more="model_transaction_policy { decoupled: true }")
    model_repository.add("decoupled", config=config)
    three_after_5_ms = tmp_path / "data.json"
    three_after_5_ms.write_text(json.dumps({"data": [{"IN": [3, 5, -1, 1]}]}))
    file = tmp_path / "points.csv"
    done = tritontune("measure", model_repository.path, "--input-data", three_after_5_ms, "--csv", file, *QUICK)
    assert done.returncode == 0, done.stderr
    assert "first p50 ms" in done.stdout
    (row,) = rows_of(file)
    assert float(row["responses_per_request"]) == 3
    assert float(row["inter_response_p50_ms"]) >= 5
    assert 5 <= float(row["first_response_p50_ms"]) < float(row["p50_ms"])


def test_what_was_measured_before_ctrl_c_is_not_lost(server: Running, tmp_path: Path) -> None:
    file = tmp_path / "points.csv"
    levels = ",".join(["1"] * 100)
    with start_tritontune("measure", "--url", server.grpc_address, "--concurrency", levels, "--csv", file) as running:
        assert running.stderr is not None
        assert "at concurrency 1" in running.stderr.readline()
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=120)
    assert running.returncode == 130
    assert rows_of(file)
