"""An exhaustive grid, recorded on a real Triton: the truth that searches are replayed against."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tuner.machine import Machine
from tuner.measure.points import OperatingPoint
from tuner.measure.record import Interval
from tuner.models.config import ModelConfig
from tuner.space.candidate import key_of
from tuner.space.space import SearchSpace
from tuner.space.spec import LadderValue, SpaceSpec
from tuner.trial import TrialResult

GRIDS = Path(__file__).parent / "grids"
MODELS = {
    # Batches pay; so do instances, as far as there are cores.
    "mlp": Path(__file__).parents[1] / "examples" / "model_repository",
    # Batches gain nothing, instances do.
    "itemwise": Path(__file__).parent / "models",
    # Instances get in each other's way.
    "contended": Path(__file__).parent / "models",
}
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
    """

    model: str
    machine: str
    trials: tuple[TrialResult, ...]

    @cached_property
    def space(self) -> SearchSpace:
        """The space that it fills."""
        effective = ModelConfig.parse(self.trials[0].effective_config or "", "the effective config")
        base = ModelConfig.parse(self.trials[0].config, "the config as it is")
        return SearchSpace.build(SPACE, base, effective, Machine(cpus=None, gpus=(), processor=""))

    @cached_property
    def by_assignment(self) -> dict[tuple[tuple[str, LadderValue], ...], TrialResult]:
        """The trials by what they are of."""
        return {key_of(trial.parameters): trial for trial in self.trials}

    @classmethod
    def median(cls, passes: Sequence[Grid]) -> Grid:
        """Of several passes, at each load the medians of throughput and of each percentile of the latency.

        All else of a point is that of the pass with the median throughput.
        """
        first = passes[0]
        trials = []
        for trial in first.trials:
            curves = [each.by_assignment[key_of(trial.parameters)].curve for each in passes]
            curve = tuple(_median(points) for points in zip(*curves, strict=True))
            trials.append(trial.model_copy(update={"curve": curve}))
        return cls(first.model, first.machine, tuple(trials))

    def write(self, path: Path) -> None:
        """Put it into a file."""
        content = {
            "model": self.model,
            "machine": self.machine,
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
        return cls(content["model"], content["machine"], tuple(map(TrialResult.model_validate, content["trials"])))


def recorded(model: str, folder: Path = GRIDS) -> Path:
    """Where the grid of a model lies."""
    return folder / f"{model}.json.gz"


def _median(points: Sequence[OperatingPoint]) -> OperatingPoint:
    middle = sorted(points, key=lambda point: point.throughput.value)[len(points) // 2]
    latency_ms = {name: _middle([p.latency_ms[name] for p in points]) for name in middle.latency_ms}
    return middle.model_copy(update={"latency_ms": latency_ms})


def _middle(intervals: Sequence[Interval]) -> Interval:
    return sorted(intervals, key=lambda interval: interval.value)[len(intervals) // 2]
