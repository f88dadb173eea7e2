"""NVIDIA's Model Analyzer 1.58, in an environment of its own, on the same Triton as everybody else here."""

from __future__ import annotations

import csv
import shlex
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml
from perf_analyzer import library_path

from tuner.servers.installation import find_triton

Mode = Literal["quick", "optuna", "brute"]

_INFERENCE = "metrics-model-inference.csv"
# Of the columns of that file.
_CONFIG, _CONCURRENCY, _THROUGHPUT, _P99 = (
    "Model Config Path",
    "Concurrency",
    "Throughput (infer/sec)",
    "p99 Latency (ms)",
)
_FIELDS = ["model_name", "model_config_path", "concurrency", "perf_throughput", "perf_latency_p99"]
_LONGEST_S = 7200.0


@dataclass(frozen=True)
class Bounds:
    """What every tuner may try, and the limit that it is to hold."""

    p99_ms: float
    instances: int = 4
    batch_size: int = 64
    concurrency: int = 128


@dataclass(frozen=True)
class Analysis:
    """What it found.

    Attributes:
        wall_s: From start to end.
        measurements: How many it made.
        configs: Of how many configs.
        config: The text of its pick.
        concurrency: At which it picked it.
        throughput: That it reports of it, inferences a second.
        p99_ms: The same.
    """

    wall_s: float
    measurements: int
    configs: int
    config: str
    concurrency: int
    throughput: float
    p99_ms: float


@dataclass(frozen=True)
class ModelAnalyzer:
    """The tool.

    Attributes:
        program: Its `model-analyzer`.
        perf_analyzer: The binary of the wheel tritonclient 2.51.0.
    """

    program: Path
    perf_analyzer: Path

    def profile(self, repository: Path, model: str, mode: Mode, bounds: Bounds, folder: Path) -> Analysis:
        """Let it profile a model on this machine's processors.

        Args:
            repository: With the model.
            model: Its name.
            mode: Of its search.
            bounds: What it may try.
            folder: An empty one, for all that it writes.
        """
        found, configs = folder / "found", folder / "configs"
        found.mkdir()
        asked = {
            "model_repository": str(repository),
            "profile_models": {
                model: {
                    "cpu_only": True,
                    "objectives": ["perf_throughput"],
                    "constraints": {"perf_latency_p99": {"max": bounds.p99_ms}},
                }
            },
            "run_config_search_mode": mode,
            "run_config_search_max_instance_count": bounds.instances,
            "run_config_search_max_model_batch_size": bounds.batch_size,
            "run_config_search_max_concurrency": bounds.concurrency,
            "triton_launch_mode": "local",
            "triton_server_path": str(_server_script(folder)),
            "perf_analyzer_path": str(_client_script(folder, self.perf_analyzer)),
            # It gives up where a client takes more than a core, which is for us to judge.
            "perf_analyzer_cpu_util": 10_000,
            "client_protocol": "grpc",
            "output_model_repository_path": str(configs),
            "checkpoint_directory": str(folder / "checkpoints"),
            "export_path": str(found),
            "inference_output_fields": _FIELDS,
            "filename_model_inference": _INFERENCE,
            "skip_detailed_reports": True,
        }
        (folder / "profile.yaml").write_text(yaml.safe_dump(asked), encoding="utf-8")
        began = time.monotonic()
        with (folder / "log").open("wb") as log:
            ended = subprocess.run(
                [str(self.program), "profile", "--config-file", str(folder / "profile.yaml")],
                check=False,
                stdin=subprocess.DEVNULL,
                cwd=folder,  # perf_analyzer leaves a file where it runs
                stdout=log,
                stderr=log,
                timeout=_LONGEST_S,
            )
        if ended.returncode:
            last_words = (folder / "log").read_text(encoding="utf-8")[-2_000:]
            raise RuntimeError(f"Model Analyzer ended with {ended.returncode}: {last_words}")
        wall_s = time.monotonic() - began
        with (found / "results" / _INFERENCE).open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        pick = max((row for row in rows if float(row[_P99]) <= bounds.p99_ms), key=lambda row: float(row[_THROUGHPUT]))
        return Analysis(
            wall_s,
            len(rows),
            len({row[_CONFIG] for row in rows}),
            (configs / pick[_CONFIG] / "config.pbtxt").read_text(encoding="utf-8"),
            int(pick[_CONCURRENCY]),
            float(pick[_THROUGHPUT]),
            float(pick[_P99]),
        )


def _server_script(folder: Path) -> Path:
    """The Triton that we use, as a program that needs nothing else."""
    triton, parts = find_triton(), folder / "triton"
    parts.mkdir()
    prepared = triton.prepare(parts)
    own = [f"--{kind}-address=127.0.0.1" for kind in ("http", "grpc", "metrics")]
    return _script(folder / "tritonserver", dict(prepared.environment), triton.binary, [*own, *prepared.arguments])


def _client_script(folder: Path, perf_analyzer: Path) -> Path:
    libraries = folder / "libraries"
    libraries.mkdir()
    return _script(folder / "perf_analyzer", library_path(libraries), perf_analyzer, [])


def _script(path: Path, environment: dict[str, str], program: Path, arguments: list[str]) -> Path:
    variables = [f"{name}={value}" for name, value in environment.items()]
    command = shlex.join(["env", *variables, str(program)])
    path.write_text(f'#!/bin/sh\nexec {command} "$@" {shlex.join(arguments)}\n', encoding="utf-8")
    path.chmod(0o755)
    return path
