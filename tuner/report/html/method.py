"""The section on how a study was measured."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from tuner.core.quantities import format_duration, format_size
from tuner.core.redaction import HIDDEN, without_secrets
from tuner.report.html.symbols import in_symbols
from tuner.space.spec import SpaceSpec
from tuner.study.provenance import Provenance
from tuner.study.study import Study

NOT_KNOWN = "unknown"


@dataclass(frozen=True)
class Detail:
    """One line of the section.

    Attributes:
        term: Its label.
        value: Its text.
        code: Whether to show the text as code.
    """

    term: str
    value: str
    code: bool = False


def how_it_was_measured(study: Study) -> tuple[Detail, ...]:
    """The lines on model, server, machine, versions, commands, and quality of the measurement."""
    runs = study.runs
    return (*_what(study), *_where(study, runs[-1] if runs else None), *_how(runs), *_trust(study))


def _what(study: Study) -> Iterator[Detail]:
    asked = study.identity
    yield Detail("Model", f"{asked.model}, of {without_secrets(asked.repository)}")
    yield Detail("Fingerprint of the model files", asked.files, code=True)
    yield Detail("Objective", str(asked.objective))
    yield Detail("SLO", in_symbols(str(asked.slo)))
    if asked.max_gpu_memory is not None:
        yield Detail("Limit on GPU memory", format_size(asked.max_gpu_memory))
    rate = asked.objective.rate
    load = "closed loop of rising concurrency" if rate is None else f"Poisson arrivals at {rate:g} requests/s"
    yield Detail("Load", f"{load}; {_requests(study)}")
    tolerance = asked.output_tolerance
    yield Detail("Outputs", "not compared" if tolerance is None else f"compared, floats within {tolerance:.3%}")
    varied = (study.composed_space or SpaceSpec.model_validate_json(asked.space)).parameters
    yield Detail("Search space", ", ".join(varied))
    yield Detail("Seed", str(asked.seed))


def _requests(study: Study) -> str:
    sent = dict(study.identity.requests)
    if given := sent.get("request_parameter"):
        sent["request_parameter"] = dict.fromkeys(given, HIDDEN)
    batch = next((point.batch_size for trial in study.trials for point in trial.curve), 1)
    size = f"requests of {batch} inference{'s' * (batch != 1)}"
    return f"{size}, {without_secrets(json.dumps(sent, ensure_ascii=False))}" if sent else f"{size}, random inputs"


def _where(study: Study, run: Provenance | None) -> Iterator[Detail]:
    asked = study.identity
    yield Detail("Triton", without_secrets(asked.server))
    yield Detail("Server machine", asked.machine)
    yield Detail("GPU", ", ".join(run.gpus) or "none" if run else _gpus_in_use(study) or NOT_KNOWN)
    yield Detail("NVIDIA driver", asked.driver or "none or unknown")
    if run:
        memory = f", {format_size(run.memory_bytes)} of memory" if run.memory_bytes else ""
        yield Detail("Where tritontune ran", f"{run.processor or 'unknown processor'}{memory}; {run.system}")
    else:
        yield Detail("Where tritontune ran", NOT_KNOWN)


def _gpus_in_use(study: Study) -> str:
    views = [view.gpu for t in study.trials for p in t.curve if p.gpu for view in p.gpu.gpus]
    return ", ".join(dict.fromkeys(views))


def _how(runs: tuple[Provenance, ...]) -> Iterator[Detail]:
    if not runs:
        yield Detail("Versions, time and command", f"{NOT_KNOWN}: an older version of tritontune measured this")
        return
    last = runs[-1]
    packages = ", ".join(f"{name} {version}" for name, version in last.packages.items())
    yield Detail("Versions", f"tritontune {last.tritontune}, Python {last.python}, {packages}")
    for number, run in enumerate(runs):
        yield Detail("Resumed" if number else "Begun", f"{run.began}, with a budget of {format_duration(run.budget_s)}")
        yield Detail("Command", run.command, code=True)


def _trust(study: Study) -> Iterator[Detail]:
    """The quality of the measurements."""
    points = [point for trial in study.trials for point in trial.curve]
    if not points:
        return
    count = sum(bool(point.warnings) for point in points)
    yield Detail("Points with quality warnings", f"{count} of {len(points)}")
    wander = [point.machine_speed.wander for point in points if point.machine_speed]
    if wander:
        middle = sorted(wander)[len(wander) // 2]
        yield Detail("Machine speed", f"varied by {middle:.1%} (median over the points); the intervals include this")
