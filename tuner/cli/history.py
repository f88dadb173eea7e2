"""`tritontune history`: the results of the nights, as a table and plots, or as JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tuner.core.errors import JobError, nearest
from tuner.core.json_text import json_text
from tuner.core.quantities import format_duration, format_ms, format_number
from tuner.core.slo import Percentile
from tuner.nightly.history import History, Night
from tuner.nightly.measured import Measured
from tuner.report.results_console import results_console

_COLOURS = {"improved": "green", "regression": "red", "failed": "red", "kept": "default"}
_BARS = "▁▂▃▄▅▆▇█"


def history(place: str, models: tuple[str, ...], last: int, *, as_json: bool) -> None:
    """Print the last nights of each model.

    Raises:
        JobError: there is no such history, or a model is not in it.
    """
    with History.opened(place, make=False) as stored:
        stored_models = stored.models
        if unknown := [name for name in models if name not in stored_models]:
            raise JobError(f"--model: {place} has no model {unknown[0]!r}{nearest(unknown[0], stored_models)}")
        nights = stored.nights(models=models, last=last)
    if as_json:
        rows = [night.model_dump(mode="json") for night in nights]
        print(json_text({"schema": 1, "nights": rows}, indent=1))  # noqa: T201 (it is what was asked for)
        return
    console = results_console()
    if not nights:
        console.print("no nights yet")
    by_model = sorted(nights, key=lambda night: (night.repository, night.model, night.night))
    for (repository, model), group in groupby(by_model, key=lambda night: (night.repository, night.model)):
        _print(console, repository, model, list(group))


def _print(console: Console, repository: str, model: str, nights: Sequence[Night]) -> None:
    title = f"\n[bold]{escape(model)}[/] of {escape(repository)}"
    console.print(title, highlight=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    for column in ("night", "outcome"):
        table.add_column(column)
    at_rates = any(night.serving and night.serving.request_rate for night in nights)
    load = "load" if at_rates else "concurrency"
    for column in ("inferences/s", "latency", load, "gain", "took"):
        table.add_column(column, justify="right")
    table.add_column("why", overflow="fold")
    for night in nights:
        serving, gain = night.serving, night.gain
        table.add_row(
            night.night[:16].replace("T", " "),
            f"[{_COLOURS.get(night.outcome, 'default')}]{night.outcome}[/]",
            format_number(serving.throughput.value) if serving else "",
            f"{serving.percentile} {format_ms(serving.latency.value)}" if serving else "",
            _load(serving) if serving else "",
            f"{gain.value:.2f} ({gain.low:.2f} to {gain.high:.2f})" if gain else "",
            format_duration(night.duration_s),
            escape(night.drift if night.regression else night.reason),
        )
    console.print(table)
    served = [night.serving for night in nights]
    percentile: Percentile = next((measured.percentile for measured in reversed(served) if measured), "p99")
    latencies = [measured.latency_at(percentile) if measured else None for measured in served]
    rows: tuple[tuple[str, list[float | None], Callable[[float], str]], ...] = (
        ("inferences/s", [measured.throughput.value if measured else None for measured in served], format_number),
        (percentile, [latency.value if latency else None for latency in latencies], format_ms),
        ("gain", [night.gain.value if night.gain else None for night in nights], lambda value: f"{value:.2f}"),
    )
    for name, values, words in rows:
        if line := plotted(values, words):
            console.print(f"{name:>12}  {line}", highlight=False, markup=False)


def _load(serving: Measured) -> str:
    """Requests in flight as a number, a rate with its unit."""
    return str(serving.load if serving.concurrency is None else serving.concurrency)


def plotted(values: Sequence[float | None], words: Callable[[float], str]) -> str:
    """A bar for each value, followed by the lowest and the highest: `▁▃█  740 to 3,180`.

    Args:
        values: The values; None leaves a gap.
        words: Formats a value.

    Returns:
        The line; empty without values.
    """
    present = [value for value in values if value is not None]
    if not present:
        return ""
    low, high = min(present), max(present)
    bars = "".join(" " if value is None else _bar(value, low, high) for value in values)
    return f"{bars}  {words(low)} to {words(high)}" if high > low else f"{bars}  {words(low)}"


def _bar(value: float, low: float, high: float) -> str:
    share = (value - low) / (high - low) if high > low else 0.5
    return _BARS[min(len(_BARS) - 1, int(share * len(_BARS)))]
