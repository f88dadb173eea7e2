"""Messages between the server and a Python instance's process: pickled, each with a length prefix."""

from __future__ import annotations

import pickle
import socket
import struct
import threading
from typing import Any

_LENGTH = struct.Struct("<Q")


def packed(message: Any) -> bytes:
    """A message as bytes."""
    content = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(content)) + content


class Unpacker:
    """Splits received bytes into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Any]:
        """The messages that are complete with this chunk."""
        self._buffer += data
        messages = []
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                break
            messages.append(pickle.loads(bytes(self._buffer[_LENGTH.size : end])))  # noqa: S301 (from our own child)
            del self._buffer[:end]
        return messages


class ChildEnd:
    """The instance process's end of the pipe, which blocks; several threads may send."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._unpacker = Unpacker()
        self._lock = threading.Lock()

    def send(self, message: Any) -> None:
        """Send a message."""
        with self._lock:
            self._sock.sendall(packed(message))

    def receive(self) -> list[Any] | None:
        """Wait for messages; None: the server has ended."""
        try:
            data = self._sock.recv(1 << 18)
        except OSError:
            return None
        return self._unpacker.feed(data) if data else None
