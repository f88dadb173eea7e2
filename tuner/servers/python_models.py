"""Examines the source of a Python-backend model without running it.

Triton starts a process for each Python model to complete its config (`auto_complete_config`). When it unloads a model,
it waits a second for each instance (`finalize`). Most models define neither method, so both steps can be skipped.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

_CLASS = "TritonPythonModel"  # the name that the Python backend looks for


def may_define(model_file: Path, method: str) -> bool:
    """Whether the model may define a method.

    False is certain: the file does not contain the name, and its class has no bases or decorators that could define it.
    Unclear cases are True.
    """
    try:
        text = model_file.read_text(encoding="utf-8")
        tree = ast.parse(text)
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError, SystemError):
        return True  # the last three are raised for text nested too deeply for Python's parser
    if re.search(rf"\b{method}\b", text):
        return True
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == _CLASS]
    return len(classes) != 1 or bool(classes[0].bases or classes[0].keywords or classes[0].decorator_list)


def is_complete(model: Path) -> bool:
    """Whether a model's config is complete.

    A complete config names the Python backend, inputs and outputs with their types and shapes, and `max_batch_size`.
    Also, no version of the code defines `auto_complete_config`. Unclear cases are False.
    """
    try:
        text = (model / "config.pbtxt").read_text(encoding="utf-8")
        config = text_format.Parse(text, model_config_pb2.ModelConfig(), allow_unknown_field=True)
    except (OSError, ValueError, text_format.ParseError):
        return False
    return (
        config.backend == "python"
        and re.search(r"\bmax_batch_size\s*:", text) is not None
        and _described(config)
        and not any(may_define(file, "auto_complete_config") for file in _sources(model, config))
    )


def may_call(model: Path) -> bool:
    """Whether a Python-backend model may call other models (BLS)."""
    try:
        return any("InferenceRequest" in file.read_text(encoding="utf-8") for file in model.rglob("*.py"))
    except (OSError, ValueError):
        return True


def _described(config: model_config_pb2.ModelConfig) -> bool:
    tensors = [*config.input, *config.output]
    complete = all(tensor.name and tensor.data_type and tensor.dims for tensor in tensors)
    return bool(config.input) and bool(config.output) and complete


def _sources(model: Path, config: model_config_pb2.ModelConfig) -> Iterator[Path]:
    for version in model.iterdir():
        if version.name.isdecimal():
            yield version / (config.default_model_filename or "model.py")
