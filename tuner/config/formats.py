"""Export formats of a config: text, JSON, and a Kubernetes ConfigMap."""

from __future__ import annotations

import hashlib
import re
from typing import Any, Literal

import yaml
from google.protobuf import json_format

from tuner.config.config import ModelConfig
from tuner.config.repository import CONFIG
from tuner.core.errors import ConfigError

ConfigFormat = Literal["pbtxt", "json", "configmap"]

# Kubernetes' limit for all values of a ConfigMap.
_MOST_BYTES = 2**20
_MOST_LETTERS = 48
_NAME_SUFFIX = "-config"


def config_json(config: ModelConfig) -> str:
    """The config as protobuf's JSON, with field names as in the text. Triton accepts it as a config override.

    Comments are lost, and 64-bit numbers become strings.

    Raises:
        ConfigError: the config has unknown fields, which would be lost.
    """
    if unknown := config.unknown_fields:
        raise ConfigError(
            f"{config.source}: {', '.join(unknown)}: unknown field, which JSON would lose; "
            "export as pbtxt or configmap, which keep the text"
        )
    return json_format.MessageToJson(config.proto, preserving_proto_field_name=True) + "\n"


def config_map(model: str, text: str) -> str:
    """A ConfigMap with the text as `config.pbtxt`, byte for byte, for `kubectl apply --filename`.

    Args:
        model: The model's name, which is also stored in an annotation.
        text: The text of its config.pbtxt.

    Raises:
        ConfigError: the text is larger than a ConfigMap may be.
    """
    if (size := len(text.encode())) > _MOST_BYTES:
        raise ConfigError(f"{model}: config of {size:,} bytes is too large for a ConfigMap (1 MiB)")
    head = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": config_map_name(model),
            "labels": {"app.kubernetes.io/managed-by": "tritontune"},
            "annotations": {"tritontune/model": model},
        },
    }
    return f"{_yaml(head)}data:\n  {CONFIG}: {_block(text)}"


def config_map_name(model: str) -> str:
    """A valid Kubernetes name (RFC 1123): lower case letters, digits and dashes.

    If the model's name is not valid, digits of its SHA-256 keep `Model` and `model` apart.
    """
    plain = re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")[:_MOST_LETTERS].strip("-")
    if plain != model:
        plain = "-".join(part for part in (plain or "model", hashlib.sha256(model.encode()).hexdigest()[:8]) if part)
    return plain + _NAME_SUFFIX


def _block(text: str) -> str:
    """The text as a YAML literal block, or as a quoted string if a block cannot represent every byte."""
    if not all(letter in "\t\n" or letter.isprintable() for letter in text) or not text.strip("\n"):
        quoted = _yaml(text, default_style='"')
        return quoted if quoted.endswith("\n") else quoted + "\n"
    body = text.rstrip("\n")
    newlines = len(text) - len(body)
    indent = "2" if text[0] in " \t\n" else ""
    keep = {0: "-", 1: ""}.get(newlines, "+")
    lines = [f"    {line}" if line else "" for line in body.split("\n")]
    return "\n".join([f"|{indent}{keep}", *lines]) + "\n" * max(1, newlines)


def _yaml(value: Any, **style: Any) -> str:
    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=2**20, **style)
    return text
