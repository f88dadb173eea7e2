"""Pages of a list: the cursor is the place of the last item, so that added rows shift nothing."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from tuner.client.resources import Page
from tuner.service.errors import CursorError

MOST = 500
"""The most items on a page."""

LARGEST_ID = 2**31 - 1
"""The largest id that the tables can hold."""

Item = TypeVar("Item")


def page_of(items: Sequence[Item], limit: int, kind: str, place_of: Callable[[Item], int | str]) -> Page[Item]:
    """A page.

    Args:
        items: Up to one item more than the page holds; that one tells whether another page follows.
        limit: The most items on the page.
        kind: The kind of the list, such as `jobs`.
        place_of: The value by which the list is sorted.
    """
    shown = tuple(items[:limit])
    following = _encoded(kind, place_of(shown[-1])) if shown and len(items) > limit else None
    # Made of rows that were checked when they were stored; the page itself needs no check.
    return Page.model_construct(items=shown, next=following)


class Paged(Protocol[Item]):
    """A list that comes in pages."""

    def __call__(self, *, cursor: str | None = None, limit: int = 50) -> Page[Item]:
        """A page."""
        ...


def every(pages: Paged[Item]) -> Iterator[Item]:
    """All items of a list that comes in pages."""
    cursor = None
    while True:
        page = pages(cursor=cursor, limit=MOST)
        yield from page.items
        cursor = page.next
        if cursor is None:
            return


def number_of(cursor: str | None, kind: str) -> int | None:
    """The id in a cursor; None: the list's beginning.

    Raises:
        CursorError: it is no cursor of this list.
    """
    value = _decoded(cursor, kind)
    if value is not None and not (type(value) is int and 0 < value <= LARGEST_ID):
        raise _wrong(cursor, kind)
    return value


def name_of(cursor: str | None, kind: str) -> str | None:
    """The name in a cursor; None: the list's beginning.

    Raises:
        CursorError: it is no cursor of this list.
    """
    value = _decoded(cursor, kind)
    if value is not None and not (isinstance(value, str) and value.isprintable() and len(value) <= 100):
        raise _wrong(cursor, kind)
    return value


def checked_limit(limit: int) -> int:
    """A page's limit, from 1 to `MOST`."""
    return min(max(limit, 1), MOST)


def _encoded(kind: str, place: int | str) -> str:
    return base64.urlsafe_b64encode(json.dumps([kind, place]).encode()).decode().rstrip("=")


def _decoded(cursor: str | None, kind: str) -> object:
    if cursor is None:
        return None
    try:
        of, place = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (ValueError, TypeError, binascii.Error, RecursionError):
        raise _wrong(cursor, kind) from None
    if of != kind or place is None:
        raise _wrong(cursor, kind)
    return place


def _wrong(cursor: object, kind: str) -> CursorError:
    return CursorError(f"cursor: {str(cursor)[:60]!r} is not the `next` of a page of {kind}")
