"""`tritontune estimate`: what it would take to hold a load, from a finished run and without a server."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich import box
from rich.console import Console
from rich.table import Table

from tuner.commands.stored import check_models, parsed_slo
from tuner.errors import JobError, SLOError
from tuner.quantities import format_ms, format_number
from tuner.run_folder import RunFolder
from tuner.search.capacity import Capacity, capacities
from tuner.search.study import Study
from tuner.slo import SLO
from tuner.space.candidate import in_words

_SHOWN = 5


def estimate(run_dir: Path, model: str | None, rate: str, slo: tuple[str, ...], *, as_json: bool) -> None:
    """Print which configs would hold a rate within a limit, and how many hosts, instances and GPUs each takes.

    Raises:
        JobError: there is no such run or model, or what is asked is wrong.
        SLOError: no candidate would hold the limit, however many hosts there were.
    """
    run = RunFolder.existing(run_dir)
    known = Study.models(run.database)
    if model is None and len(known) != 1:
        raise JobError(f"{run_dir} holds several models; choose one with --model: {', '.join(known)}")
    check_models([model] if model else [], known, run_dir)
    study = Study.load(run.database, model or known[0])
    wanted = _rate(rate)
    limit = parsed_slo(slo) if slo else study.identity.slo
    found = capacities(study, wanted, limit)
    if not found:
        raise SLOError(f"no candidate of {study.identity.model} is expected to hold {limit} at any rate")
    if as_json:
        click.echo(json.dumps(_as_json(study, wanted, limit, found), indent=2))
    else:
        _show(study, wanted, limit, found[:_SHOWN])


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise JobError(f"--rate: {text!r} is no number of requests a second, such as 800")
    return rate


def _show(study: Study, rate: float, slo: SLO, found: tuple[Capacity, ...]) -> None:
    best = found[0]
    console = Console(width=max(100, Console().width))
    hosts = f"{best.hosts} host{'s' * (best.hosts > 1)} ({best.fewest} to {best.most})"
    console.print(
        f"{format_number(rate)} requests/s within {slo}: {hosts} with {in_words(best.parameters)}",
        highlight=False,
        soft_wrap=True,
    )
    percentile = slo.percentile
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("hosts", "95 %", "instances", "GPUs", "a host holds", "95 %", percentile, "95 %", "trial"):
        table.add_column(column, justify="right")
    table.add_column("config")
    for each in found:
        table.add_row(
            str(each.hosts),
            f"{each.fewest} to {each.most}",
            str(each.hosts * each.instances),
            str(each.hosts * each.gpus) if each.gpus else "none",
            f"{format_number(each.rate.value)}/s",
            f"{format_number(each.rate.low)} to {format_number(each.rate.high)}",
            format_ms(each.latency_ms.value),
            f"{format_ms(each.latency_ms.low)} to {format_ms(each.latency_ms.high)}",
            "foreseen" if each.trial is None else str(each.trial),
            in_words(each.parameters),
        )
    console.print(table)
    trials = len(study.trials)
    console.print(
        f"Foreseen from {trials} trial{'s' * (trials > 1)}, on hosts like the one that was measured, with Poisson "
        "arrivals that they share evenly.",
        highlight=False,
        soft_wrap=True,
    )


def _as_json(study: Study, rate: float, slo: SLO, found: tuple[Capacity, ...]) -> dict[str, object]:
    return {
        "schema": 1,
        "model": study.identity.model,
        "request_rate": rate,
        "slo": {f"{percentile}_ms": limit for percentile, limit in slo.limits},
        "configs": [
            {
                "parameters": dict(each.parameters),
                "trial": each.trial,
                "hosts": {"value": each.hosts, "low": each.fewest, "high": each.most},
                "instances": each.hosts * each.instances,
                "gpus": each.hosts * each.gpus,
                "request_rate_a_host": each.rate.model_dump(),
                "latency_ms": {slo.percentile: each.latency_ms.model_dump()},
            }
            for each in found
        ],
    }
