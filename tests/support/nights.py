"""Nights, measurements and job files for tests that need no server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from support.builders import MLP, interval, point

from tuner.core.loads import Concurrency
from tuner.core.slo import SLO
from tuner.measure.machine_speed import MachineSpeed
from tuner.measure.points import OperatingPoint
from tuner.nightly.comparison import Comparison, PairedLaunch
from tuner.nightly.drift import PastMeasurement
from tuner.nightly.history import Night
from tuner.nightly.measured import Conditions, Measured, config_fingerprint
from tuner.stats.slo_verdict import SLOTest

LIMIT = SLO({"p99": 25.0})


def measured(throughput: float = 100.0, p99: float = 10.0, **changes: Any) -> Measured:
    values: dict[str, Any] = {
        "concurrency": 8,
        "throughput": interval(throughput),
        "p99_ms": interval(p99, 0.05),
        "launches": 4,
        "turns_per_us": 80.0,
        "cpu_cores": 1.0,
    }
    return Measured.model_validate({**values, **changes})


def past(*throughputs: float, files: str = "abc", regression: bool = False, **changes: Any) -> list[PastMeasurement]:
    return [
        PastMeasurement(
            f"2026-01-{number:02d}T03:00:00+00:00", measured(value, 1000 / value, **changes), files, regression
        )
        for number, value in enumerate(throughputs, start=1)
    ]


def conditions(**changes: Any) -> Conditions:
    values = {
        "repository": "/models",
        "model": "mlp",
        "config": config_fingerprint(MLP),
        "hardware": "2 CPU cores, no GPU",
        "server": "tritonserver 2.51.0",
        "requests": "{}",
    }
    return Conditions.model_validate({**values, **changes})


def night(day: int = 1, **changes: Any) -> Night:
    about = conditions(**{name: changes[name] for name in ("repository", "model") if name in changes})
    values: dict[str, Any] = {
        "night": f"2026-01-{day:02d}T03:00:00+00:00",
        "repository": "/models",
        "model": "mlp",
        "slo": "p99 <= 25 ms",
        "outcome": "kept",
        "reason": "the search found nothing better",
        "duration_s": 61.5,
        "files": "abc",
        "folder": "/work/nights/1",
        "conditions": about,
        "deployed": measured(),
    }
    return Night.model_validate({**values, **changes})


def launch_at(*levels: tuple[int, float], over: int = 0, requests: int = 2000, errors: int = 0) -> PairedLaunch:
    """One launch: for each concurrency a throughput, and as many requests over the limit of 25 ms."""
    return PairedLaunch(
        points=tuple(_tested(point(load, rate, errors=errors), over, requests) for load, rate in levels)
    )


def comparison(ratios: list[float], *, slo: SLO = LIMIT, over: int = 0, failure: str | None = None) -> Comparison:
    """Pairs at concurrency 8, in which the candidate has so many times the throughput."""
    return Comparison(
        slo=slo,
        loads=(Concurrency(8),),
        deployed=tuple(launch_at((8, 100.0)) for _ in ratios),
        candidate=tuple(launch_at((8, 100.0 * ratio), over=over) for ratio in ratios),
        failure=failure,
    )


def jobs_file(path: Path, *jobs: dict[str, Any], **settings: Any) -> Path:
    """Write a job file."""
    path.write_text(yaml.safe_dump({"jobs": list(jobs), **settings}))
    return path


def _tested(made: OperatingPoint, over: int, requests: int) -> OperatingPoint:
    test = SLOTest(percentile="p99", limit_ms=25.0, requests=requests, over=over, design_effect=1.0)
    speed = MachineSpeed(turns_per_us=80.0, wander=0.01)
    return made.model_copy(update={"limits": (test,), "machine_speed": speed})
