"""`tritontune report`: the page of a run, written anew."""

from __future__ import annotations

from pathlib import Path

import click

from tuner.cli.output_file import check_output
from tuner.report.html.page import write_report
from tuner.study.run_folder import RunFolder


def report(run_dir: Path, out: Path | None, *, force: bool = False) -> None:
    """Write the report of a run, finished or not.

    Args:
        run_dir: Of the run.
        out: The file; None: `report.html` in it.
        force: Whether `out` may be there.

    Raises:
        JobError: there is no such run, its study cannot be read, or the file not be written.
    """
    check_output(out, option="--out", force=force)
    path = write_report(RunFolder.existing(run_dir), out)
    click.echo(f"{path}: written", err=True)
