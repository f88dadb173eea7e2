"""Parts of the reference pages, made from the code: `<!-- generated: NAME -->` in a page is replaced by one of them.

MkDocs calls `on_page_markdown` for each page of the site; `mkdocs.yml` names this file.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

import click
from pydantic import BaseModel

from tuner.cli.main import cli
from tuner.core.errors import TritontuneError
from tuner.nightly.jobs import JobsFile, NightlyJob, Notify
from tuner.options.measure_job import MeasureJob
from tuner.options.tune_job import TuneJob
from tuner.results.points_csv import points_csv
from tuner.space.spec import shipped_spaces

_MARK = re.compile(r"<!-- generated: ([\w-]+) -->")


def on_page_markdown(markdown: str, **_: object) -> str:
    """A page with its marks replaced.

    Raises:
        KeyError: a mark names no part.
    """
    return _MARK.sub(lambda mark: PARTS[mark[1]](), markdown)


def command_line() -> str:
    """Every command with its usage and options."""
    sections = []
    with click.Context(cli, info_name="tritontune") as parent:
        for name, command in cli.commands.items():
            context = click.Context(command, info_name=name, parent=parent)
            rows = [_option(each) for each in command.get_params(context) if isinstance(each, click.Option)]
            sections += [
                f"## {name}",
                f"```text\n{command.get_usage(context).removeprefix('Usage: ')}\n```",
                _help(command.help or ""),
                _table(("option", "meaning"), [row for row in rows if row]),
            ]
    return "\n\n".join(sections)


def _help(text: str) -> str:
    r"""Help in Markdown: a paragraph that begins with `\b` keeps its lines."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(
        f"```text\n{paragraph.removeprefix(chr(8)).strip()}\n```" if paragraph.startswith("\b") else _cell(paragraph)
        for paragraph in paragraphs
    )


def _option(option: click.Option) -> tuple[str, str] | None:
    """Its names with what it takes, and its help; None for one that help does not show."""
    if option.hidden or "--help" in option.opts:
        return None
    value = "" if option.is_flag else f" {option.metavar or option.name}"
    names = ", ".join(f"`{name}{value}`" for name in [*option.opts, *option.secondary_opts])
    default = f" [default: {option.default}]" if option.show_default else ""
    return names, (option.help or "") + default


def options_of(model: type[BaseModel], *, without: type[BaseModel] | None = None) -> str:
    """The keys of a job file, each with its values, default and meaning.

    Args:
        model: Whose fields they are.
        without: Fields that this has, too, are left out.
    """
    schema = model.model_json_schema()
    known = schema.get("$defs", {})
    left_out = without.model_fields if without else {}
    rows = [
        (f"`{name}`", _values(field, known), _default(field), field.get("description", ""))
        for name, field in schema["properties"].items()
        if name not in left_out
    ]
    return _table(("key", "value", "default", "meaning"), rows)


def _values(field: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """The values that a JSON schema allows, in words."""
    if "enum" in field or "const" in field:
        return " or ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return "a mapping" if known.get(name, {}).get("type") == "object" else _values(known.get(name, {}), known)
    if alternatives := field.get("anyOf", field.get("oneOf")):
        told = [_values(each, known) for each in alternatives if each.get("type") != "null"]
        return " or ".join(dict.fromkeys(each for each in told if each))
    words = {"integer": "a whole number", "boolean": "`true` or `false`", "array": "a list", "object": "a mapping"}
    kind = field.get("type", "")
    return words.get(kind, {"number": "a number", "string": "text"}.get(kind, ""))


def _default(field: Mapping[str, Any]) -> str:
    default = field.get("default")
    return "" if default is None or default in ([], {}, "") else f"`{default}`".replace("True", "true")


def errors() -> str:
    """The exceptions, from general to special, with their exit codes."""
    rows = [(f"`{each.__name__}`", str(each.exit_code), _summary(each)) for each in _with_subclasses(TritontuneError)]
    return _table(("exception", "exit code", "meaning"), rows)


def _with_subclasses(kind: type[TritontuneError]) -> Iterator[type[TritontuneError]]:
    yield kind
    for each in kind.__subclasses__():
        if each.__module__ == TritontuneError.__module__:
            yield from _with_subclasses(each)


def _summary(described: type) -> str:
    return inspect.cleandoc(described.__doc__ or "").partition("\n")[0]


def spaces() -> str:
    """The search spaces that ship, as their files are."""
    texts = {name: files("search_spaces").joinpath(f"{name}.yaml").read_text("utf-8") for name in shipped_spaces()}
    return "\n\n".join(f"### {name}\n\n```yaml\n{text.rstrip()}\n```" for name, text in texts.items())


def measure_columns() -> str:
    """The columns of `measure --csv`."""
    return ", ".join(f"`{name}`" for name in points_csv(()).strip().split(","))


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *([_cell(each) for each in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    """A text in one line, whose characters Markdown takes for nothing else; code between backticks stays."""
    code = text.startswith("`")
    line = " ".join(text.split())
    return line if code else line.replace("|", r"\|").replace("<", "&lt;")


PARTS: Mapping[str, Callable[[], str]] = {
    "cli": command_line,
    "job-run": lambda: options_of(TuneJob),
    "job-measure": lambda: options_of(MeasureJob),
    "nightly-file": lambda: options_of(JobsFile),
    "nightly-job": lambda: options_of(NightlyJob, without=TuneJob),
    "nightly-notify": lambda: options_of(Notify),
    "shipped-spaces": spaces,
    "errors": errors,
    "measure-csv": measure_columns,
}
"""What makes each part, by the name in its mark."""
