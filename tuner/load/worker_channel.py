"""Messages between a worker process and its owner: pickled objects and file descriptors over a socket pair."""

from __future__ import annotations

import pickle
import socket
from types import TracebackType
from typing import Any

from typing_extensions import Self

_LENGTH_BYTES = 8
_MOST_DESCRIPTORS = 4


class Channel:
    """One end of the socket pair.

    Args:
        end: The socket; closed with the channel.
    """

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def fileno(self) -> int:
        """The descriptor of the socket, for `select`."""
        return self._end.fileno()

    def send(self, message: object, descriptors: tuple[int, ...] = ()) -> None:
        """Send an object, with copies of file descriptors.

        Raises:
            OSError: the other end is closed, or does not read within the socket's time-out.
        """
        body = pickle.dumps(message)
        socket.send_fds(self._end, [len(body).to_bytes(_LENGTH_BYTES, "little")], list(descriptors))
        self._end.sendall(body)

    def receive(self) -> tuple[Any, list[int]]:
        """Receive the next object and its descriptors.

        Raises:
            EOFError: the other end is closed.
        """
        head, descriptors, _, _ = socket.recv_fds(self._end, _LENGTH_BYTES, _MOST_DESCRIPTORS)
        head += self._exactly(_LENGTH_BYTES - len(head)) if head else b""
        if not head:
            raise EOFError
        # The other end is our own process, so unpickling is safe.
        return pickle.loads(self._exactly(int.from_bytes(head, "little"))), descriptors  # noqa: S301

    def close(self) -> None:
        """Close this end; may be repeated."""
        self._end.close()

    def _exactly(self, count: int) -> bytes:
        pieces = bytearray(count)
        view = memoryview(pieces)
        while view:
            if not (got := self._end.recv_into(view)):
                raise EOFError
            view = view[got:]
        return bytes(pieces)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
