"""YAML as people write it, read so that whatever is wrong with it is one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tuner.core.errors import JobError, shortened

_MOST_BITS = 1024  # as many as a double can stand for


class Loader(yaml.SafeLoader):
    """Takes a key that is there twice, and a number that nobody can mean, for the mistakes that they are."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 (as PyYAML has it)
        """See `yaml.SafeLoader`."""
        keys: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in keys and key.value != "<<":
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value} is there twice", key.start_mark)
                keys.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> int:
        """A whole number."""
        number = self.construct_yaml_int(node)
        if number.bit_length() > _MOST_BITS:
            raise yaml.constructor.ConstructorError(None, None, "is too large a number", node.start_mark)
        return number


Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_number)


class YamlError(ValueError):
    """What is wrong in a text, as `:LINE:COLUMN: problem`, to stand behind the name of its file."""


def load_yaml(text: str, loader: type[Loader] = Loader) -> Any:
    """What a text in YAML says.

    Raises:
        YamlError: it is none.
    """
    try:
        return yaml.load(text, loader)  # noqa: S506 (it is a safe loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f":{mark.line + 1}:{mark.column + 1}" if mark is not None else ""
        raise YamlError(f"{place}: {error.problem or 'not valid YAML'}") from None
    except yaml.YAMLError:
        raise YamlError(": not valid YAML") from None
    except RecursionError:
        raise YamlError(": is nested too deeply") from None
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        # PyYAML's constructors let through what they meet: `2026-99-99` looks like a date, and is none.
        raise YamlError(f": not valid YAML: {shortened(str(error), 100)}") from None


def read_yaml(path: Path) -> Any:
    """What a YAML file says.

    Raises:
        JobError: the file cannot be read, or is no YAML.
    """
    try:
        return load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise JobError(f"{path}: cannot be read: {reason}") from None
    except YamlError as error:
        raise JobError(f"{path}{error}") from None
