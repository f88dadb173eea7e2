"""Help of commands whose options are fields of a job: headings, and the descriptions of the fields."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:  # pydantic would slow `tritontune --help` down
    from tuner.options.groups import Options

_Command = TypeVar("_Command", bound=Callable[..., Any])


class FieldOption(click.Option):
    """An option that is a field of its command's job; its help is the field's description."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """See `click.Option`."""
        if isinstance(ctx.command, JobCommand) and self.name is not None:
            self.help = ctx.command.job().help_of(self.name) + " Repeatable." * self.multiple
        return super().get_help_record(ctx)


class SectionedCommand(click.Command):
    """A command whose help lists options under headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See `click.Command`."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                sections.setdefault(getattr(parameter, "section", "Other options"), []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


class JobCommand(SectionedCommand):
    """A command whose options are fields of a job.

    Args:
        job: Imports the job class; called only to show the help.
    """

    def __init__(self, *args: Any, job: Callable[[], type[Options]], **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.job = job


def section(title: str, *options: Callable[[_Command], _Command]) -> Callable[[_Command], _Command]:
    """Combine several options in one decorator; the help lists them under a heading."""

    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
            # click collects the options of a function here until it becomes a command.
            command.__click_params__[-1].section = title  # type: ignore[attr-defined]
        return command

    return decorate


def field(*names: str, **settings: Any) -> Callable[[_Command], _Command]:
    """An option that is a field of the command's job."""
    return click.option(*names, cls=FieldOption, **settings)
