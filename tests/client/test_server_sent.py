from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tuner.client.server_sent import Message, messages

_STREAM = (
    "\ufeff: a comment\n\n"
    "id: 1\nevent: note\ndata: one\ndata:two\n\n"
    "data: three\r\n\r\n"
    "id: 2\rretry: 3\rdata: four é\r\r"
    "event: empty\n\n"
    "data\n\n"
    "data: cut off"
).encode()
_MESSAGES = [
    Message("one\ntwo", "note", "1"),
    Message("three", "message", "1"),
    Message("four é", "message", "2"),
    Message("", "message", "2"),
]


def test_a_stream() -> None:
    assert list(messages([_STREAM])) == _MESSAGES


@given(st.lists(st.integers(0, len(_STREAM)), max_size=20))
def test_parts_of_any_size(cuts: list[int]) -> None:
    at = [0, *sorted(cuts), len(_STREAM)]
    assert list(messages(_STREAM[low:high] for low, high in pairwise(at))) == _MESSAGES
