"""`measure` and `run` with GPU figures: a real Triton, and a stand-in for the driver's library below NVML's calls.

The server itself is one for CPUs, which refuses KIND_GPU; KIND_MODEL leaves the device to the model.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pynvml
import pytest
from support.nvml import GIB, StandInGpu, StandInLibrary, installed, memory_of_instances

from tuner import TuneJob, tune
from tuner.cli.main import cli
from tuner.config.config import ModelConfig
from tuner.core.errors import JobError
from tuner.core.machine import Machine
from tuner.jobs.progress import Progress
from tuner.measure.gpu_view import GpuMemory
from tuner.space.space import SearchSpace
from tuner.space.spec import load_space
from tuner.study.run_folder import RunFolder
from tuner.testing.repositories import ModelRepositoryFactory, config_text

pytestmark = pytest.mark.usefixtures("fake_on_path")

_ON_GPU = config_text(max_batch_size=16).replace("KIND_CPU", "KIND_MODEL")


class Noting(Progress):
    """Keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def gpu() -> StandInGpu:
    taken = memory_of_instances()
    return StandInGpu(used=lambda: 3 * GIB + taken())


@pytest.fixture
def library(gpu: StandInGpu) -> Iterator[StandInLibrary]:
    other = StandInGpu("GPU-bbbb", used=70 * GIB, processes=[(4711, 66 * GIB)])
    with installed(StandInLibrary(gpu, other)) as library:
        yield library


@pytest.fixture
def repository(model_repository: ModelRepositoryFactory) -> Path:
    model_repository.add("slow", config=_ON_GPU)
    return model_repository.path


@pytest.fixture
def tritontune(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[str, str]]:
    """Runs a command in this process, where the stand-in is; returns stdout and stderr."""

    def run(*arguments: object) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["tritontune", *map(str, arguments)])
        capsys.readouterr()
        cli.main([str(argument) for argument in arguments], standalone_mode=False)
        told = capsys.readouterr()
        return told.out, told.err

    return run


@pytest.mark.usefixtures("library")
def test_measure_tells_what_a_point_costs(
    repository: Path, tritontune: Callable[..., tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    file = tmp_path / "points.csv"
    out, err = tritontune("measure", repository, "--server", "process", "--concurrency", "4", "--json", "--csv", file)
    (point,) = json.loads(out)["points"]
    (view,) = point["gpu"]["gpus"]
    assert (view["gpu"], view["utilization_percent"]) == ("GPU 0 (NVIDIA H100 80GB HBM3)", 73)
    assert (view["memory_bytes"], view["idle_memory_bytes"]) == (4 * GIB, 3 * GIB)
    assert view["power_w"] == pytest.approx(350, rel=0.15)
    joules = 350 / point["throughput"]["value"]
    assert point["gpu"]["energy_per_inference_j"] == pytest.approx(joules, rel=0.25)
    # A model that sleeps takes next to no CPU; the server and its stub hold some memory.
    assert 0 <= point["server_resources"]["cpu_cores"] < 1
    assert 30 << 20 < point["server_resources"]["memory_bytes"] < 2 * GIB
    (row,) = csv.DictReader(file.read_text().splitlines())
    assert (row["gpu_memory_bytes"], row["gpu_utilization_percent"]) == (str(4 * GIB), "73.0")
    # Neither what is visible nor what is in use is the busy one.
    assert "others use" not in err


@pytest.mark.usefixtures("library")
def test_measure_shows_it_and_warns_of_others(
    repository: Path, tritontune: Callable[..., tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Wide enough for all columns, however long the numbers of a busy machine are.
    monkeypatch.setattr("tuner.cli.measure.USUAL_WIDTH", 240)
    out, err = tritontune("measure", repository, "--server", "process", "--concurrency", "1,2", "--time", "1s")
    assert all(column in out for column in ("server CPU", "memory", "GPU memory", "GPU W", "J/inference"))
    (warning,) = [line for line in err.splitlines() if "other processes use the GPU" in line]
    assert "GPU 1 (NVIDIA H100 80GB HBM3): program4711 4711 with 66 GiB" in warning


def test_a_model_on_the_cpu_is_measured_without_a_word_of_gpus(
    model_repository: ModelRepositoryFactory, tritontune: Callable[..., tuple[str, str]], library: StandInLibrary
) -> None:
    model_repository.add("slow")
    out, err = tritontune("measure", model_repository.path, "--server", "process", "--json")
    (point,) = json.loads(out)["points"]
    assert point["gpu"] is None
    assert point["server_resources"]["memory_bytes"] > 30 << 20
    assert "GPU" not in err
    assert library.opened == 0


_SPACE = """
schema: 1
parameters:
  instance_group.count: {field: 'instance_group[*].count', ladder: [1, 2, 3, 4, 5, 6, 8]}
"""


def _job(repository: Path, **options: object) -> TuneJob:
    space = repository.parent / "space.yaml"
    space.write_text(_SPACE)
    defaults = {
        "repository": repository,
        "space": str(space),
        "max_concurrency": 2,
        "server": "process",
        "verify": False,
    }
    return TuneJob.make({**defaults, **options})


@pytest.mark.usefixtures("library")
def test_a_limit_on_memory_holds_and_spares_launches(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    out = RunFolder(tmp_path / "run")
    (outcome,) = tune(_job(repository, max_gpu_memory="1.5GiB", trials=2), out=out).outcomes
    study = outcome.study
    assert [trial.parameters["instance_group.count"] for trial in study.trials] == [1, 2]
    assert [trial.gpu_memory and trial.gpu_memory.peak_bytes for trial in study.trials] == [GIB, 2 * GIB]
    # Two instances are quicker, and take too much.
    rates = [max(point.throughput.value for point in trial.curve) for trial in study.trials]
    assert rates[1] > rates[0]
    assert outcome.recommendation.best is not None
    assert {each.trial.number for each in (outcome.recommendation.best, *outcome.recommendation.front)} == {0}
    assert [trial.constraints["gpu_memory"] for trial in study.optuna_trials()] == [
        pytest.approx(-1 / 3),
        pytest.approx(1 / 3),
    ]
    rows = list(csv.DictReader((out.model("slow") / "trials.csv").read_text().splitlines()))
    assert {(row["trial"], row["gpu_memory_taken_bytes"]) for row in rows} == {("0", str(GIB)), ("1", str(2 * GIB))}
    front: dict[str, Any] = json.loads((out.model("slow") / "front.json").read_text())
    assert front["best"]["gpu"]["gpus"][0]["memory_bytes"] == 4 * GIB

    # With three trials more, which nobody has to wait for, what each instance takes is known.
    space = SearchSpace.build(
        load_space(str(repository.parent / "space.yaml")),
        ModelConfig.parse(study.trials[0].config, "config.pbtxt"),
        ModelConfig.parse(study.trials[0].effective_config or "", "effective"),
        Machine.here(),
    )
    for number in (2, 3, 4):
        memory = GpuMemory(gpu="GPU 0", peak_bytes=(number + 1) * GIB, capacity_bytes=77 * GIB)
        more = {"number": number, "parameters": {"instance_group.count": number + 1}, "gpu_memory": memory}
        study.add(study.trials[1].model_copy(update=more), space)
    told = Noting()
    # All of them, whatever the twin expects.
    job = _job(repository, max_gpu_memory="1.5GiB", sampler="grid")
    (resumed,) = tune(job, out=out, resume=True, progress=told).outcomes
    assert (len(resumed.study.trials), resumed.ended) == (5, "every candidate has been measured or skipped")
    skipped = sorted(note for note in told.notes if note.startswith("skipped: "))
    assert [note.split(": needs at least ")[0] for note in skipped] == [
        "skipped: instance_group.count 6",
        "skipped: instance_group.count 8",
    ]
    assert all("GiB of GPU memory, 1.5 GiB available" in note for note in skipped)
    assert resumed.recommendation.best is not None
    assert resumed.recommendation.best.trial.number == 0


def test_a_limit_that_cannot_be_measured_is_refused_before_anything_is_launched(
    repository: Path, tmp_path: Path
) -> None:
    with (
        installed(StandInLibrary()),
        pytest.raises(JobError, match="--max-gpu-memory: cannot measure GPU memory here: the server sees none of this"),
    ):
        tune(_job(repository, max_gpu_memory="3GiB"), out=RunFolder(tmp_path / "run"))
    assert not (tmp_path / "run" / "slow").exists()


def test_a_limit_on_what_a_gpu_does_not_tell_is_refused(repository: Path, gpu: StandInGpu, tmp_path: Path) -> None:
    calls = ("nvmlDeviceGetMemoryInfo", "nvmlDeviceGetMemoryInfo_v2")
    gpu.refusals = dict.fromkeys(calls, pynvml.NVML_ERROR_NOT_SUPPORTED)
    job = _job(repository, max_gpu_memory="3GiB", trials=2)
    with (
        installed(StandInLibrary(gpu)),
        pytest.raises(JobError, match="NVML does not report the GPU memory in use"),
    ):
        tune(job, out=RunFolder(tmp_path / "run"))
    assert not RunFolder(tmp_path / "run").database.exists()


@pytest.mark.usefixtures("library")
def test_a_limit_leaves_a_model_on_the_cpu_alone(model_repository: ModelRepositoryFactory, tmp_path: Path) -> None:
    model_repository.add("slow")
    told = Noting()
    job = _job(model_repository.path, max_gpu_memory=1, trials=1, budget="3s")
    (outcome,) = tune(job, out=RunFolder(tmp_path / "run"), progress=told).outcomes
    assert outcome.recommendation.best is not None
    assert "slow uses no GPU: --max-gpu-memory has no effect on it" in told.notes


@pytest.mark.usefixtures("library")
@pytest.mark.slow
@pytest.mark.triton
@pytest.mark.parametrize(
    ("metric", "divisor", "unit"),
    [("throughput_per_gpu", 1.0, "inferences/s per GPU"), ("inferences_per_joule", 350.0, "inferences/J")],
)
def test_an_objective_of_gpus(  # noqa: PLR0917 (fixtures)
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: str, divisor: float, unit: str
) -> None:
    """A GPU that always draws 350 W."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    out = RunFolder(tmp_path / "run")
    (outcome,) = tune(_job(repository, maximize=metric, trials=2), out=out).outcomes
    front: dict[str, Any] = json.loads((out.model("slow") / "front.json").read_text())
    best = front["best"]
    assert (front["objective"]["metric"], front["objective"]["unit"]) == (metric, unit)
    assert (best["trial"], best["gain"]["throughput"]) == (1, None)
    # Power is read while the machine is busy, so it is not exact.
    assert best["objective_value"]["value"] == pytest.approx(best["throughput"]["value"] / divisor, rel=0.25)
    assert best["gain"]["ratio"]["value"] > 1.2
    assert outcome.recommendation.objective.metric == metric


def test_power_that_a_gpu_does_not_tell_is_refused(repository: Path, gpu: StandInGpu, tmp_path: Path) -> None:
    calls = ("nvmlDeviceGetPowerUsage", "nvmlDeviceGetTotalEnergyConsumption")
    gpu.refusals = dict.fromkeys(calls, pynvml.NVML_ERROR_NOT_SUPPORTED)
    with (
        installed(StandInLibrary(gpu)),
        pytest.raises(
            JobError, match="--maximize inferences_per_joule: NVML does not report the power of the GPU of slow"
        ),
    ):
        tune(_job(repository, maximize="inferences_per_joule", trials=2), out=RunFolder(tmp_path / "run"))
    assert not RunFolder(tmp_path / "run").database.exists()
