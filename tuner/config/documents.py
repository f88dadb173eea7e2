"""JSON and YAML files of a model: their values, and edits that change only the named ones.

An edit splices the text, so that comments, order and style survive. The result is parsed again and compared with the
same edit of the file's contents.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from tuner.core.errors import ConfigError, nearest

Scalar = bool | int | float | str
DocumentValue = Scalar | tuple[Scalar, ...]
"""A value that an edit can set: a scalar, or a list of scalars."""

SUFFIXES = (".json", ".yaml", ".yml")

_SEGMENT = re.compile(r'(?:^|\.)(?P<name>[^.\[\]"]+)|\[(?P<index>\d+)\]|\[(?P<key>"(?:[^"\\]|\\.)*")\]')
_BLANK = re.compile(r"[ \t\r\n]*")

_Path = tuple[str | int, ...]


@dataclass
class _Node:
    """A value in the text, from offset `start` to `end`; a mapping or a list also has its children.

    Attributes:
        children: The values below it, by key or index.
        keys: Where the key of each child begins; for a list, where the child begins.
        block: Whether the children of a YAML node stand on lines of their own, without brackets.
    """

    start: int
    end: int
    children: dict[str | int, _Node] = field(default_factory=dict)
    keys: dict[str | int, int] = field(default_factory=dict)
    block: bool = False


@dataclass(frozen=True)
class Document:
    """The text of a JSON or YAML file.

    Field paths: `a.b`, `a[0].b`, or `a["key.with.dots"].b`.

    Attributes:
        text: The whole file.
        source: Its name, which ends in .json, .yaml or .yml, for error messages.

    Raises:
        ConfigError: the text is not valid, or its top is not a mapping.
    """

    text: str
    source: str

    def __post_init__(self) -> None:
        if not isinstance(_contents(self.text, self.source), dict):
            raise ConfigError(f"{self.source}: its top must be a mapping of names to values")

    def value(self, path: str) -> Any:
        """The value at a path; None if it is absent or null.

        Raises:
            ConfigError: the path is not valid, or leads through a value that is no mapping or list.
        """
        here: Any = _contents(self.text, self.source)
        for number, step in enumerate(steps := _steps(path)):
            _check_step(here, step, f"{self.source}: {path}")
            last = number == len(steps) - 1
            if isinstance(here, dict) and step not in here:
                if last:
                    return None
                raise ConfigError(f"{self.source}: {path}: no {step!r}{nearest(str(step), map(str, here))}")
            here = here[step]
        return here

    def edited(self, changes: Mapping[str, DocumentValue | None]) -> Document:
        """The document with changed values; all other bytes stay.

        Args:
            changes: New values by path; None removes the key.

        Raises:
            ConfigError: a path leads nowhere, or the value cannot be changed without changing others.
        """
        document = self
        for path, value in changes.items():
            document = document._with(path, value)
        return document

    def _with(self, path: str, value: DocumentValue | None) -> Document:
        before = self.value(path)
        if value is None and before is None:
            return self
        plain = list(value) if isinstance(value, tuple) else value
        if value is not None and before == plain and type(before) is type(plain):
            return self
        *way, last = _steps(path)
        try:
            expected = _unshared(_contents(self.text, self.source))
        except RecursionError:
            raise ConfigError(f"{self.source}: nested too deeply") from None
        parent: Any = expected
        node = _tree(self.text, self.source)
        for step in way:
            parent, node = parent[step], node.children[step]
        if value is None:
            if isinstance(last, int):
                raise ConfigError(f"{self.source}: {path}: an element of a list cannot be removed")
            del parent[last]
            text = _without(self.text, node, last)
        elif last in node.children:
            parent[last] = plain
            child = node.children[last]
            text = self.text[: child.start] + self._spelled(plain) + self.text[child.end :]
        else:
            parent[last] = plain
            text = self._with_new(node, str(last), plain)
        try:
            same = _contents(text, self.source) == expected
        except ConfigError:
            same = False
        if not same:
            raise ConfigError(f"{self.source}: {path} cannot be changed without changing other values")
        return Document(text, self.source)

    def _spelled(self, value: Any) -> str:
        if self.source.endswith(".json"):
            return json.dumps(value, ensure_ascii=False)
        text: str = yaml.safe_dump(value, default_flow_style=True, width=2**20, allow_unicode=True)
        return text.removesuffix("...\n").rstrip("\n")

    def _with_new(self, parent: _Node, key: str, value: Any) -> str:
        """The text with a new key at the end of a mapping, in the style of the entry before it."""
        text = self.text
        entry = f"{self._spelled(key)}: {self._spelled(value)}"
        if not parent.children:
            return (
                f"{text[: parent.start]}{{{entry}}}{text[parent.end :]}" if parent.end > parent.start else text + entry
            )
        end = max(child.end for child in parent.children.values())
        starts = sorted(parent.keys.values())
        if not parent.block:
            before = text[: starts[-1]]
            gap = before[before.rfind("{" if len(starts) == 1 else ",") + 1 :]
            return f"{text[:end]},{gap or ' '}{entry}{text[end:]}"
        end_of_line = text.find("\n", end)
        at = len(text) if end_of_line < 0 else end_of_line
        # The first key of a list's element follows a dash.
        indent = " " * (starts[0] - text.rfind("\n", 0, starts[0]) - 1)
        return f"{text[:at]}\n{indent}{entry}{text[at:]}"


def _without(text: str, parent: _Node, key: str | int) -> str:
    """The text without an entry of a mapping: with its comma, or with its lines."""
    child, start = parent.children[key], parent.keys[key]
    if parent.block:
        begin = text.rfind("\n", 0, start) + 1
        end = text.find("\n", child.end)
        return text[:begin] + (text[end + 1 :] if end >= 0 else "")
    following = _BLANK.match(text, child.end)
    after = following.end() if following else child.end
    if text[after : after + 1] == ",":
        following = _BLANK.match(text, after + 1)
        return text[:start] + text[following.end() if following else after + 1 :]
    before = text[:start].rstrip()
    return before.removesuffix(",") + text[child.end :]


def _contents(text: str, source: str) -> Any:
    try:
        if source.endswith(".json"):
            return json.loads(text)
        return yaml.safe_load(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{source}:{error.lineno}:{error.colno}: {error.msg}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise ConfigError(f"{source}{place}: not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, RecursionError, ValueError, TypeError, AttributeError, LookupError):
        raise ConfigError(f"{source}: not valid {'JSON' if source.endswith('.json') else 'YAML'}") from None


def _unshared(value: Any) -> Any:
    """A copy in which the values that YAML's aliases share are apart, so that an edit of one shows."""
    if isinstance(value, dict):
        return {key: _unshared(content) for key, content in value.items()}
    return [_unshared(item) for item in value] if isinstance(value, list) else value


def _tree(text: str, source: str) -> _Node:
    if not source.endswith(".json"):
        root = yaml.compose(text, yaml.SafeLoader)
        return _of_yaml(root) if root else _Node(0, 0)
    return _of_json(text, _skipped(text, 0))


def _of_yaml(node: yaml.Node) -> _Node:
    made = _Node(node.start_mark.index, node.end_mark.index, block=not getattr(node, "flow_style", True))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                made.children[key.value] = _of_yaml(value)
                made.keys[key.value] = key.start_mark.index
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            made.children[index] = _of_yaml(value)
            made.keys[index] = value.start_mark.index
    if made.block and made.children:
        # A block ends with its last value, not before what follows it.
        made.end = max(child.end for child in made.children.values())
    return made


def _of_json(text: str, start: int) -> _Node:
    """The node of a value of valid JSON that begins at `start`."""
    _, end = json.JSONDecoder().raw_decode(text, start)
    made = _Node(start, end)
    if text[start] not in "{[":
        return made
    position = _skipped(text, start + 1)
    while text[position] not in "}]":
        key: str | int = len(made.children)
        made_at = position
        if text[start] == "{":
            key, position = json.JSONDecoder().raw_decode(text, position)
            position = _skipped(text, _skipped(text, position) + 1)
        child = _of_json(text, position)
        made.children[key], made.keys[key] = child, made_at
        position = _skipped(text, child.end)
        if text[position] == ",":
            position = _skipped(text, position + 1)
    return made


def _skipped(text: str, position: int) -> int:
    blank = _BLANK.match(text, position)
    return blank.end() if blank else position


def _steps(path: str) -> _Path:
    return tuple(_parsed_steps(path))


def _parsed_steps(path: str) -> Iterator[str | int]:
    position = 0
    while position < len(path) or not path:
        match = _SEGMENT.match(path, position)
        if not match or not match.group():
            raise ConfigError(f'invalid field path {path!r}; write it as a.b, a[0].b or a["key"].b')
        yield match["name"] or (int(match["index"]) if match["index"] else json.loads(match["key"]))
        position = match.end()


def _check_step(here: Any, step: str | int, what: str) -> None:
    if isinstance(step, int):
        if not isinstance(here, list) or step >= len(here):
            raise ConfigError(f"{what}: there is no element {step}")
    elif not isinstance(here, dict):
        raise ConfigError(f"{what}: what holds {step!r} is not a mapping")
