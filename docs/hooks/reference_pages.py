"""Parts of the reference pages, made from the code: `<!-- generated: NAME -->` in a page is replaced by one of them.

MkDocs calls `on_page_markdown` for each page of the site; `mkdocs.yml` names this file.
"""

from __future__ import annotations

import inspect
import io
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from service_pages import rest_api, service_settings

from tuner.cli.list_space import print_space
from tuner.cli.main import cli
from tuner.config.config import ModelConfig
from tuner.core.errors import TritontuneError
from tuner.core.machine import Machine, NumaNode
from tuner.core.nvml import Gpu
from tuner.core.quantities import DURATION
from tuner.jobs.events import EVENT, Numbered
from tuner.jobs.listing import ListedSpace
from tuner.nightly.jobs import jobs_schema
from tuner.options.tune_job import TuneJob
from tuner.results.points_csv import points_csv
from tuner.service.settings import settings_schema
from tuner.space.conditions import Terms
from tuner.space.knowledge import COMMON, KnownParameter, Needs, knowledge
from tuner.space.place import Place
from tuner.space.space import SearchSpace
from tuner.space.spec import ParameterSpec, SpaceSpec, load_space, shipped_spaces

_WORDS = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "`true` or `false`",
    "array": "a list",
    "object": "a mapping",
    "null": "`null`",
}
_FOLDER = Path(__file__).parents[1]
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
            sections += [
                f"## {name}",
                f"```text\n{command.get_usage(context).removeprefix('Usage: ')}\n```",
                _help(command.help or ""),
                *_options(context),
            ]
    return "\n\n".join(sections)


def _options(context: click.Context) -> Iterator[str]:
    """The options of a command, as its help has them: a table for each of its headings."""
    tables: dict[str, list[tuple[str, str]]] = {}
    for parameter in context.command.get_params(context):
        record = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
        if record and "--help" not in parameter.opts:
            tables.setdefault(getattr(parameter, "section", ""), []).append((f"`{record[0]}`", record[1]))
    for title, rows in tables.items():
        if title:
            yield f"### {title}"
        yield _table(("option", "meaning"), rows)


def _help(text: str) -> str:
    r"""Help in Markdown: a paragraph that begins with `\b` keeps its lines."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(
        f"```text\n{paragraph.removeprefix(chr(8)).strip()}\n```" if paragraph.startswith("\b") else _cell(paragraph)
        for paragraph in paragraphs
    )


def job_keys() -> str:
    """The keys of a job file, in the order of the command line."""
    written = jobs_schema()["$defs"]["NightlyJob"]["properties"]
    described = TuneJob.model_json_schema()["properties"]
    names = [parameter.name for parameter in cli.commands["run"].params if parameter.name in described]
    return _keys({name: {**written[name], "description": described[name]["description"]} for name in names})


def night_keys() -> str:
    """The keys of a nightly job file."""
    return _keys(jobs_schema()["properties"])


def nightly_job_keys() -> str:
    """The keys that an entry of `jobs` has, and a job file of `run` has not."""
    keys = jobs_schema()["$defs"]["NightlyJob"]["properties"]
    return _keys({name: field for name, field in keys.items() if name not in TuneJob.model_fields})


def notify_keys() -> str:
    """The keys of an entry of `notify`."""
    return _keys(jobs_schema()["$defs"]["Notify"]["properties"])


def _keys(fields: Mapping[str, Mapping[str, Any]]) -> str:
    """Properties of a JSON schema, each with its values, default and meaning."""
    rows = [(f"`{name}`", _values(field), _default(field), field["description"]) for name, field in fields.items()]
    return _table(("key", "value", "default", "meaning"), rows)


def _values(field: Mapping[str, Any]) -> str:
    """The values that a JSON schema allows, in words."""
    if "enum" in field or "const" in field:
        return " or ".join(f"`{value}`".lower() for value in field.get("enum", [field.get("const")]))
    if alternatives := field.get("anyOf"):
        return " or ".join(dict.fromkeys(_values(each) for each in alternatives if each.get("type") != "null"))
    return "a duration" if field.get("pattern") == DURATION else _WORDS[field["type"]]


def _default(field: Mapping[str, Any]) -> str:
    default = field.get("default")
    return (
        ""
        if default is None or default in ([], {}, "")
        else f"`{default}`".replace("True", "true").replace("False", "false")
    )


def front_json() -> str:
    """The keys of `front.json`, by its schema: a section for the file, and for each kind of object in it."""
    schema = json.loads((_FOLDER / "reference/front.schema.json").read_text("utf-8"))
    sections = [f"## {title}\n\n{_object(part)}" for title, part in {"file": schema, **schema["$defs"]}.items()]
    return "\n\n".join(sections)


def _object(part: Mapping[str, Any]) -> str:
    """What an object is, whose keys it has, too, and its own keys."""
    told = [part["description"]]
    told += [
        f"It has the keys of {_kinds(each)}{', and:' if 'properties' in part else '.'}"
        for each in part.get("allOf", ())
    ]
    rows = [(f"`{name}`", _kinds(field), field["description"]) for name, field in part.get("properties", {}).items()]
    return "\n\n".join([" ".join(told), *([_table(("key", "value", "meaning"), rows)] if rows else [])])


def _kinds(field: Mapping[str, Any]) -> str:
    """The kinds of a value, with links to those that have a section."""
    if reference := field.get("$ref"):
        name = reference.rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in field:
        return " or ".join(map(_kinds, field["anyOf"]))
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    if field.get("format") == "date-time":
        return "a time in UTC (RFC 3339)"
    kind = field.get("type", ())
    kinds = [kind] if isinstance(kind, str) else kind
    told = " or ".join(_WORDS[each] for each in kinds) if kinds else str(field.get("const", "any"))
    return f"{told} of {_kinds(field['items'])}" if "items" in field else told


def events_schema() -> dict[str, Any]:
    """The JSON schema of an event, from its types; operating points are as in `front.json`.

    `docs/reference/events.schema.json` holds it: `python docs/hooks/reference_pages.py events-schema` prints it.
    """
    schema = EVENT.json_schema(mode="serialization")
    front = json.loads((_FOLDER / "reference/front.schema.json").read_text("utf-8"))["$defs"]
    parts = {_named(name): _as_written(part, front["interval"]) for name, part in schema["$defs"].items()}
    parts["operating_point"] = {
        "description": "What was measured under one load, and what decides whether it is on the front.",
        "allOf": [{"$ref": "#/$defs/measurement"}],
        "type": "object",
        "properties": {
            "objective_value": {
                "description": "Value of the objective, in its unit; null if unknown.",
                "anyOf": [{"$ref": "#/$defs/interval"}, {"type": "null"}],
            },
            "answered": {
                "description": "Whether all requests were answered, and as fast as they were due.",
                "type": "boolean",
            },
        },
        "required": ["objective_value", "answered"],
        "unevaluatedProperties": False,
    }
    front["load"]["properties"] = {
        "concurrency": front["load"]["properties"]["concurrency"],
        "request_rate": {
            "description": "Rate of arrivals, requests/s; of a ramp, the first and the last rate.",
            "anyOf": [{"type": "number"}, {"type": "array", "items": {"type": "number"}}],
        },
        "replay": {"description": "Name of the recording whose arrivals are repeated.", "type": "string"},
    }
    front["load"]["description"] = "What was offered; one of the keys."
    parts |= {name: front[name] for name in _used(front, "measurement")}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A line of events.jsonl of tritontune",
        "description": "One event.",
        "discriminator": {"propertyName": "type"},
        "oneOf": [{"$ref": f"#/$defs/{_named(each['$ref'].rpartition('/')[2])}"} for each in schema["oneOf"]],
        "$defs": parts,
    }


def _named(kind: str) -> str:
    """The name of a type in the schema: `TrialEnded` is `trial_ended`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind).lower()


def _as_written(part: dict[str, Any], interval: object) -> dict[str, Any]:
    """The schema of a type as it is written: with all of its keys, and no others."""
    keys = {name: _with_references(field, interval) for name, field in part["properties"].items()}
    kept = {name: value for name, value in part.items() if name not in {"title", "properties"}}
    return {**kept, "properties": keys, "required": list(keys), "additionalProperties": False}


def _with_references(field: Any, interval: object) -> Any:
    """A part of a schema without titles and defaults, with references to intervals and operating points."""
    if isinstance(field, list):
        return [_with_references(each, interval) for each in field]
    if not isinstance(field, dict):
        return field
    if field == interval:
        return {"$ref": "#/$defs/interval"}
    if part := field.get("$comment"):
        told = {"description": field["description"]} if "description" in field else {}
        return {**told, "$ref": f"#/$defs/{part}"}
    if reference := field.get("$ref"):
        field = {**field, "$ref": f"#/$defs/{_named(reference.rpartition('/')[2])}"}
    return {name: _with_references(each, interval) for name, each in field.items() if name not in {"title", "default"}}


def _used(parts: Mapping[str, Any], name: str) -> Iterator[str]:
    """The names of a part and of all parts that it uses."""
    yield name
    for other in re.findall(r'"#/\$defs/(\w+)"', json.dumps(parts[name])):
        yield from _used(parts, other)


def events() -> str:
    """The keys of every type of event, by its schema: first those that all have."""
    schema = events_schema()
    kinds = [schema["$defs"][each["$ref"].rpartition("/")[2]] for each in schema["oneOf"]]
    common = {name: kinds[0]["properties"][name] for name in Numbered.model_fields}
    common["type"] = {"type": "string", "description": "Type of the event, below."}
    sections = [f"## Every event\n\n{_object({'description': 'Every event has these keys.', 'properties': common})}"]
    for kind in kinds:
        own = {name: field for name, field in kind["properties"].items() if name not in common}
        title = kind["properties"]["type"]["const"]
        sections.append(f"## {title}\n\n{_object({'description': kind['description'], 'properties': own})}")
    sections += [
        f"## {name}\n\n{_object(schema['$defs'][name])}" for name in ("model_result", "operating_point", "load")
    ]
    return re.sub(r"\(#(measurement|interval)\)", r"(front-json.md#\1)", "\n\n".join(sections))


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


def space_keys() -> str:
    """The keys of a parameter in a space file."""
    return _table(
        ("key", "meaning"),
        [(f"`{name}`", field.description or "") for name, field in ParameterSpec.model_fields.items()],
    )


def space_file_keys() -> str:
    """The keys of a space file."""
    schema = SpaceSpec.model_json_schema()["properties"]
    rows = [(f"`{name}`", field.get("description", "1")) for name, field in schema.items()]
    return _table(("key", "meaning"), rows)


_IO = (
    'input [ { name: "X" data_type: TYPE_FP32 dims: [ 16 ] } ] '
    'output [ { name: "Y" data_type: TYPE_FP32 dims: [ 4 ] } ]'
)
# For the examples: where a model of each backend has its instances, and the rest of its config.
_EXAMPLES = {
    "onnxruntime": ("CPU", 'backend: "onnxruntime" max_batch_size: 8'),
    "tensorrt": ("GPU", 'backend: "tensorrt" platform: "tensorrt_plan" max_batch_size: 32'),
    "pytorch": ("CPU", 'backend: "pytorch" platform: "pytorch_libtorch" max_batch_size: 8'),
    "openvino": ("CPU", 'backend: "openvino" max_batch_size: 8'),
    "python": ("CPU", 'backend: "python" max_batch_size: 8'),
    "fil": ("GPU", 'backend: "fil" max_batch_size: 32768'),
    "dali": ("GPU", 'backend: "dali" max_batch_size: 64'),
    "tensorflow": ("CPU", 'backend: "tensorflow" platform: "tensorflow_savedmodel" max_batch_size: 8'),
}


def backends() -> str:
    """The parameters of each backend, and what `--list-space` prints for a model of it."""
    return "\n\n".join(_backend(name) for name in (*_EXAMPLES, COMMON))


def _backend(name: str) -> str:
    file = knowledge(name)
    title = "Triton itself" if name == COMMON else name
    rows = [(f"`{key}`", *_known(key, parameter)) for key, parameter in file.parameters.items()]
    parts = [
        f"## {title}",
        f"Read from {file.source}.",
        _table(("parameter", "searched", "values", "where", "needs", "what it does"), rows),
        *(["Laws: " + "; ".join(f"`{law}`" for law in file.laws) + "."] if file.laws else []),
    ]
    if file.inert:
        inert = [(f"`{each.field}`", _needs(each.needs), each.reason) for each in file.inert]
        parts.append(_table(("without effect", "where", "why"), inert))
    if name != COMMON:
        device, _ = _EXAMPLES[name]
        where = "a GPU" if device == "GPU" else "the CPU"
        parts += [
            f"`--list-space` for a model on {where}, on a machine with 8 cores:",
            f"```text\n{_listing(name)}\n```",
        ]
    return "\n\n".join(parts)


def _known(name: str, parameter: KnownParameter) -> tuple[str, str, str, str, str]:
    """Whether a parameter is searched, its values, where it is, what it needs, and what it does with its marks."""
    marks = {
        "may change answers": bool(parameter.changes_numerics),
        "slow launch": parameter.slow_launch,
        "tried alone first": parameter.try_alone,
        "needs a server for each candidate": parameter.relaunch_only,
    }
    about = "; ".join([parameter.does.removesuffix("."), *(mark for mark, has in marks.items() if has)])
    values = ", ".join(
        str(value).lower() if isinstance(value, bool) else str(value) for value in parameter.ladder or ()
    )
    values = "node0, node1, ..." if parameter.each_node else values
    searched = "yes" if parameter.search == "default" else "on request"
    return searched, values, f"`{Place.of(name, parameter)}`", _needs(parameter.needs), about


def _needs(needs: Needs) -> str:
    """Conditions in words."""
    given = needs.model_dump(exclude_defaults=True)
    values = {name: ", ".join(value) if isinstance(value, list) else str(value) for name, value in given.items()}
    return "; ".join(f"{name.replace('_', ' ')} {value}" for name, value in values.items())


def _listing(name: str) -> str:
    device, config = _EXAMPLES[name]
    count = 2 if name in {"onnxruntime", "tensorflow"} else 1
    text = f"{config} {_IO} instance_group [ {{ kind: KIND_{device} count: {count} }} ]"
    effective = ModelConfig.parse(text, "example")
    gpus = (Gpu(0, "GPU-0", "GPU", None),) if device == "GPU" else ()
    machine = Machine(8, gpus, "x86_64", (NumaNode(0, "0-7"),))
    space = SearchSpace.build(load_space("auto"), effective, effective, machine, terms=Terms())
    printed = io.StringIO()
    print_space(ListedSpace("model", name, space, launched=False), "auto", Console(file=printed, width=100))
    return "\n".join(line.rstrip() for line in printed.getvalue().rstrip().splitlines())


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
    "job-run": job_keys,
    "nightly-file": night_keys,
    "nightly-job": nightly_job_keys,
    "nightly-notify": notify_keys,
    "space-file": space_file_keys,
    "space-parameter": space_keys,
    "backends": backends,
    "shipped-spaces": spaces,
    "front-json": front_json,
    "events": events,
    "errors": errors,
    "measure-csv": measure_columns,
    "rest-api": lambda: rest_api(_table, _kinds),
    "service-settings": lambda: service_settings(_keys),
}
"""What makes each part, by the name in its mark."""


if __name__ == "__main__":
    schemas = {"events-schema": events_schema, "service-schema": settings_schema}
    if len(sys.argv) != 2 or sys.argv[1] not in schemas:
        sys.exit(f"usage: python docs/hooks/reference_pages.py {'|'.join(schemas)}")
    print(json.dumps(schemas[sys.argv[1]](), indent=2))  # noqa: T201 (its purpose)
