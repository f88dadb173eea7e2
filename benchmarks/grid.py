"""An exhaustive grid, recorded on a real Triton: the truth that searches are replayed against."""

from __future__ import annotations

import gzip
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tuner.config.config import ModelConfig
from tuner.core.machine import Machine
from tuner.core.record import Interval
from tuner.measure.machine_speed import FOLLOWS
from tuner.measure.points import OperatingPoint
from tuner.measure.trial import TrialResult
from tuner.space.candidate import key_of
from tuner.space.space import SearchSpace
from tuner.space.spec import LadderValue, SpaceSpec

GRIDS = Path(__file__).parent / "grids"
MODELS = {
    # Batches pay; so do instances, as far as there are cores.
    "mlp": Path(__file__).parents[1] / "examples" / "model_repository",
    # Batches gain nothing, instances do.
    "itemwise": Path(__file__).parent / "models",
    # Instances get in each other's way.
    "contended": Path(__file__).parent / "models",
}
_TIMES = ("queue_ms", "compute_input_ms", "compute_infer_ms", "compute_output_ms")
SPACE = SpaceSpec.model_validate(
    {
        "schema": 1,
        "parameters": {
            "dynamic_batching": {"ladder": ["off", "on"]},
            "max_batch_size": {"ladder": [4, 8, 16, 32, 64]},
            "dynamic_batching.max_queue_delay_microseconds": {"ladder": ["off", 2000]},
            "instance_group.count": {"field": "instance_group[*].count", "ladder": [1, 2, 3, 4]},
        },
    }
)


@dataclass(frozen=True)
class Grid:
    """Every candidate of `SPACE`, measured.

    Attributes:
        model: Its name.
        machine: Where that was.
        trials: The baseline first.
        launch_off: By how much throughput and p99 of a pass are off the geometric mean of the others', as logarithms,
            in the median: what one launch tells of another of the same candidate. Zeros for a single pass.
    """

    model: str
    machine: str
    trials: tuple[TrialResult, ...]
    launch_off: tuple[float, float] = (0.0, 0.0)

    @cached_property
    def space(self) -> SearchSpace:
        """The space that it fills."""
        effective = ModelConfig.parse(self.trials[0].effective_config or "", "the effective config")
        base = ModelConfig.parse(self.trials[0].config, "the baseline")
        return SearchSpace.build(SPACE, base, effective, Machine(cpus=None, gpus=(), processor=""))

    @cached_property
    def by_assignment(self) -> dict[tuple[tuple[str, LadderValue], ...], TrialResult]:
        """The trials by what they are of."""
        return {key_of(trial.parameters): trial for trial in self.trials}

    @classmethod
    def median(cls, passes: Sequence[Grid]) -> Grid:
        """Of several passes, at each load the medians of throughput and of each percentile of the latency.

        All else of a point is that of the pass with the median throughput; intervals are as much narrower as the median
        of so many normal deviates is. Each launch counts as if the machine had been as fast as it is in the median.
        """
        speeds = [speed for each in passes for trial in each.trials if (speed := _speed(trial))]
        usual = statistics.median(speeds or [1.0])
        first = passes[0]
        trials: list[TrialResult] = []
        off: list[NDArray[np.float64]] = []
        for trial in first.trials:
            launches = [each.by_assignment[key_of(trial.parameters)] for each in passes]
            curves = [_at_speed(launch, usual).curve for launch in launches]
            loads = list(zip(*curves, strict=True))
            off += map(_off, loads)
            trials.append(trial.model_copy(update={"curve": tuple(map(_median, loads))}))
        throughput, latency = np.median(np.concatenate(off), axis=0)
        return cls(first.model, first.machine, tuple(trials), (float(throughput), float(latency)))

    def write(self, path: Path) -> None:
        """Put it into a file."""
        content = {
            "model": self.model,
            "machine": self.machine,
            "launch_off": self.launch_off,
            "trials": [t.model_dump(mode="json") for t in self.trials],
        }
        # No time of day in it: the same grid gives the same file.
        path.write_bytes(gzip.compress(json.dumps(content, separators=(",", ":")).encode(), mtime=0))

    @classmethod
    def of(cls, model: str) -> Grid:
        """The recorded grid of a model."""
        return cls.read(recorded(model))

    @classmethod
    def read(cls, path: Path) -> Grid:
        """What `write` has put there."""
        content = json.loads(gzip.decompress(path.read_bytes()))
        trials = tuple(map(TrialResult.model_validate, content["trials"]))
        return cls(content["model"], content["machine"], trials, tuple(content["launch_off"]))


def recorded(model: str, folder: Path = GRIDS) -> Path:
    """Where the grid of a model lies."""
    return folder / f"{model}.json.gz"


def slower(point: OperatingPoint, factor: float) -> OperatingPoint:
    """What would have been measured, had all taken so many times as long."""
    server = point.server
    if server is not None:
        batches = {size: (count, ms * factor) for size, (count, ms) in server.batches.items()}
        times = {name: getattr(server, name) * factor for name in _TIMES}
        wall_s = server.wall_s * factor if server.wall_s else None
        server = server.model_copy(update={"batches": batches, "wall_s": wall_s, **times})
    return point.model_copy(
        update={
            "throughput": point.throughput.times(1 / factor),
            "latency_ms": {name: interval.times(factor) for name, interval in point.latency_ms.items()},
            "server": server,
        }
    )


def _speed(trial: TrialResult) -> float | None:
    """Of the machine, while a candidate was measured."""
    speeds = [point.machine_speed.turns_per_us for point in trial.curve if point.machine_speed]
    return statistics.median(speeds) if speeds else None


def _at_speed(trial: TrialResult, usual: float) -> TrialResult:
    """As it would have been on the machine at its usual speed, where it tells the one that it had."""
    factor = ((_speed(trial) or usual) / usual) ** FOLLOWS
    return trial.model_copy(update={"curve": tuple(slower(point, factor) for point in trial.curve)})


def _off(points: Sequence[OperatingPoint]) -> NDArray[np.float64]:
    """By how much each point's throughput and p99 are off the means of the others', as logarithms."""
    if len(points) < 2:
        return np.zeros((1, 2))
    logs = np.log([[p.throughput.value, p.latency_ms["p99"].value] for p in points])
    # What a value is off the others' mean is what it is off the mean of all, times n / (n - 1).
    apart: NDArray[np.float64] = np.abs(logs - logs.mean(axis=0)) * len(points) / (len(points) - 1)
    return apart


def _median(points: Sequence[OperatingPoint]) -> OperatingPoint:
    middle = sorted(points, key=lambda point: point.throughput.value)[len(points) // 2]
    throughput = _middle([p.throughput for p in points])
    latency_ms = {name: _middle([p.latency_ms[name] for p in points]) for name in middle.latency_ms}
    return middle.model_copy(update={"throughput": throughput, "latency_ms": latency_ms})


def _middle(intervals: Sequence[Interval]) -> Interval:
    middle = sorted(intervals, key=lambda interval: interval.value)[len(intervals) // 2]
    narrower = min(1.0, math.sqrt(math.pi / 2 / len(intervals)))
    return Interval.within_logs(middle.value, narrower * middle.log_half_width)
