"""The JSON schema of a nightly job file, for editors. Its descriptions are those of the fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuner.core.quantities import DURATION
from tuner.core.slo import PERCENTILES
from tuner.nightly.jobs import JobsFile, NightlyJob, Notify

SCHEMA_FILE = "jobs.schema.json"
"""Where it ships, beside this file."""

_TEXT: dict[str, Any] = {"type": "string"}
_TEXTS: dict[str, Any] = {"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]}
_TEXTS_OR_MAPPING: dict[str, Any] = {"anyOf": [*_TEXTS["anyOf"], {"type": "object"}]}

WRITTEN: Mapping[str, Mapping[str, Any]] = {
    "model": _TEXTS,
    "slo": {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: {"type": "string", "pattern": DURATION} for name in PERCENTILES},
    },
    "load_model": _TEXTS,
    "triton_arg": _TEXTS,
    "gpus": {"anyOf": [_TEXT, {"type": "integer"}]},
    "env": _TEXTS_OR_MAPPING,
    "mount": _TEXTS,
    "docker_arg": _TEXTS_OR_MAPPING,
    "shape": _TEXTS_OR_MAPPING,
    "request_parameter": _TEXTS_OR_MAPPING,
    "header": _TEXTS_OR_MAPPING,
    "precision": _TEXT,
    "output_tolerance": {"anyOf": [{"type": "number"}, _TEXT]},
    "command": {"type": "array", "items": _TEXT},
}
"""Fields that a file writes otherwise than they are kept, by name."""


def jobs_schema() -> dict[str, Any]:
    """The schema, with a description of every field."""
    schema = JobsFile.model_json_schema(mode="validation")
    definitions = schema["$defs"]
    for model, part in ((JobsFile, schema), (NightlyJob, definitions["NightlyJob"]), (Notify, definitions["Notify"])):
        defaults = model.defaults()
        for name, field in part["properties"].items():
            part["properties"][name] = {
                "description": field["description"],
                **WRITTEN.get(name, _plain(field)),
                **({"default": defaults[name]} if name in defaults else {}),
            }
    job = definitions["NightlyJob"]
    job["required"] = ["repository"]
    kept_definitions = {name: definitions[name] for name in ("NightlyJob", "Notify")}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "tritontune nightly job file",
        "$defs": kept_definitions,
    }


def _plain(value: Any) -> Any:
    """Without what only pydantic means: titles, and limits that it has put where they have no meaning."""
    if isinstance(value, dict):
        if value.get("type") in {"object", "array"} or "properties" in value:
            return {key: _plain(each) for key, each in value.items() if key != "title"}
        return {key: _plain(each) for key, each in value.items() if key not in {"title", "gt", "ge", "lt", "le"}}
    return [_plain(each) for each in value] if isinstance(value, list) else value
