"""Reads YAML of job files, space files and option values, and reports errors in one line.

Only `true` and `false` are booleans, as in YAML 1.2. `on`, `off`, `yes`, `no` and `12:30` are text. PyYAML follows YAML
1.1, in which `no` is false and `12:30` is 750.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tuner.core.errors import JobError, shortened

_BOOL, _INT, _FLOAT = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_MOST_BITS = 1024  # doubles have at most 1,024 bits before the point


class _Loader(yaml.SafeLoader):
    """Refuses duplicate keys and too large numbers; reads words such as `no`, and times, as text."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        """The tag of a node, which is its type."""
        tag = super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]  # its stubs lack types
        is_word = tag == _BOOL and value.lower() not in {"true", "false"}
        is_time = tag in {_INT, _FLOAT} and ":" in value
        return self.DEFAULT_SCALAR_TAG if is_word or is_time else tag

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 (as PyYAML has it)
        """See `yaml.SafeLoader`."""
        keys: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in keys and key.value != "<<":
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value} is given twice", key.start_mark)
                keys.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> int:
        """A whole number."""
        number = self.construct_yaml_int(node)
        if number.bit_length() > _MOST_BITS:
            raise yaml.constructor.ConstructorError(None, None, "number is too large", node.start_mark)
        return number


_Loader.add_constructor(_INT, _Loader.construct_number)


class YamlError(ValueError):
    """The text is not valid YAML. The message, `:LINE:COLUMN: problem`, continues the name of the file."""


def load_yaml(text: str) -> Any:
    """The content of a text in YAML.

    Raises:
        YamlError: the text is not valid YAML.
    """
    try:
        return yaml.load(text, _Loader)  # noqa: S506 (it is a safe loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f":{mark.line + 1}:{mark.column + 1}" if mark is not None else ""
        # A ConstructorError says itself what is wrong; a parser's error only what it expected.
        kind = "" if isinstance(error, yaml.constructor.ConstructorError) else "not valid YAML: "
        raise YamlError(f"{place}: {kind}{error.problem or 'unknown problem'}") from None
    except yaml.YAMLError:
        raise YamlError(": not valid YAML") from None
    except RecursionError:
        raise YamlError(": nested too deeply") from None
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        # PyYAML does not catch errors of constructors, such as datetime.date's for `2026-99-99`.
        raise YamlError(f": not valid YAML: {shortened(str(error), 100)}") from None


def read_yaml(path: Path) -> Any:
    """The content of a YAML file.

    Raises:
        JobError: the file cannot be read, or is not valid YAML.
    """
    try:
        return load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise JobError(f"{path}: cannot be read: {reason}") from None
    except YamlError as error:
        raise JobError(f"{path}{error}") from None
