"""`tritontune report`: writes the report of a run again."""

from __future__ import annotations

from pathlib import Path

import click

from tuner.cli.output_file import check_output
from tuner.report.html.page import write_report
from tuner.study.run_folder import RunFolder


def report(run_dir: Path, out: Path | None, *, force: bool = False) -> None:
    """Write the report of a run, finished or not.

    Args:
        run_dir: Folder of the run.
        out: File to write; None: `report.html` in `run_dir`.
        force: Whether `out` may be replaced.

    Raises:
        JobError: there is no such run, its study cannot be read, or the file cannot be written.
    """
    check_output(out, option="--out", force=force)
    path = write_report(RunFolder.existing(run_dir), out)
    click.echo(f"{path}: written", err=True)
