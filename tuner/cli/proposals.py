"""`tritontune proposals`: lists the proposals of the service, and decides on them."""

from __future__ import annotations

from collections.abc import Sequence

import click
from rich.markup import escape
from rich.table import Table

from tuner.cli.service import ServiceOptions
from tuner.client.client import Client
from tuner.client.event_lines import gain_in_words
from tuner.client.resources import Proposal, ProposalState
from tuner.core.errors import JobError
from tuner.core.json_text import json_text
from tuner.core.quantities import format_ms, format_number
from tuner.report.results_console import results_console


def proposals(
    options: ServiceOptions,
    *,
    state: ProposalState | None,
    job: int | None,
    approve: int | None,
    reject: int | None,
    diff: int | None,
    reason: str | None,
    as_json: bool,
) -> None:
    """List proposals, or decide on one.

    Args:
        options: The service.
        state: Only proposals in this state; None: all.
        job: Only proposals of this job; None: all.
        approve: Proposal whose files are deployed.
        reject: Proposal to reject.
        diff: Proposal whose diff is printed.
        reason: Why, for others.
        as_json: Print JSON.

    Raises:
        JobError: the options contradict each other.
        ServiceError: the service refuses it.
    """
    asked = [
        (name, number) for name, number in (("--approve", approve), ("--reject", reject), ("--diff", diff)) if number
    ]
    if len(asked) > 1:
        raise JobError(f"{asked[0][0]} and {asked[1][0]} cannot be used together")
    if reason is not None and (not asked or asked[0][0] == "--diff"):
        raise JobError("--reason needs --approve or --reject")
    with options.client() as client:
        if not asked:
            _print_all(client, list(client.proposals(state=state, job=job)), state, as_json=as_json)
            return
        ((name, number),) = asked
        if name == "--diff":
            found = client.proposal(number)
            click.echo(found.model_dump_json(indent=1) if as_json else found.diff.rstrip("\n"))
            _print_to_set(found)
            return
        decided = client.approve(number, reason or "") if name == "--approve" else client.reject(number, reason or "")
    told = f": {decided.reason}" if decided.reason else ""
    click.echo(decided.model_dump_json(indent=1) if as_json else f"proposal {decided.id}: {decided.state}{told}")
    if decided.state == "approved":
        _print_to_set(decided)


def _print_to_set(proposal: Proposal) -> None:
    """Tell what approving does not do; on stderr, as stdout has a diff or JSON."""
    for each in proposal.to_set:
        click.echo(f"to set by hand: {each}", err=True)


def _print_all(client: Client, found: Sequence[Proposal], state: ProposalState | None, *, as_json: bool) -> None:
    if as_json:
        rows = [each.model_dump(mode="json") for each in found]
        click.echo(json_text({"schema": 1, "proposals": rows}, indent=1))
        return
    if not found:
        click.echo(f"no {state} proposals" if state else "no proposals")
        return
    table = Table(box=None, pad_edge=False)
    for column in ("id", "state", "model", "target", "inferences/s", "latency", "gain", "job", "repository"):
        table.add_column(column, justify="right" if column in {"id", "inferences/s", "latency", "job"} else "left")
    for each in found:
        table.add_row(
            str(each.id),
            each.state,
            escape(each.model),
            escape(each.target or ""),
            format_number(each.throughput.value) if each.throughput else "",
            f"{each.percentile or ''} {format_ms(each.latency_ms.value)}".strip() if each.latency_ms else "",
            gain_in_words(each.gain) if each.gain else "",
            str(each.job),
            escape(each.repository),
        )
    results_console().print(table)
    click.echo(f"dashboard: {client.page('proposals')}")
