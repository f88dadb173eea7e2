"""`tritontune run --list-space`: prints what would be searched, and why the rest is left out."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tuner.core.boundary import boundary
from tuner.core.errors import JobError
from tuner.options.tune_job import TuneJob
from tuner.report.results_console import USUAL_WIDTH
from tuner.space.candidate import shown
from tuner.space.compose import ON_REQUEST
from tuner.space.knowledge import backend_of, known_parameter

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from tuner.jobs.listing import ListedSpace
    from tuner.space.parameter import Parameter


def list_space(
    job_file: Path | None, options: Mapping[str, Any], *, out: Path | None, resume: bool, as_json: bool
) -> None:
    """Print the search space of each model.

    Args:
        job_file: Path of the job file; None: options alone.
        options: By the names of `TuneJob`; they override the job file.
        out: Must be None, as nothing is stored.
        resume: Must be false.
        as_json: Must be false.

    Raises:
        TritontuneError: the job is wrong, or a server that must tell the config does not start.
    """
    for given, flag in ((out, "--out"), (resume, "--resume"), (as_json, "--json")):
        if given:
            raise JobError(f"--list-space and {flag} cannot be combined")
    job = TuneJob.read(job_file, options) if job_file else TuneJob.make(options)
    # These imports take most of a second, and an error in the options should be reported without them.
    from tuner.jobs.listing import list_spaces  # noqa: PLC0415
    from tuner.jobs.progress import Progress  # noqa: PLC0415
    from tuner.report.results_console import results_console  # noqa: PLC0415

    class Notes(Progress):
        def note(self, text: str) -> None:
            click.echo(text, err=True)

    console = results_console(USUAL_WIDTH)
    with boundary():
        for number, listed in enumerate(list_spaces(job, Notes())):
            if number:
                console.print()
            print_space(listed, job.space, console)


def print_space(listed: ListedSpace, source: str, console: Console) -> None:
    """Print the search space of a model.

    Args:
        listed: The space.
        source: The name of the space, or its file.
        console: The console.
    """
    from rich.markup import escape  # noqa: PLC0415 (see above)

    space = listed.space
    how = "as the server completed it" if listed.launched else "by its config"
    head = f"{listed.model}: backend {listed.backend}, {how}; space {source}"
    console.print(f"[bold]{escape(head)}[/]", highlight=False)
    console.print(_searched(space.parameters) if space.parameters else "nothing would be searched")
    if space.laws:
        console.print("\n[bold]laws[/]")
        for law in space.laws:
            console.print(f"  {escape(str(law.spec))}", highlight=False)
    _print_rest({**space.left_out, **space.not_searched}, backend_of(space.effective), console)
    for note in space.notes:
        console.print(escape(note), highlight=False)


def _searched(parameters: Sequence[Parameter]) -> Table:
    from rich.table import Table  # noqa: PLC0415 (see above)
    from rich.text import Text  # noqa: PLC0415 (see above)

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("searched", no_wrap=True)
    table.add_column("values (* the model's own), and what it does", overflow="fold")
    for p in parameters:
        conditions = [f"with {name} {' or '.join(map(shown, some))}" for name, some in p.when.items()]
        about = [p.does.removesuffix("."), *conditions, *(["tried alone first"] if p.try_alone else [])]
        where = str(p.place)
        about = [*([where] if where != p.name else []), *filter(None, about)]
        values = ", ".join(shown(value) + "*" * p.is_base(value) for value in p.ladder)
        table.add_row(Text(p.name), Text(values))
        table.add_row("", Text("; ".join(about), "dim"))
    return table


def _print_rest(reasons: Mapping[str, str], backend: str, console: Console) -> None:
    """Print what is not searched, by reason; for what can be named, also what it does."""
    from rich.markup import escape  # noqa: PLC0415 (see above)
    from rich.table import Table  # noqa: PLC0415 (see above)
    from rich.text import Text  # noqa: PLC0415 (see above)

    by_reason: dict[str, list[str]] = {}
    for name, reason in sorted(reasons.items(), key=lambda item: item[1].startswith(ON_REQUEST)):
        by_reason.setdefault(reason, []).append(name)
    for reason, names in by_reason.items():
        console.print(f"\n[bold]not searched[/]: {escape(reason)}", highlight=False, soft_wrap=True)
        if not reason.startswith(ON_REQUEST):
            text = textwrap.fill(", ".join(names), console.width - 2, break_long_words=False, break_on_hyphens=False)
            console.print(escape(textwrap.indent(text, "  ")), highlight=False, soft_wrap=True)
            continue
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for name in names:
            table.add_row(Text(f"  {name}"), Text(known_parameter(name, backend).does.removesuffix(".")))
        console.print(table)
