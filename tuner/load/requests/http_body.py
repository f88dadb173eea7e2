"""Serialises requests for HTTP: JSON, followed by binary tensors."""

from __future__ import annotations

import json
from typing import Any

from tuner.load.requests.message import MessageInput, RequestMessage, Slice


def http_body(message: RequestMessage) -> tuple[bytes, int]:
    """The body, and its number of JSON bytes. The model and its version are part of the URL."""
    # `binary_data_output` does not affect outputs in shared memory.
    head: dict[str, Any] = {
        "parameters": {**message.parameters, "binary_data_output": True},
        "inputs": [_input(tensor) for tensor in message.inputs],
    }
    if message.outputs:
        head["outputs"] = [
            {"name": name} if place is None else {"name": name, "parameters": place.parameters}
            for name, place in message.outputs.items()
        ]
    described = json.dumps(head, separators=(",", ":"), allow_nan=False).encode()
    raw = (tensor.content for tensor in message.inputs if isinstance(tensor.content, bytes))
    return b"".join((described, *raw)), len(described)


def _input(tensor: MessageInput) -> dict[str, Any]:
    content = tensor.content
    return {
        "name": tensor.name,
        "datatype": tensor.datatype,
        "shape": tensor.shape,
        "parameters": content.parameters if isinstance(content, Slice) else {"binary_data_size": len(content)},
    }
