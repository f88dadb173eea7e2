"""Reads Server-Sent Events, as https://html.spec.whatwg.org/multipage/server-sent-events.html describes them."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_LINE_END = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True)
class Message:
    """A message.

    Attributes:
        data: Its lines of data.
        event: Its type.
        id: The last id that the stream has given; empty: none.
    """

    data: str
    event: str = "message"
    id: str = ""


def messages(chunks: Iterable[bytes]) -> Iterator[Message]:
    """The messages of a stream, in parts of any size; a message that the end of the stream cuts off is dropped."""
    data: list[str] = []
    event, last_id = "", ""
    for line in _lines(chunks):
        if not line:
            if data:
                yield Message("\n".join(data), event or "message", last_id)
            data, event = [], ""
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        elif name == "event":
            event = value
        elif name == "id" and "\0" not in value:
            last_id = value


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Complete lines, without their ends."""
    decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
    rest, first = "", True
    for chunk in chunks:
        rest += decode(chunk)
        if first and rest:
            rest, first = rest.removeprefix("\ufeff"), False
        # A line feed may follow in the next chunk.
        held = "\r" if rest.endswith("\r") else ""
        *lines, rest = _LINE_END.split(rest.removesuffix(held))
        rest += held
        yield from lines
