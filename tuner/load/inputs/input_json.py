"""Reads inputs in the JSON format of perf_analyzer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tuner.config.interface import ModelInterface
from tuner.core.errors import InputError, nearest
from tuner.load.inputs.batches import PlacedStep
from tuner.load.inputs.json_tensors import JsonStep, Side
from tuner.load.inputs.tensors import RequestStep

_TOP = ("data", "validation_data")


def read_json(
    path: Path, interface: ModelInterface, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[tuple[PlacedStep, ...], ...]:
    """Read the streams of a file.

    Raises:
        InputError: the file is not in this format, or does not fit the model.
        OSError: the file cannot be read.
    """
    top = load_json(path)
    for key in top:
        if key not in _TOP:
            raise InputError(f"{path}: unknown key {key!r}{nearest(key, _TOP)}")
    streams = _entries(f"{path}: data", top["data"])
    answers = _entries(f"{path}: validation_data", top["validation_data"]) if "validation_data" in top else None
    if answers is not None:
        _check_aligned(path, streams, answers)
    inputs = Side("input", interface.name, interface.inputs, shapes)
    outputs = Side("output", interface.name, interface.outputs)
    return tuple(
        tuple(
            PlacedStep(entry.place, RequestStep(inputs.read(entry), outputs.read(answers[i][j]) if answers else ()))
            for j, entry in enumerate(stream)
        )
        for i, stream in enumerate(streams)
    )


def load_json(path: Path) -> dict[str, Any]:
    """Parse a file, without checks against a model.

    Raises:
        InputError: it is not JSON, or not an object with the key `data`.
        OSError: the file cannot be read.
    """
    try:
        top = json.loads(path.read_text("utf-8-sig"), object_pairs_hook=_distinct)
    except UnicodeDecodeError:
        raise InputError(f"{path}: not JSON in UTF-8 (a NumPy archive must be named .npz)") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}:{error.colno}: invalid JSON: {error.msg}") from None
    except RecursionError:
        raise InputError(f"{path}: lists are nested too deeply") from None
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    if not isinstance(top, dict) or "data" not in top:
        raise InputError(f'{path}: must be an object with a list "data" of steps')
    return top


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"duplicate key {next(key for key in keys if keys.count(key) > 1)!r} in an object")
    return result


def _entries(where: str, data: Any) -> tuple[tuple[JsonStep, ...], ...]:
    """The streams in a list of steps (one stream), or in a list of lists of steps."""
    if not isinstance(data, list) or not data:
        raise InputError(f"{where}: must be a non-empty list of steps, or of lists of steps")
    if all(isinstance(stream, list) for stream in data):
        return tuple(_stream(f"{where}[{number}]", stream) for number, stream in enumerate(data))
    if any(isinstance(stream, list) for stream in data):
        raise InputError(f"{where}: mixes steps and lists of steps; use only one of them")
    return (_stream(where, data),)


def _stream(where: str, steps: Sequence[Any]) -> tuple[JsonStep, ...]:
    if not steps:
        raise InputError(f"{where}: no steps")
    for number, step in enumerate(steps):
        if not isinstance(step, dict):
            raise InputError(f"{where}[{number}]: a step must be an object of tensors by name")
    return tuple(JsonStep(f"{where}[{number}]", step) for number, step in enumerate(steps))


def _check_aligned(
    path: Path, streams: tuple[tuple[JsonStep, ...], ...], answers: tuple[tuple[JsonStep, ...], ...]
) -> None:
    counts, answered = ([len(stream) for stream in side] for side in (streams, answers))
    if len(counts) != len(answered):
        raise InputError(f"{path}: data has {len(counts)} streams, but validation_data has {len(answered)}")
    for number, (steps, others) in enumerate(zip(counts, answered, strict=True)):
        if steps != others:
            which = f"stream {number} of " if len(counts) > 1 else ""
            raise InputError(f"{path}: {which}data has {steps} steps, but {which}validation_data has {others}")
