"""What the fake Triton does on demand; that it does what a Triton does, the contract suites say."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton

from tuner.core.errors import Cause, JobError, LaunchError
from tuner.servers.client import TritonClient
from tuner.servers.installation import find_triton
from tuner.servers.process import ProcessLauncher
from tuner.servers.process_server import ProcessServer
from tuner.servers.protocols import Launch
from tuner.testing.installations import control_fake, fake_installation
from tuner.testing.launcher_contract import await_death, infer
from tuner.testing.repositories import ModelRepositoryFactory, config_text, known_config

Start = Callable[..., ProcessServer]
ON = "dynamic_batching { }"


@pytest.fixture
def start(fake_launcher: ProcessLauncher, model_repository: ModelRepositoryFactory, tmp_path: Path) -> Start:
    def launch(config: str = "", *, deadline_s: float = 30, launcher: ProcessLauncher = fake_launcher) -> ProcessServer:
        request = Launch(model_repository.path, model_repository.add_known(config=config), tmp_path / "log", deadline_s)
        server = launcher.launch(request)
        assert isinstance(server, ProcessServer)
        return server

    return launch


def test_it_starts_without_what_takes_long_to_import() -> None:
    script = (
        "import sys; from tuner.core.lean import spare_client; spare_client()\n"
        "from tuner.testing.fake import options, server\n"
        "print(sorted({'numpy', 'grpc', 'numba', 'pydantic', 'tuner.servers', 'tuner.search'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_executions_take_what_the_parameters_say(start: Start) -> None:
    with (
        start(known_config(service_us=3000, service_us_per_item=500)) as server,
        TritonClient(server.endpoint) as client,
    ):
        for items in (1, 4, 4):
            infer(server, "known", items=items)
        statistics = client.statistics("known")
    took_ms = {
        each.batch_size: (each.compute_input.ns + each.compute_infer.ns + each.compute_output.ns)
        / each.compute_infer.count
        / 1e6
        for each in statistics.batch_stats
    }
    assert took_ms == pytest.approx({1: 3.5, 4: 5.0})
    assert (statistics.inference_count, statistics.execution_count) == (9, 3)


def test_a_table_of_service_times(start: Start) -> None:
    with (
        start(known_config(service_us_table="1:1000 8:8000", service_us=9)) as server,
        TritonClient(server.endpoint) as client,
    ):
        infer(server, "known", items=5)
        statistics = client.statistics("known").inference_stats
    assert statistics.success.ns - statistics.queue.ns == pytest.approx(5e6, rel=1e-4)


def test_the_machine_gets_slower_while_it_runs(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "triton"
    with (
        start(known_config(service_us=2000), launcher=ProcessLauncher(fake_installation(folder))) as server,
        TritonClient(server.endpoint) as client,
    ):
        infer(server, "known")
        before = client.statistics("known").inference_stats.compute_infer.ns
        control_fake(folder, speed=0.5)
        infer(server, "known")
        after = client.statistics("known").inference_stats.compute_infer.ns
    assert after - before == pytest.approx(2 * before, rel=1e-3)


@pytest.mark.parametrize(
    ("parameters", "message", "cause"),
    [
        ({"load_error": "the weights are elsewhere"}, "the weights are elsewhere", Cause.INVALID_CONFIG),
        ({"out_of_memory_when_instances": 2}, "CUDA error: out of memory", Cause.OUT_OF_MEMORY),
        ({"crash_at_load": "SIGABRT"}, "Triton was ended by SIGABRT", Cause.CRASHED),
        ({"crash_at_load": "7"}, "Triton ended with exit code 7", Cause.CRASHED),
        ({"service_us_table": "1-2"}, "'service_us_table' must be like", Cause.INVALID_CONFIG),
    ],
)
def test_it_does_not_load_on_demand(start: Start, parameters: dict[str, object], message: str, cause: Cause) -> None:
    with pytest.raises(LaunchError, match=message) as caught:
        start(known_config(instances=2, **parameters))  # type: ignore[arg-type]
    assert caught.value.cause is cause


def test_it_hangs_while_it_loads(start: Start) -> None:
    with pytest.raises(LaunchError, match="not ready after 1s") as caught:
        start(known_config(hang_at_load="true"), deadline_s=1)
    assert caught.value.cause is Cause.TIMED_OUT


def test_it_crashes_at_a_batch_of_a_size(start: Start) -> None:
    with start(known_config(crash_when_batch_exceeds=3, crash_with=9)) as server:
        assert infer(server, "known", items=3).size
        with pytest.raises(triton.InferenceServerException):
            infer(server, "known", items=4)
        assert str(await_death(server)) == "Triton ended with exit code 9"


def test_it_crashes_after_so_many_executions(start: Start) -> None:
    with start(known_config(crash_after=2)) as server:
        assert infer(server, "known").size
        assert infer(server, "known").size
        with pytest.raises(triton.InferenceServerException):
            infer(server, "known")
        assert str(await_death(server)) == "Triton was ended by SIGABRT"


def test_it_hangs_at_a_batch_of_a_size(start: Start) -> None:
    with start(known_config(hang_when_batch_exceeds=2)) as server:
        assert infer(server, "known", items=2).size
        with pytest.raises(triton.InferenceServerException, match="Deadline"):
            infer(server, "known", items=3, timeout_s=0.3)
        server.check()


def test_it_answers_with_errors(start: Start) -> None:
    with start(known_config(fail_every=2, memory_when_batch_exceeds=4)) as server:
        assert infer(server, "known").size
        with pytest.raises(triton.InferenceServerException, match="not this one"):
            infer(server, "known")
        with pytest.raises(triton.InferenceServerException, match="out of memory"):
            infer(server, "known", items=5)


def test_it_answers_wrongly_from_a_batch_size_on(start: Start) -> None:
    with start(known_config(wrong_from_batch=2, wrong_by=1)) as server:
        assert infer(server, "known").tolist() == [[0, 1, 2, 3]]
        assert infer(server, "known", items=2).tolist() == [[1, 3, 5, 7], [9, 11, 13, 15]]


def test_it_stalls_until_it_is_told_otherwise(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "triton"
    installation = fake_installation(folder, stall=True)
    with start(launcher=ProcessLauncher(installation)) as server:
        with pytest.raises(triton.InferenceServerException, match="Deadline"):
            infer(server, "known", timeout_s=0.3)
        control_fake(folder)
        assert infer(server, "known").size


def test_it_ignores_sigterm(start: Start, tmp_path: Path) -> None:
    installation = fake_installation(tmp_path / "triton", ignore_sigterm=True)
    with start(launcher=ProcessLauncher(installation)) as server:
        os.kill(server.pid, signal.SIGTERM)
        assert infer(server, "known").size
        server.check()


def test_it_does_not_start(tmp_path: Path) -> None:
    folder = tmp_path / "triton"
    assert find_triton(fake_installation(folder, version="2.60.0").binary).version == "2.60.0"
    control_fake(folder, fail_start="error while loading shared libraries: libb64.so.0d")
    with pytest.raises(JobError, match="does not start as a Triton: libb64.so.0d"):
        find_triton(folder)


def test_its_backend_completes_a_config(
    fake_launcher: ProcessLauncher, model_repository: ModelRepositoryFactory, tmp_path: Path
) -> None:
    model = model_repository.add_known(
        config='backend: "fake"\nparameters { key: "service_us" value { string_value: "5" } }'
    )
    completion = known_config(max_batch_size=4, more=ON)
    (model_repository.path / model / "1" / "model.fake").write_text(completion)
    with (
        fake_launcher.launch(Launch(model_repository.path, model, tmp_path / "log", 30)) as server,
        TritonClient(server.endpoint) as client,
    ):
        config = client.model_config(model)
    assert (config.max_batch_size, list(config.dynamic_batching.preferred_batch_size)) == (4, [4])
    assert config.parameters["service_us"].string_value == "5"
    assert config.input[0].name == "IN"


def test_an_ensemble_takes_its_steps_in_order(
    fake_launcher: ProcessLauncher, model_repository: ModelRepositoryFactory, tmp_path: Path
) -> None:
    model_repository.add_known("first", known_config(service_us=2000))
    model_repository.add_known("second", known_config(service_us=1000, wrong_from_batch=1, wrong_by=1))
    steps = [("second", "MIDDLE", "OUT"), ("first", "IN", "MIDDLE")]
    told = ", ".join(
        f'{{ model_name: "{name}" model_version: -1 input_map {{ key: "IN" value: "{takes}" }} '
        f'output_map {{ key: "OUT" value: "{gives}" }} }}'
        for name, takes, gives in steps
    )
    config = config_text(more=f"ensemble_scheduling {{ step [ {told} ] }}").replace(
        'backend: "python"', 'platform: "ensemble"'
    )
    config = "\n".join(line for line in config.splitlines() if not line.startswith("instance_group"))
    model_repository.add_known("both", config)
    with (
        fake_launcher.launch(Launch(model_repository.path, "both", tmp_path / "log", 30)) as server,
        TritonClient(server.endpoint) as client,
    ):
        assert infer(server, "both").tolist() == [[1, 3, 5, 7]]
        assert client.statistics("first").inference_count == 1
        took_ns = client.statistics("both").inference_stats.success.ns
    assert took_ns >= 3e6


def test_files_take_the_place_of_the_models_own(start: Start) -> None:
    code = (
        "import triton_python_backend_utils as u\n"
        "class TritonPythonModel:\n"
        "    def execute(self, requests):\n"
        "        tensors = [u.get_input_tensor_by_name(request, 'IN').as_numpy() for request in requests]\n"
        "        return [u.InferenceResponse([u.Tensor('OUT', -tensor)]) for tensor in tensors]\n"
    )
    override = {
        "backend": "python",
        "max_batch_size": 8,
        "input": [{"name": "IN", "data_type": "TYPE_FP32", "dims": [4]}],
        "output": [{"name": "OUT", "data_type": "TYPE_FP32", "dims": [4]}],
    }
    with start() as server, triton.InferenceServerClient(server.endpoint.address) as client:
        client.load_model("known", config=json.dumps(override), files={"file:1/model.py": code.encode()})
        assert np.array_equal(infer(server, "known"), [[0, -1, -2, -3]])


def test_batches_are_formed_as_the_config_says(start: Start) -> None:
    config = known_config(service_us=50_000, more="dynamic_batching { preferred_batch_size: [ 4 ] }")
    values = np.zeros((1, 4), np.float32)
    tensor = triton.InferInput("IN", values.shape, "FP32")
    tensor.set_data_from_numpy(values)
    with start(config) as server, triton.InferenceServerClient(server.endpoint.address) as client:
        errors: queue.Queue[object] = queue.Queue()
        for _ in range(9):
            client.async_infer("known", [tensor], callback=lambda result, error: errors.put(error))  # noqa: ARG005
        assert [errors.get(timeout=30) for _ in range(9)] == [None] * 9
        with TritonClient(server.endpoint) as asking:
            statistics = asking.statistics("known")
    assert statistics.inference_count == 9
    assert statistics.execution_count < 9
    assert max(each.batch_size for each in statistics.batch_stats) == 4


def test_a_model_asks_another_one(fake_launcher: ProcessLauncher, tmp_path: Path) -> None:
    repository = ModelRepositoryFactory(tmp_path / "repository")
    repository.add("calls")
    repository.add_known(config=known_config(wrong_from_batch=1, wrong_by=1))
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "callee.py").write_text("NAME = 'known'\n")
    with fake_launcher.launch(Launch(repository.path, "calls", tmp_path / "log", 30)) as server:
        with pytest.raises(triton.InferenceServerException, match="Model 'known' is not ready"):
            infer(server, "calls")
        with TritonClient(server.endpoint) as client:
            client.load_model("known")
        assert infer(server, "calls").tolist() == [[1, 3, 5, 7]]
