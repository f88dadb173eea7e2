"""Writes `grids/law.json.gz`: a large space whose truth is a law with interactions, on a machine of 8 cores.

The law is modelled on an ONNX model that ONNX Runtime serves on a CPU. What each field does is that runtime's
documentation ("Thread management", "Graph optimizations"), and the README of Triton's onnxruntime backend:

- An execution of `b` inferences is `FIXED_MS + ITEM_MS * b` of work for one core, more without graph optimizations or
  without the memory arena.
- Intra-op threads share the parallel part of the work (Amdahl, 1967); larger batches have a larger parallel part. Each
  thread adds a barrier at every operator. By default, a session has a thread for each core.
- In parallel mode, inter-op threads run branches of the graph side by side, and multiply the threads of a session.
- Idle threads spin. So an execution occupies all threads of its session, and the executions of several instances slow
  each other down once their threads exceed the cores: `instances x intra-op threads x inter-op threads > cores`.
- Instances share the memory's bandwidth.
- `session.use_device_allocator_for_initializers` has no effect.

Triton's scheduler is simulated with these execution times (`search/twin/batcher.py`), at each load for each candidate.
The same law gives the same file.

    python benchmarks/law.py
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from grid import LAW_SPACE, Grid, recorded, space_of
from rich.progress import track

from tuner.config.config import ModelConfig
from tuner.core.loads import Concurrency
from tuner.core.machine import Machine
from tuner.core.record import Interval
from tuner.measure.client_view import ClientView
from tuner.measure.machine_load import MachineLoad
from tuner.measure.points import OperatingPoint, ServerBreakdown
from tuner.measure.server_resources import ServerResources
from tuner.measure.trial import TrialResult
from tuner.search.scheduling_map import SchedulingMap
from tuner.search.twin.batcher import Scenario, serve
from tuner.search.twin.scheduling import Scheduling
from tuner.space.candidate import Assignment
from tuner.space.space import SearchSpace

CORES = 8
LOADS = tuple(2**power for power in range(9))
FIXED_MS, ITEM_MS = 2.0, 1.5
# Share of the work that one thread must do alone: of a single inference, and of very large batches.
SERIAL, SERIAL_LARGE = 0.35, 0.1
BARRIER_MS, BANDWIDTH = 0.05, 0.03
# Share of the work in parallel branches, and how many there are.
BRANCHES, BRANCH_COUNT = 0.3, 2
# By `optimization.graph.level`: all (0), extended (1), none (2).
LEVELS = {0: 1.0, 1: 1.06, 2: 1.45}
NO_ARENA = 1.12
# Time of a request outside of the server, and between two answers of a batch.
AWAY_MS, ANSWER_MS = 0.2, 0.02
CONFIG = """\
backend: "onnxruntime"
max_batch_size: 16
input [ { name: "FEATURES" data_type: TYPE_FP32 dims: [ 256 ] } ]
output [ { name: "SCORES" data_type: TYPE_FP32 dims: [ 256 ] } ]
instance_group [ { kind: KIND_CPU count: 1 } ]
"""


@dataclass(frozen=True)
class Law:
    """The values of the parameters beside Triton's scheduler."""

    intra: int = CORES
    inter: int = 1
    level: int = 0
    arena: bool = True

    @classmethod
    def of(cls, assignment: Assignment) -> Law:
        """The values of an assignment."""
        text = {name: str(value) for name, value in assignment.items()}
        intra, inter = text["intra_op_thread_count"], text.get("inter_op_thread_count", "1")
        return cls(
            CORES if intra == "off" else int(intra),
            CORES if inter == "off" else int(inter),
            0 if text["graph.level"] == "off" else int(text["graph.level"]),
            text["enable_mem_arena"] != "0",
        )

    @property
    def threads(self) -> int:
        """Threads of a session, all of which spin."""
        return self.intra * self.inter

    def alone_ms(self, size: int) -> float:
        """Time of an execution beside no other, in ms."""
        work_ms = (FIXED_MS + ITEM_MS * size) * LEVELS[self.level] * (1 if self.arena else NO_ARENA)
        serial = SERIAL_LARGE + (SERIAL - SERIAL_LARGE) / size
        branches = BRANCHES / min(self.inter, BRANCH_COUNT) + 1 - BRANCHES
        share = serial + (1 - serial) / min(self.intra, CORES)
        return work_ms * share * branches + BARRIER_MS * (self.threads - 1) * self.crowded(1)

    def crowded(self, busy: int) -> float:
        """How much longer an execution takes, as its threads share the cores with those of other instances."""
        return max(1.0, busy * self.threads / CORES) * (1 + BANDWIDTH * (busy - 1))

    def service_ms(self, size: int, busy: int) -> float:
        """Time of an execution while so many instances are busy, in ms."""
        return self.alone_ms(size) * self.crowded(busy)


def main() -> None:
    """Write the grid."""
    grid = law_grid()
    path = recorded("law")
    grid.write(path)
    print(f"{path.relative_to(Path.cwd())}: {len(grid.trials)} candidates")


def law_grid() -> Grid:
    """Simulate every candidate."""
    machine = Machine(cpus=CORES, gpus=(), processor="")
    config = ModelConfig.parse(CONFIG, "law")
    space = space_of(LAW_SPACE, config, config, machine)
    schedulings, curves = SchedulingMap(space), dict[tuple[Scheduling, Law], tuple[OperatingPoint, ...]]()
    trials: list[TrialResult] = []
    others = [each for each in space.assignments() if each != space.baseline]
    for number, assignment in enumerate(track([space.baseline, *others], "law")):
        scheduling, law = schedulings.of(assignment)[0], Law.of(assignment)
        if (scheduling, law) not in curves:
            curves[scheduling, law] = tuple(operating_point(scheduling, law, load) for load in LOADS)
        trials.append(trial_of(space, number, assignment, curves[scheduling, law]))
    return Grid("law", f"a law, {CORES} cores", tuple(trials), spec=LAW_SPACE, machine_of_space=machine)


def trial_of(space: SearchSpace, number: int, assignment: Assignment, curve: tuple[OperatingPoint, ...]) -> TrialResult:
    """A trial that was not measured."""
    text = space.candidate(assignment).config.text
    return TrialResult(
        number=number,
        parameters=assignment,
        config=text,
        effective_config=text,
        curve=curve,
        failure=None,
        launch_s=1.0,
        first_answer_s=0.1,
        wall_s=20.0,
    )


def operating_point(scheduling: Scheduling, law: Law, concurrency: int) -> OperatingPoint:
    """What is measured of a scheduling under a load, without noise."""
    largest = scheduling.max_batch_size if scheduling.dynamic_batching else 1
    table_ms = [
        [law.service_ms(max(1, size), busy + 1) for busy in range(scheduling.instances)] for size in range(largest + 1)
    ]
    preferred = np.zeros(largest + 1, bool)
    preferred[-1] = True
    latency_ms = np.empty(max(400, 8 * concurrency))
    scenario = Scenario(
        service_ms=np.array(table_ms),
        spread=0.08,
        preferred=preferred,
        dynamic=scheduling.dynamic_batching,
        concurrency=concurrency,
        answer_ms=ANSWER_MS,
        away_ms=AWAY_MS,
        apart_ms=table_ms[-1][0] / concurrency,
        warm_up=50 + 2 * concurrency,
    )
    throughput, batch, busy = serve(scenario, latency_ms, 1)
    executions = throughput / batch
    service_ms = busy / executions * 1e3
    mean_ms = concurrency / throughput * 1e3
    cores = min(float(CORES), busy * law.threads)
    return OperatingPoint(
        load=Concurrency(concurrency),
        throughput=Interval.within_logs(throughput, 0.02),
        latency_ms={
            name: Interval.within_logs(float(np.quantile(latency_ms, share)), 0.05)
            for name, share in (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99))
        },
        requests=round(throughput),
        errors=0,
        window_s=1.0,
        client=ClientView(cpu=0.05),
        server=ServerBreakdown(
            inferences=round(1e3 * throughput),
            executions=round(1e3 * executions),
            queue_ms=max(0.0, mean_ms - service_ms - AWAY_MS - ANSWER_MS * (batch + 1) / 2),
            compute_input_ms=0.0,
            compute_infer_ms=service_ms,
            compute_output_ms=0.0,
            batches=_sizes(batch, 1e3 * executions, service_ms),
            wall_s=1e3,
            requests=round(1e3 * throughput),
        ),
        server_resources=ServerResources(cpu_cores=cores, memory_bytes=1 << 30),
        machine=MachineLoad(cores=CORES, idle_cores=CORES - cores, elsewhere_cores=0.0, stolen_cores=0.0),
    )


def _sizes(batch: float, executions: float, service_ms: float) -> dict[int, tuple[int, float]]:
    """Executions of the two sizes around the mean one."""
    small, share = math.floor(batch), batch - math.floor(batch)
    counts = {small: round((1 - share) * executions), small + 1: round(share * executions)}
    return {size: (count, service_ms) for size, count in counts.items() if count}


if __name__ == "__main__":
    main()
