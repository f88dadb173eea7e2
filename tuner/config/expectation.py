"""The same edits made on the protobuf: what an edited text must mean, with every other field as it was.

What the schema does not know, a protobuf does not show.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from tuner.config.paths import EVERY, Index, Key, Step, Steps
from tuner.config.schema import is_map, is_message, is_repeated
from tuner.config.values import Value


def set_in(message: Any, steps: Steps, value: Value) -> None:
    """Set what a path names to a value that fits; what is missing on the way is added."""
    step, below = steps[0], steps[1:]
    if step.field is None:
        return
    held = getattr(message, step.name)
    if is_map(step.field):
        for key in _keys(held, step):
            if is_message(step.field.message_type.fields_by_name["value"]):
                _descend(held[key], below[1:], value)
            else:
                held[key] = value
    elif is_message(step.field):
        for child in _added(held, step) if is_repeated(step.field) else [held]:
            _descend(child, below, value)
    elif isinstance(value, tuple):
        held[:] = [_stored(item, step.field) for item in value]
    else:
        setattr(message, step.name, _stored(value, step.field))


def clear_in(message: Any, steps: Steps) -> None:
    """Remove what a path names, where it is there."""
    step, below = steps[0], steps[1:]
    if step.field is None:
        return
    if not below and step.pick is EVERY:
        # Before its message was looked at: protobuf would clear all of its oneof then.
        message.ClearField(step.name)
        return
    held = getattr(message, step.name)
    if below and is_map(step.field):
        for key in _keys(held, step):
            if key in held:
                clear_in(held[key], below[1:])
    elif below:
        there = held if is_repeated(step.field) else [held] * message.HasField(step.name)
        for child in _picked(there, step):
            clear_in(child, below)
    elif isinstance(step.pick, Index):
        del held[step.pick.number : step.pick.number + 1]
    elif isinstance(step.pick, Key) and step.pick.value in held:
        del held[step.pick.value]


def _descend(child: Any, below: Steps, value: Value) -> None:
    child.SetInParent()
    if below:
        set_in(child, below, value)


def _keys(held: Any, step: Step) -> list[Any]:
    return [step.pick.value] if isinstance(step.pick, Key) else list(held)


def _added(held: Any, step: Step) -> list[Any]:
    if len(held) == (step.pick.number if isinstance(step.pick, Index) else 0):
        held.add()
    return _picked(held, step)


def _picked(held: Any, step: Step) -> list[Any]:
    number = step.pick.number if isinstance(step.pick, Index) else None
    return list(held) if number is None else list(held)[number : number + 1]


def _stored(value: Value, field: FieldDescriptor) -> Any:
    return field.enum_type.values_by_name[value].number if field.enum_type else value
