"""Streams of events (Server-Sent Events): any number of readers of a job, and one look at its file for all of them.

A reader that is behind, as at its beginning or because its network is slow, reads the file by itself, in parts. Others
receive what the job's follower has read last. So a slow reader costs no memory, and no reader slows another one.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from anyio import to_thread

from tuner.client.resources import FINAL
from tuner.jobs.event_log import EventLog, EventTail
from tuner.jobs.events import Event, StateChanged
from tuner.service.auth import Principal
from tuner.service.refusals import LimitError

POLL_S = 0.25
"""Pause between two looks at a job's file, in seconds."""

_KEEP_ALIVE_S = 15.0
# Events that a follower keeps for readers that are a little behind.
_RECENT = 500
# Bytes of the file that a reader reads at a time.
_PART = 1 << 18


@dataclass
class _Follower:
    """Follows the file of one job for all of its readers."""

    tail: EventTail
    recent: deque[tuple[int, bytes, bool]] = field(default_factory=lambda: deque(maxlen=_RECENT))
    readers: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    @property
    def seq(self) -> int:
        """Number of the last event that it has read."""
        return self.tail.seq

    def since(self, seq: int) -> list[tuple[int, bytes, bool]] | None:
        """The events after a number; None: it no longer has all of them."""
        if seq >= self.seq:
            return []
        if not self.recent or self.recent[0][0] > seq + 1:
            return None
        return [entry for entry in self.recent if entry[0] > seq]

    async def run(self) -> None:
        """Look at the file again and again."""
        while True:
            with suppress(OSError):  # it may be readable again later
                if events := await to_thread.run_sync(self.tail.new):
                    self.recent.extend(map(_written, events))
                    self.changed.set()
                    self.changed = asyncio.Event()
            await asyncio.sleep(POLL_S)


class EventStreams:
    """The open streams.

    Args:
        most: Most streams at once.
        most_per_token: Most streams at once of a token.
        is_valid: Whether a token, by its id, may still read.
    """

    def __init__(self, most: int, most_per_token: int, is_valid: Callable[[Principal], bool]) -> None:
        self._most = most
        self._most_per_token = most_per_token
        self._is_valid = is_valid
        self._lock = threading.Lock()
        self._open: Counter[str] = Counter()
        self._followers: dict[Path, _Follower] = {}
        self._closed = False

    @property
    def count(self) -> int:
        """Number of open streams."""
        return self._open.total()

    def opened(self, who: Principal, folder: Path, after: int, *, follow: bool) -> AsyncIterator[bytes]:
        """The events of a job, as Server-Sent Events.

        Args:
            who: Who reads.
            folder: The folder of the job.
            after: Leave out events up to this number.
            follow: Wait for further events, until the job has ended.

        Raises:
            LimitError: there are too many streams.
        """
        with self._lock:
            if self._open.total() >= self._most:
                raise LimitError(f"there are {self._most} event streams; try again later", retry_after_s=5)
            if self._open[who.token_id] >= self._most_per_token:
                raise LimitError(
                    f"the token {who.name!r} has {self._most_per_token} event streams; close some", retry_after_s=5
                )
            self._open[who.token_id] += 1
        return _Stream(self, who, folder, after, follow=follow)

    def close(self) -> None:
        """End all streams, within `POLL_S`. To be called in the thread of the streams."""
        self._closed = True
        for follower in self._followers.values():
            follower.changed.set()

    def release(self, who: Principal) -> None:
        """A stream has ended."""
        with self._lock:
            self._open[who.token_id] -= 1
            if not self._open[who.token_id]:
                del self._open[who.token_id]

    async def read(self, who: Principal, folder: Path, after: int, *, follow: bool) -> AsyncIterator[bytes]:
        """What one reader receives."""
        yield b"retry: 1000\n\n"
        own = EventTail(folder, after=after)
        if not follow:
            while events := await to_thread.run_sync(own.new, _PART):
                for event in events:
                    yield _written(event)[1]
            return
        follower = self._followed(folder)
        try:
            async for part in self._follow(who, follower, own):
                yield part
        finally:
            self._left(folder, follower)

    async def _follow(self, who: Principal, follower: _Follower, own: EventTail) -> AsyncIterator[bytes]:
        while not self._closed:
            changed = follower.changed
            entries = follower.since(own.seq)
            if entries is None:
                entries = [_written(event) for event in await to_thread.run_sync(own.new, _PART)]
            for seq, text, is_last in entries:
                own.seq = max(own.seq, seq)
                yield text
                if is_last:
                    return
            if entries:
                continue
            try:
                await asyncio.wait_for(changed.wait(), _KEEP_ALIVE_S)
            except asyncio.TimeoutError:
                if not await to_thread.run_sync(self._is_valid, who):
                    return
                yield b": keep-alive\n\n"

    def _followed(self, folder: Path) -> _Follower:
        follower = self._followers.get(folder)
        if follower is None:
            # What is in the file by now, each reader reads by itself.
            follower = _Follower(EventTail(folder, after=EventLog(folder).last_seq()))
            follower.task = asyncio.get_running_loop().create_task(follower.run())
            self._followers[folder] = follower
        follower.readers += 1
        return follower

    def _left(self, folder: Path, follower: _Follower) -> None:
        follower.readers -= 1
        if not follower.readers:
            if follower.task is not None:
                follower.task.cancel()
            self._followers.pop(folder, None)


class _Stream:
    """The iterator of a stream: it is counted until it is closed, also if it was never begun."""

    def __init__(self, streams: EventStreams, who: Principal, folder: Path, after: int, *, follow: bool) -> None:
        self._streams, self._who = streams, who
        self._parts = streams.read(who, folder, after, follow=follow)
        self._is_counted = True

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self._parts.__anext__()
        except BaseException:  # its end, or the client has left
            self._release()
            raise

    def _release(self) -> None:
        if self._is_counted:
            self._is_counted = False
            self._streams.release(self._who)

    def __del__(self) -> None:
        self._release()


def _written(event: Event) -> tuple[int, bytes, bool]:
    """An event as a message: its number, the text, and whether it is the last one of its job."""
    data = event.model_dump_json()
    is_last = isinstance(event, StateChanged) and event.state in FINAL
    return event.seq, f"id: {event.seq}\nevent: {event.type}\ndata: {data}\n\n".encode(), is_last
