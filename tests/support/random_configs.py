"""Random configs in random handwriting: every spelling that protobuf's text format allows, and that Python reads."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from tritonclient.grpc import model_config_pb2

from tuner.config.literals import spelled
from tuner.config.schema import is_map, is_message, is_repeated
from tuner.config.values import EMPTY, Value

_WORDS = ["", "a", "KEY", 'say "x"', "it's", "back\\slash", "tab\tline\n", "é€😀", "\x01\x7f", "{[<,;", "\\?", "??"]
_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: [0, 1, 8, -1, 2**31 - 1, -(2**31)],
    FieldDescriptor.CPPTYPE_INT64: [0, 1, 64, -1, 2**63 - 1, -(2**63)],
    FieldDescriptor.CPPTYPE_UINT32: [0, 1, 100, 2**32 - 1],
    FieldDescriptor.CPPTYPE_UINT64: [0, 1, 5000, 2**64 - 1],
}
_FLOATS = [0.0, -0.0, 0.5, 1.0, -2.25, 1e10, math.inf, -math.inf]
_ESCAPES = {'"': r"\"", "'": r"\'", "\\": r"\\", "\n": r"\n", "\t": r"\t", "\a": r"\a", "\v": r"\v"}


def random_value(rng: random.Random, kind: FieldDescriptor) -> Any:
    """A value that a scalar field takes; an enum's by its name."""
    if kind.enum_type:
        return rng.choice([value.name for value in kind.enum_type.values])
    if kind.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if kind.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return rng.choice(_WORDS)
    return rng.choice(_INTEGERS.get(kind.cpp_type, _FLOATS))


def random_config(rng: random.Random) -> model_config_pb2.ModelConfig:
    """A config with any fields at all."""
    config = model_config_pb2.ModelConfig()
    _fill(rng, config, rng.choice([0.1, 0.3, 0.5]))
    return config


def _fill(rng: random.Random, message: Any, share: float) -> None:
    for kind in message.DESCRIPTOR.fields:
        if rng.random() > share or (kind.containing_oneof and message.WhichOneof(kind.containing_oneof.name)):
            continue
        held = getattr(message, kind.name)
        count = rng.randint(1, 3)
        if is_map(kind):
            value = kind.message_type.fields_by_name["value"]
            for _ in range(count):
                key = random_value(rng, kind.message_type.fields_by_name["key"])
                if is_message(value):
                    _fill(rng, held[key], share)
                else:
                    held[key] = random_value(rng, value)
        elif is_message(kind):
            for child in [held.add() for _ in range(count)] if is_repeated(kind) else [held]:
                child.SetInParent()
                _fill(rng, child, share)
        elif is_repeated(kind):
            held.extend(_stored(rng, kind) for _ in range(count))
        else:
            setattr(message, kind.name, _stored(rng, kind))


def _stored(rng: random.Random, kind: FieldDescriptor) -> Any:
    value = random_value(rng, kind)
    return kind.enum_type.values_by_name[value].number if kind.enum_type else value


@dataclass
class Handwriting:
    """Writes configs down, each in its own way.

    Attributes:
        rng: Decides how.
        strangers: Whether fields that no schema knows stand between the others.
        numbered: How many comments and strangers there are so far; each has its number in it.
    """

    rng: random.Random
    strangers: bool = True
    numbered: int = 0

    def written(self, config: model_config_pb2.ModelConfig) -> str:
        """The text of a config."""
        return self._gap() + self._fields(config)

    def _fields(self, message: Any) -> str:
        queues = [self._field(kind, held) for kind, held in message.ListFields()]
        pieces = []
        while any(queues):
            pieces.append(self.rng.choice([queue for queue in queues if queue]).pop(0))
        for _ in range(self.rng.choice([0, 0, 1]) if self.strangers else 0):
            pieces.insert(self.rng.randint(0, len(pieces)), self._stranger())
        return "".join(piece + self._may() + self.rng.choice(["", "", ",", ";"]) + self._gap() for piece in pieces)

    def _field(self, kind: FieldDescriptor, held: Any) -> list[str]:
        """The fields that hold a value, or the values of a list or map, some of them together."""
        if is_map(kind):
            items = [self._entry(kind, key, held[key]) for key in held]
        else:
            items = [self._item(kind, value) for value in (held if is_repeated(kind) else [held])]
        fields = []
        while items:
            if is_repeated(kind) and self.rng.random() < 0.5:
                count = self.rng.randint(1, len(items))
                listed = f"{self._may()},{self._may()}".join(items[:count])
                fields.append(self._named(kind, f"[{self._may()}{listed}{self._may()}]"))
                del items[:count]
            else:
                fields.append(self._named(kind, items.pop(0)))
        return fields

    def _named(self, kind: FieldDescriptor, value: str) -> str:
        colon = "" if is_message(kind) and self.rng.random() < 0.5 else ":"
        return f"{kind.name}{self._may()}{colon}{self._may()}{value}"

    def _entry(self, kind: FieldDescriptor, key: Any, value: Any) -> str:
        kinds = kind.message_type.fields_by_name
        parts = [self._named(kinds[name], self._item(kinds[name], v)) for name, v in (("key", key), ("value", value))]
        self.rng.shuffle(parts)
        return self._braced("".join(part + self._gap() for part in parts))

    def _item(self, kind: FieldDescriptor, value: Any) -> str:
        if is_message(kind):
            return self._braced(self._fields(value))
        if kind.enum_type:
            return self.rng.choice([str(kind.enum_type.values_by_number[value].name), str(value)])
        if isinstance(value, bool):
            return self.rng.choice(["true", "True", "t", "1"] if value else ["false", "False", "f", "0"])
        if isinstance(value, str):
            return self._string(value)
        return self._float(value) if isinstance(value, float) else self._integer(value)

    def _braced(self, inner: str) -> str:
        return self.rng.choice(["{{{}{}}}", "<{}{}>"]).format(self._may(), inner)

    def _integer(self, value: int) -> str:
        sign, size = "-" * (value < 0), abs(value)
        return sign + self.rng.choice([str(size), str(size), hex(size), f"0{size:o}" if size else "0"])

    def _float(self, value: float) -> str:
        if math.isinf(value):
            return self.rng.choice(["inf", "INF", "Infinity"] if value > 0 else ["-inf", "-Inf", "-infinity"])
        return self.rng.choice([repr(value), f"{value!r}f", f"{value:E}", repr(value).removesuffix("0")])

    def _string(self, value: str) -> str:
        cut = self.rng.randint(0, len(value))
        pieces = [value[:cut], value[cut:]] if self.rng.random() < 0.3 else [value]
        return self._may().join(self._literal(piece) for piece in pieces)

    def _literal(self, piece: str) -> str:
        quote = self.rng.choice("'\"")
        return quote + "".join(self._char(char, quote) for char in piece) + quote

    def _char(self, char: str, quote: str) -> str:
        forms = [
            "".join(f"\\{byte:03o}" for byte in char.encode()),
            "".join(f"\\x{byte:02x}" for byte in char.encode()),
        ]
        forms += [f"\\u{ord(char):04x}"] if ord(char) < 2**16 else [f"\\U{ord(char):08X}"]
        plain = [char] if char not in f"{quote}\\\n" else []
        return self.rng.choice([*forms, *3 * plain, *3 * ([_ESCAPES[char]] if char in _ESCAPES else [])])

    def _stranger(self) -> str:
        self.numbered += 1
        value = self.rng.choice(
            [
                ": 1",
                ": -inf",
                ": SOME_ENUM",
                ": \"a\" 'b'",
                ": [ 1, -2.5, 0x1F ]",
                ' { deep < a: "x", b: [ONE, TWO]; > }',
                ": [ { }, < c: 1 > ]",
                ": []",
            ]
        )
        return f"stranger_{self.numbered}{value}"

    def _gap(self) -> str:
        return self.rng.choice([" ", " ", "\n", "\n  ", "\n\n", "\t", "\r\n", self._comment()])

    def _may(self) -> str:
        return self.rng.choice(["", "", "", self._gap()])

    def _comment(self) -> str:
        self.numbered += 1
        return f" #c{self.numbered}; \"'{{ [\n"


def quoted(key: Any) -> str:
    """A map's key as a field path writes it."""
    return str(key) if isinstance(key, int) else spelled(key)


def all_paths(message: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every field that a message shows, by its path: its value, the list of them, or None for a message."""
    for kind, held in message.ListFields():
        path = prefix + str(kind.name)
        if is_map(kind):
            for key in held:
                yield from _value_paths(kind.message_type.fields_by_name["value"], held[key], f"{path}[{quoted(key)}]")
        elif is_message(kind) and is_repeated(kind):
            for index, child in enumerate(held):
                yield from _value_paths(kind, child, f"{path}[{index}]")
        else:
            yield from _value_paths(kind, held, path)


def _value_paths(kind: FieldDescriptor, held: Any, path: str) -> Iterator[tuple[str, Any]]:
    if is_message(kind):
        yield path, None
        yield from all_paths(held, f"{path}.")
    elif isinstance(held, bool | int | float | str):
        yield path, _named_enum(kind, held)
    else:
        yield path, tuple(_named_enum(kind, item) for item in held)


def _named_enum(kind: FieldDescriptor, value: Any) -> Any:
    return kind.enum_type.values_by_number[value].name if kind.enum_type else value


def random_edit(rng: random.Random, config: model_config_pb2.ModelConfig) -> tuple[str, Value]:
    """A field path that an edit of the config can take, and a value for it."""
    path, schema, messages = "", config.DESCRIPTOR, [config]
    while True:
        # Deep ones are rare by chance, so that messages are preferred.
        kind = rng.choice([kind for kind in schema.fields if is_message(kind) or rng.random() < 0.4] or schema.fields)
        path += str(kind.name)
        messages = [getattr(message, kind.name) for message in messages]
        if is_map(kind):
            path, kind, messages = _into_map(rng, path, kind, messages)
        elif is_message(kind) and is_repeated(kind):
            count = len(messages[0]) if len(messages) == 1 else 0
            index = rng.choice([None, rng.randint(0, count)])
            path += "[*]" if index is None else f"[{index}]"
            messages = [
                child for held in messages for child in (held if index is None else list(held)[index : index + 1])
            ]
        if not is_message(kind):
            value = random_value(rng, kind)
            return path, tuple(random_value(rng, kind) for _ in range(rng.randint(1, 3))) if is_repeated(
                kind
            ) else value
        if not kind.message_type.fields or rng.random() < 0.15:
            return path, EMPTY
        path, schema = f"{path}.", kind.message_type


def _into_map(
    rng: random.Random, path: str, kind: FieldDescriptor, messages: list[Any]
) -> tuple[str, FieldDescriptor, list[Any]]:
    keys = [key for held in messages for key in held]
    key = rng.choice([*keys, random_value(rng, kind.message_type.fields_by_name["key"])])
    value = kind.message_type.fields_by_name["value"]
    return f"{path}[{quoted(key)}]", value, [held[key] for held in messages if key in held]
