"""An exhaustive grid: the truth that searches are replayed against, recorded on a real Triton or made from a law."""

from __future__ import annotations

import gzip
import json
import math
import statistics
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.config.config import ModelConfig
from tuner.core.loads import Concurrency
from tuner.core.machine import Machine
from tuner.core.record import Interval
from tuner.core.slo import PERCENTILES
from tuner.measure.client_view import ClientView
from tuner.measure.machine_load import MachineLoad
from tuner.measure.machine_speed import FOLLOWS
from tuner.measure.points import OperatingPoint, ServerBreakdown
from tuner.measure.server_resources import ServerResources
from tuner.measure.trial import TrialResult
from tuner.space.candidate import Assignment, key_of
from tuner.space.parameter import is_number
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
    # ONNX Runtime: threads and instances get in each other's way.
    "ort": Path(__file__).parent / "models",
}
SIMULATED = ("law",)
"""Models without a repository: `law.py` makes their grids."""
AGAIN = "ort-2"
"""The second recording of the grid `ort`."""
_TIMES = ("queue_ms", "compute_input_ms", "compute_infer_ms", "compute_output_ms")
_BATCHING: dict[str, Any] = {
    "dynamic_batching": {"ladder": ["off", "on"]},
    "max_batch_size": {"ladder": [4, 8, 16, 32, 64]},
    "dynamic_batching.max_queue_delay_microseconds": {"ladder": ["off", 2000]},
    "instance_group.count": {"field": "instance_group[*].count", "ladder": [1, 2, 3, 4]},
}


def _named(name: str, ladder: list[Any], when: dict[str, list[Any]] | None = None) -> dict[str, Any]:
    return {"field": f'parameters["{name}"].string_value', "ladder": ladder, "when": when or {}}


SPACE = SpaceSpec.model_validate({"schema": 1, "parameters": _BATCHING})
LAW_SPACE = SpaceSpec.model_validate(
    {
        "schema": 1,
        "parameters": {
            **_BATCHING,
            "max_batch_size": {"ladder": [4, 16, 64]},
            "dynamic_batching.max_queue_delay_microseconds": {"ladder": ["off"]},
            "instance_group.count": {"field": "instance_group[*].count", "ladder": [1, 2, 4, 8]},
            "intra_op_thread_count": _named("intra_op_thread_count", ["off", "1", "2", "4"]),
            "execution_mode": _named("execution_mode", ["off", "1"]),
            "inter_op_thread_count": _named("inter_op_thread_count", ["off", "2"], {"execution_mode": ["1"]}),
            "graph.level": {"field": "optimization.graph.level", "ladder": ["off", 1, 2]},
            "enable_mem_arena": _named("enable_mem_arena", ["off", "0"]),
            "device_allocator": _named("session.use_device_allocator_for_initializers", ["off", "1"]),
        },
    }
)
ORT_SPACE = SpaceSpec.model_validate(
    {
        "schema": 1,
        "parameters": {
            **_BATCHING,
            "max_batch_size": {"ladder": [4, 16, 64]},
            "dynamic_batching.max_queue_delay_microseconds": {"ladder": ["off"]},
            "intra_op_thread_count": _named("intra_op_thread_count", ["off", "1", "2"]),
            "execution_mode": _named("execution_mode", ["off", "parallel"]),
            "graph_level": _named("graph_level", ["off", "basic", "none"]),
            "spinning": _named("spinning", ["off", "0"]),
        },
    }
)
SPACES = {"law": LAW_SPACE, "ort": ORT_SPACE}
"""Spaces of the models that have parameters which the simulator does not know; the others have `SPACE`."""
ANY_MACHINE = Machine(cpus=None, gpus=(), processor="")
"""The machine of the recorded grids: its spaces have no bounds by processors."""


@dataclass(frozen=True)
class Grid:
    """Every candidate of a space, measured.

    Attributes:
        model: Its name.
        machine: Where that was.
        trials: The baseline first.
        launch_off: By how much throughput and p99 of a pass are off the geometric mean of the others', as logarithms,
            in the median: what one launch tells of another of the same candidate. Zeros for a single pass.
        spec: The space.
        machine_of_space: The machine that the space is fitted to.
    """

    model: str
    machine: str
    trials: tuple[TrialResult, ...]
    launch_off: tuple[float, float] = (0.0, 0.0)
    spec: SpaceSpec = SPACE
    machine_of_space: Machine = field(default=ANY_MACHINE)

    @cached_property
    def space(self) -> SearchSpace:
        """The space that it fills."""
        effective = ModelConfig.parse(self.trials[0].effective_config or "", "the effective config")
        base = ModelConfig.parse(self.trials[0].config, "the baseline")
        return space_of(self.spec, base, effective, self.machine_of_space)

    @property
    def highest(self) -> int:
        """The highest load."""
        return int(max(point.load.level for point in self.trials[0].curve))

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
        return replace(first, trials=tuple(trials), launch_off=(float(throughput), float(latency)))

    def write(self, path: Path) -> None:
        """Put it into a file, without what no search looks at."""
        first = self.trials[0]
        content = {
            "model": self.model,
            "machine": self.machine,
            "cpus": self.machine_of_space.cpus,
            "launch_off": self.launch_off,
            "space": self.spec.model_dump(mode="json"),
            "config": first.config,
            "effective_config": first.effective_config,
            "trials": [{"parameters": dict(t.parameters), "curve": list(map(_stored, t.curve))} for t in self.trials],
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
        off = tuple(content["launch_off"])
        if "space" not in content:  # the first three grids have their trials whole
            trials = tuple(map(TrialResult.model_validate, content["trials"]))
            return cls(content["model"], content["machine"], trials, off)
        spec = SpaceSpec.model_validate(content["space"])
        machine = replace(ANY_MACHINE, cpus=content["cpus"])
        base = ModelConfig.parse(content["config"], "the baseline")
        effective = ModelConfig.parse(content["effective_config"], "the effective config")
        space = space_of(spec, base, effective, machine)
        first, *others = (_trial(space, number, stored) for number, stored in enumerate(content["trials"]))
        first = first.model_copy(update={name: content[name] for name in ("config", "effective_config")})
        return cls(content["model"], content["machine"], (first, *others), off, spec, machine)

    def pooled(self, alike: Callable[[Assignment, float], Hashable], *passes: Grid) -> Grid:
        """The grid with the medians of points that differ by chance only: those for which `alike` is equal.

        Args:
            alike: Takes an assignment and a load.
            passes: Further recordings of the same grid, whose points count as well.
        """
        groups: dict[Hashable, list[OperatingPoint]] = {}
        for trial in (trial for grid in (self, *passes) for trial in grid.trials):
            for point in trial.curve:
                groups.setdefault(alike(trial.parameters, point.load.level), []).append(point)
        medians = {key: _median(points) for key, points in groups.items()}

        def curve(trial: TrialResult) -> tuple[OperatingPoint, ...]:
            return tuple(medians[alike(trial.parameters, point.load.level)] for point in trial.curve)

        return replace(self, trials=tuple(trial.model_copy(update={"curve": curve(trial)}) for trial in self.trials))

    def launched(self, assignment: Assignment) -> TrialResult:
        """The trial of a candidate, with its configs, which `read` leaves out of most."""
        trial = self.by_assignment[key_of(assignment)]
        if trial.effective_config:
            return trial
        text = self.space.candidate(assignment).config.text
        return trial.model_copy(update={"config": text, "effective_config": text})


def space_of(spec: SpaceSpec, base: ModelConfig, effective: ModelConfig, machine: Machine) -> SearchSpace:
    """The space of a model whose baseline is known."""
    return SearchSpace.build(spec, base, effective, machine)


def alike_in_ort(assignment: Assignment, load: float) -> Hashable:
    """What matters of a candidate of `ort` under a load.

    Batches are no larger than the load. Graph levels differ by 4 % in the mean of 192 pairs. On two cores, two threads
    only differ from the default by their affinity, which matters for threads that spin. Single pairs differ by 30 %.

    This rule was made after the first recording. By the second one, such candidates differ by chance only: who was
    quicker than the others in the first is not so in the second (`agreement`).
    """
    left = {name: value for name, value in assignment.items() if name != "graph_level"}
    size = left.get("max_batch_size")
    if size is not None and is_number(size):
        left["max_batch_size"] = min(size, load)
    if left["spinning"] == "0" and left["intra_op_thread_count"] == "2":
        left["intra_op_thread_count"] = "off"
    return load, key_of(left)


def agreement(one: Grid, other: Grid, alike: Callable[[Assignment, float], Hashable]) -> tuple[float, float]:
    """Whether two recordings agree on how alike candidates differ: correlations of throughput and of p99.

    1: all differences are real; 0: they differ by chance only. Differences are those from the mean of all alike ones.
    """
    groups: dict[Hashable, list[list[NDArray[np.float64]]]] = {}
    for trial in one.trials:
        for points in zip(trial.curve, other.by_assignment[key_of(trial.parameters)].curve, strict=True):
            both = [np.log([each.throughput.value, each.latency_ms["p99"].value]) for each in points]
            groups.setdefault(alike(trial.parameters, points[0].load.level), []).append(both)
    apart = np.concatenate([each - np.mean(each, axis=0) for each in map(np.array, groups.values())])
    throughput, latency = (np.corrcoef(apart[..., column].T)[0, 1] for column in (0, 1))
    return float(throughput), float(latency)


def _stored(point: OperatingPoint) -> list[Any]:
    """A point as a short list, rounded."""
    server, resources = point.server, point.server_resources
    batches = {size: (count, _rounded(ms)) for size, (count, ms) in server.batches.items()} if server else {}
    compute_ms = server.compute_input_ms + server.compute_infer_ms + server.compute_output_ms if server else 0.0
    return [
        int(point.load.level),
        _rounded(point.throughput.value),
        _rounded(point.throughput.log_half_width),
        [_rounded(point.latency_ms[name].value) for name in PERCENTILES],
        [_rounded(point.latency_ms[name].log_half_width) for name in PERCENTILES],
        point.requests,
        _rounded(server.queue_ms) if server else 0.0,
        _rounded(compute_ms),
        _rounded(server.wall_s or 0.0) if server else 0.0,
        batches,
        _rounded(resources.cpu_cores) if resources else 0.0,
        point.machine.cores if point.machine else 0,
        _rounded(point.client.cpu),
    ]


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _trial(space: SearchSpace, number: int, stored: dict[str, Any]) -> TrialResult:
    assignment = space.recall(stored["parameters"])
    return TrialResult(
        number=number,
        parameters=assignment,
        config="",
        effective_config=None,
        curve=tuple(map(_point, stored["curve"])),
        failure=None,
        launch_s=1.0,
        first_answer_s=0.1,
        wall_s=10.0,
    )


def _point(stored: list[Any]) -> OperatingPoint:
    load, throughput, width, latencies, widths, requests, queue_ms, compute_ms, wall_s, by_size, busy, cores, cpu = (
        stored
    )
    batches = {int(size): (int(count), float(ms)) for size, (count, ms) in by_size.items()}
    server = ServerBreakdown(
        inferences=sum(size * count for size, (count, _) in batches.items()),
        executions=sum(count for count, _ in batches.values()),
        queue_ms=queue_ms,
        compute_input_ms=0.0,
        compute_infer_ms=compute_ms,
        compute_output_ms=0.0,
        batches=batches,
        wall_s=wall_s,
        requests=requests,
    )
    machine = MachineLoad(cores=cores, idle_cores=max(0.0, cores - busy), elsewhere_cores=0.0, stolen_cores=0.0)
    return OperatingPoint(
        load=Concurrency(load),
        throughput=Interval.within_logs(throughput, width),
        latency_ms={
            name: Interval.within_logs(value, half)
            for name, value, half in zip(PERCENTILES, latencies, widths, strict=True)
        },
        requests=requests,
        errors=0,
        window_s=1.0,
        client=ClientView(cpu=cpu),
        server=server if batches else None,
        server_resources=ServerResources(cpu_cores=busy, memory_bytes=1 << 30) if busy else None,
        machine=machine if cores else None,
    )


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
