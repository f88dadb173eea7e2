"""`tritontune estimate`: the configs and hosts that a load needs, estimated from a finished run."""

from __future__ import annotations

from pathlib import Path

import click
from rich import box
from rich.console import Console
from rich.table import Table

from tuner.analysis.capacity import Capacity, capacities
from tuner.cli.stored import one_model, parsed_slo
from tuner.core.errors import JobError, SLOError
from tuner.core.json_text import json_text
from tuner.core.quantities import format_number
from tuner.core.record import Interval
from tuner.core.slo import SLO
from tuner.options.groups import HIGHEST_RATE
from tuner.report.results_console import USUAL_WIDTH, results_console
from tuner.results.words import class_in_words
from tuner.space.candidate import in_words
from tuner.study.run_folder import RunFolder
from tuner.study.study import Study

_SHOWN = 5


def estimate(run_dir: Path, model: str | None, rate: str, slo: tuple[str, ...], *, as_json: bool) -> None:
    """Print which configs hold a rate within an SLO, and how many hosts, instances and GPUs each needs.

    Raises:
        JobError: the run, the model, the rate or the SLO is wrong.
        SLOError: no candidate is expected to hold the SLO, on any number of hosts.
    """
    run = RunFolder.existing(run_dir)
    stored = Study.models(run.database)
    study = Study.load(run.database, one_model(model, stored, run_dir))
    if not study.trials:
        raise JobError(f"{run_dir}: no trial of model {study.identity.model!r} has finished yet")
    wanted = _rate(rate)
    limit = parsed_slo(slo) if slo else study.identity.slo
    with Console(stderr=True).status("simulating what was not measured"):
        needed = capacities(study, wanted, limit)
    if not needed:
        raise SLOError(f"no candidate of {study.identity.model} is expected to hold {limit} at any rate")
    if as_json:
        click.echo(json_text(_as_json(study, wanted, limit, needed), indent=2))
    else:
        _show(study, wanted, limit, needed[:_SHOWN])


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate <= HIGHEST_RATE:
        raise JobError(f"--rate: must be a number > 0 and <= {HIGHEST_RATE:,.0f} (requests/s), got {text!r}")
    return rate


def _show(study: Study, rate: float, slo: SLO, needed: tuple[Capacity, ...]) -> None:
    best, baseline = needed[0], study.space.baseline
    console = results_console(USUAL_WIDTH)
    hosts = _hosts(best, f" host{'s' * (best.hosts > 1)}")
    _say(console, f"{format_number(rate)} requests/s within {slo}: {hosts} with {in_words(best.parameters, baseline)}")
    console.print(_table(slo, needed))
    for number, capacity in enumerate(needed, start=1):
        _say(console, f"  {number}: {in_words(capacity.parameters, baseline)} ({_known_from(capacity)})")
    trials, like = len(study.trials), class_in_words(study.hosts) or "hosts like the measured one"
    _say(
        console,
        f"\nEstimated from {trials} trial{'s' * (trials > 1)}, for {like} that share Poisson "
        "arrivals evenly; 95 % intervals in parentheses.",
    )
    if any(capacity.most is None for capacity in needed):
        _say(console, f"?: this config may not hold {slo} at any rate.")


def _known_from(capacity: Capacity) -> str:
    if capacity.trial is not None:
        return f"trial {capacity.trial}{', the baseline' * (capacity.trial == 0)}"
    return f"simulated, {capacity.beyond}: launch one to be sure" if capacity.beyond else "simulated"


def _table(slo: SLO, needed: tuple[Capacity, ...]) -> Table:
    """A table with a row for each config; the numbers refer to the lines below the table."""
    table = Table(box=box.SIMPLE_HEAD)
    gpus = any(capacity.gpus for capacity in needed)
    of_a_host = ("a host holds up to\nrequests/s", f"at its share\n{slo.percentile} ms")
    for column in ("", "hosts", "instances", *(["GPUs"] if gpus else []), *of_a_host):
        table.add_column(column, justify="right", no_wrap=True)
    for number, capacity in enumerate(needed, start=1):
        table.add_row(
            str(number),
            _hosts(capacity),
            f"{capacity.hosts * capacity.instances:,}",
            *([f"{capacity.hosts * capacity.gpus:,}"] if gpus else []),
            _interval(capacity.rate),
            _interval(capacity.latency_ms),
        )
    return table


def _hosts(capacity: Capacity, unit: str = "") -> str:
    most = "?" if capacity.most is None else f"{capacity.most:,}"
    return f"{capacity.hosts:,}{unit} ({capacity.fewest:,} to {most})"


def _interval(interval: Interval) -> str:
    value, low, high = map(format_number, (interval.value, interval.low, interval.high))
    return f"{value} ({low} to {high})"


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _as_json(study: Study, rate: float, slo: SLO, needed: tuple[Capacity, ...]) -> dict[str, object]:
    return {
        "schema": 1,
        "model": study.identity.model,
        "request_rate": rate,
        "slo": {f"{limit.key}_ms": limit.limit_ms for limit in slo.limits},
        "configs": [
            {
                "parameters": dict(capacity.parameters),
                "trial": capacity.trial,
                "beyond": capacity.beyond or None,
                "hosts": {"value": capacity.hosts, "low": capacity.fewest, "high": capacity.most},
                "instances": capacity.hosts * capacity.instances,
                "gpus": capacity.hosts * capacity.gpus,
                "request_rate_a_host": capacity.rate.model_dump(),
                "latency_ms": {slo.percentile: capacity.latency_ms.model_dump()},
            }
            for capacity in needed
        ],
    }
