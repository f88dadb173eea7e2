"""Reads stored JSON, also that of a later version of tritontune after an upgrade was undone."""

from __future__ import annotations

import json
from functools import reduce
from operator import getitem
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound=BaseModel)


def parsed(kind: type[Model], document: str | bytes) -> Model:
    """A stored resource. Fields that only later versions know are ignored.

    Raises:
        ValidationError: it is no such resource.
    """
    try:
        return kind.model_validate_json(document)
    except ValidationError as error:
        unknown = [fault["loc"] for fault in error.errors() if fault["type"] == "extra_forbidden"]
        if not unknown:
            raise
        return kind.model_validate_json(json.dumps(_without(json.loads(document), unknown)))


def in_one_line(error: ValidationError) -> str:
    """The first fault of a document: `job.id: Field required`."""
    fault = error.errors()[0]
    return ": ".join(filter(None, (".".join(map(str, fault["loc"])), fault["msg"])))


def _without(content: Any, unknown: list[tuple[int | str, ...]]) -> Any:
    for *parents, name in unknown:
        reduce(getitem, parents, content).pop(name, None)
    return content
