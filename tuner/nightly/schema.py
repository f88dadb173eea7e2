"""The JSON schema of a nightly job file, for editors. What it says of a field is what the field itself says."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from tuner.nightly.jobs import JobsFile, NightlyJob, Notify

SCHEMA_FILE = "jobs.schema.json"
"""Where it ships, beside this file."""


class _WithoutTitles(GenerateJsonSchema):
    """Leaves out the titles of fields, which repeat their names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """See `GenerateJsonSchema`."""
        del schema
        return False


def jobs_schema() -> dict[str, Any]:
    """The schema, with descriptions, and defaults as a file has them."""
    schema = JobsFile.model_json_schema(schema_generator=_WithoutTitles)
    definitions = schema["$defs"]
    for model, part in ((JobsFile, schema), (NightlyJob, definitions["NightlyJob"]), (Notify, definitions["Notify"])):
        for name, default in model.defaults().items():
            part["properties"][name]["default"] = default
    definitions["NightlyJob"]["required"] = ["repository"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "tritontune nightly job file",
    }
