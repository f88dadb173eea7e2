"""The contents of a text as plain data, and edits of them: what an edited text is compared with."""

from __future__ import annotations

import copy
from typing import Any, TypeAlias

from tuner.config import literals
from tuner.config.paths import Index, Key, Step, Steps
from tuner.config.pbtxt import Message, slots
from tuner.config.schema import field_of, meaning
from tuner.config.values import Empty, Value

Contents: TypeAlias = "dict[str, list[Contents | str]]"
"""A message: by field name its values in the order of the text, each a message or a literal in one spelling."""


def read(message: Message, schema: Any) -> Contents:
    """The contents of a message of a text, including fields that the schema does not know."""
    contents: Contents = {}
    for slot in slots(message):
        field = field_of(schema, slot.field.name)
        if isinstance(slot.node, Message):
            value: Contents | str = read(slot.node, field and field.message_type)
        else:
            value = literals.spelled(meaning(slot.node, field))
        contents.setdefault(slot.field.name, []).append(value)
    return contents


def put(contents: Contents, steps: Steps, value: Value) -> None:
    """Set the fields that a path names to a value; missing messages on the way are added."""
    step, below = steps[0], steps[1:]
    values = contents.setdefault(step.name, [])
    if not (below or isinstance(value, Empty)):
        new = value if isinstance(value, tuple) else (value,)
        chosen = slice(step.pick.number, step.pick.number + 1) if isinstance(step.pick, Index) else slice(None)
        values[chosen] = [literals.spelled(item) for item in new]
        return
    if not _chosen(values, step):
        values.append({"key": [literals.spelled(step.pick.value)]} if isinstance(step.pick, Key) else {})
    for child in [values[place] for place in _chosen(values, step)]:
        if below and isinstance(child, dict):
            put(child, below, value)


def remove(contents: Contents, steps: Steps) -> None:
    """Remove the values that a path names, if there are any."""
    step, below = steps[0], steps[1:]
    values = contents.get(step.name, [])
    for place in reversed(_chosen(values, step)):
        child = values[place]
        if not below:
            del values[place]
        elif isinstance(child, dict):
            remove(child, below)
    if not values:
        contents.pop(step.name, None)


def is_made(contents: Contents, steps: Steps, value: Value) -> bool:
    """Whether an edit still holds after later ones: whether making it again changes nothing.

    The removal of an element by its index counts as made: the elements behind it have moved up.
    """
    again = copy.deepcopy(contents)
    if value != ():
        put(again, steps, value)
    elif not isinstance(steps[-1].pick, Index):
        remove(again, steps)
    return again == contents


def _chosen(values: list[Contents | str], step: Step) -> list[int]:
    """The indices of the values that a step picks."""
    places = range(len(values))
    if isinstance(step.pick, Index):
        return list(places[step.pick.number : step.pick.number + 1])
    if isinstance(step.pick, Key):
        return [place for place in places if _key(values[place], step) == literals.spelled(step.pick.value)]
    return list(places)


def _key(entry: Contents | str, step: Step) -> Contents | str | None:
    """The key of a map's entry; an entry without a key has the default one."""
    key = field_of(step.field.message_type, "key") if step.field else None
    written = entry.get("key") if isinstance(entry, dict) else None
    return written[-1] if written else literals.spelled(key.default_value) if key else None
