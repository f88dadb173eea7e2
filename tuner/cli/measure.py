"""`tritontune measure`: throughput and latency of a model with its own config."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from tuner.cli.output_file import check_output
from tuner.core.atomic_file import write_atomically
from tuner.core.errors import JobError, TritontuneError
from tuner.core.json_text import json_text
from tuner.jobs.measuring import check_inputs, measurement_json, sustained
from tuner.jobs.measuring import measured as _measured
from tuner.jobs.measuring import opened as _opened
from tuner.measure.highest_rate import highest_sustained
from tuner.measure.points import OperatingPoint
from tuner.options.measure_job import MeasureJob
from tuner.report.live_line import LiveLine
from tuner.report.points_table import points_table
from tuner.report.results_console import USUAL_WIDTH, results_console
from tuner.results.points_csv import points_csv
from tuner.results.words import point_in_words, rate


def measure(options: Mapping[str, Any], *, as_json: bool, csv: Path | None, force: bool = False) -> None:
    """Measure a model under each load, and print a table or JSON.

    Args:
        options: By the names of `MeasureJob`.
        as_json: Print JSON on stdout, and nothing else.
        csv: File to write, one row a point; None: none.
        force: Whether `csv` may replace a file.

    Raises:
        TritontuneError: a measurement failed; the error's exit code tells how.
    """
    job = MeasureJob.make(options)
    loads = job.loads
    check_inputs(job)
    check_output(csv, option="--csv", force=force)
    console = Console(stderr=True)
    points: list[OperatingPoint] = []
    model = ""
    try:
        with (
            LiveLine(console, job.batch_size, job.slo.percentile) as line,
            _opened(job, _noting(console), line.pulling, line.see) as (model, session),
        ):
            for point in _measured(job, loads, session):
                points.append(point)
                words = point_in_words(point, job.slo.percentile)
                console.print(words, highlight=False, markup=False, soft_wrap=True)
    except BaseException:
        # Print the points measured before an error or Ctrl-C. If that fails, too, the first error is still raised.
        try:
            _tell(model, points, job, as_json=as_json, csv=csv, complete=False)
            if job.rate == "max" and points:
                _tell_highest(points, job, console if as_json else results_console(), complete=False)
        except (TritontuneError, OSError) as error:
            _noting(console)(f"cannot write the result: {error}")
        raise
    _tell(model, points, job, as_json=as_json, csv=csv, complete=True)
    if job.rate == "max":
        _tell_highest(points, job, console if as_json else results_console(), complete=True)


def _tell(
    model: str, points: list[OperatingPoint], job: MeasureJob, *, as_json: bool, csv: Path | None, complete: bool
) -> None:
    if not points:
        return
    if as_json:
        click.echo(json_text(measurement_json(model, points, job, complete=complete)))
    else:
        results_console(USUAL_WIDTH).print(points_table(points))
    if csv is not None:
        try:
            write_atomically(csv, points_csv(points))
        except OSError as error:
            raise JobError(f"--csv: cannot write {csv}: {error.strerror}") from None


def _tell_highest(points: list[OperatingPoint], job: MeasureJob, console: Console, *, complete: bool) -> None:
    if not complete:
        highest = highest_sustained(points, job.slo)
        so_far = f"{rate(highest.load.level)} requests/s" if highest else "none"
        console.print(f"highest sustained rate so far: {so_far} (the search was cut short)", highlight=False)
        return
    words = f"highest sustained rate: {rate(sustained(points, job).load.level)} requests/s"
    console.print(f"{words}, {job.slo}" if job.slo.root else words, highlight=False)


def _noting(console: Console) -> Callable[[str], None]:
    """A function that prints a line unchanged."""
    return lambda text: console.print(text, highlight=False, markup=False, soft_wrap=True)
