"""The file of a job's events: several processes append to it, and others read it at the same time."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from tuner.jobs.events import EVENT, FILE, FINAL, VERSION, Event, Numbered, StateChanged

# A writer holds the lock for a few milliseconds, unless it is stopped.
_LOCK_S, _POLL_S = 10.0, 0.005
# Bytes to read at a time, backward or forward.
_BLOCK = 1 << 16
_CHUNK = 1 << 22
# Numbers come first in their lines.
_SEQ = re.compile(rb'\{"seq":(\d+),')
_STATE = b'"type":"state"'
_SURROGATE = re.compile("[\ud800-\udfff]")

_Kind = TypeVar("_Kind", bound=Numbered)


class EventLog:
    """The events of a job or a run, in `events.jsonl` of its folder.

    Any number of processes may append: each locks the file, numbers its event after the last one, and writes one line
    in one write. A torn last line, as of a killed writer, is ignored by readers and removed by the next writer.

    Args:
        folder: The folder of the job or the run.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE

    def append(self, kind: type[_Kind], **fields: Any) -> _Kind:
        """Append an event, numbered after the last one. A change of state is also flushed to the disk.

        Args:
            kind: The type of the event.
            fields: Its fields, without `seq`. Without `at`, it happened now.

        Raises:
            OSError: it cannot be written, as on a full disk; the file is unchanged.
            TypeError: the event has no such field.
        """
        _check_fields(kind, fields)
        with _locked(self.path) as file:
            return _append(file, kind, fields)

    def change_state(self, *, among: Collection[str] | None = None, **fields: Any) -> StateChanged | None:
        """Append a change of a job's state, unless the job has ended. In between, no other process can end it.

        Args:
            among: Append it only if the last state is one of these; None: any that is not final, or none.
            fields: Fields of `StateChanged`, without `seq`.

        Returns:
            The event; None: the last state does not allow it, and nothing was appended.

        Raises:
            OSError: see `append`.
            TypeError: see `append`.
        """
        _check_fields(StateChanged, fields)
        with _locked(self.path) as file:
            last = _last_state(file)
            if (last and last.state in FINAL) or (among is not None and (last is None or last.state not in among)):
                return None
            return _append(file, StateChanged, fields)

    def read(self, after: int = 0) -> Iterator[Event]:
        """The events with higher numbers than `after`, in order.

        Events of types that only later versions know are left out, and so is what cannot be read.
        """
        tail = EventTail(self.path.parent, after=after)
        while events := tail.new(most_bytes=_CHUNK):
            yield from events

    def last_seq(self) -> int:
        """The number of the last event; 0: there is none."""
        with _opened(self.path) as file:
            return 0 if file is None else _last_seq(file, _end_of_lines(file))

    def last_state(self) -> StateChanged | None:
        """The last change of the state; None: there is none."""
        with _opened(self.path) as file:
            return None if file is None else _last_state(file)


class EventTail:
    """Follows the events of a job or a run while others write them.

    Args:
        folder: The folder of the job or the run; the file need not exist yet.
        after: Leave out events up to this number.
    """

    def __init__(self, folder: Path, after: int = 0) -> None:
        self.seq = after
        self._path = folder / FILE
        self._offset = 0
        self._inode: int | None = None
        self._seen: tuple[int, int, int] | None = None

    def new(self, most_bytes: int | None = None) -> Sequence[Event]:
        """The events since the last call. If there are none, that takes one `stat`.

        Args:
            most_bytes: End at about this many bytes of the file, but with an event, if there is one; None: no limit.
        """
        try:
            status = self._path.stat()
        except OSError:
            return ()
        stamp = status.st_ino, status.st_size, status.st_mtime_ns
        if stamp == self._seen:
            return ()
        if status.st_ino != self._inode or status.st_size < self._offset:
            # Another file: numbers that were seen are left out all the same.
            self._inode, self._offset = status.st_ino, 0
        events: list[Event] = []
        with _opened(self._path) as file:
            while file is not None and (not events or most_bytes is None):
                if not (lines := _lines_at(file, self._offset, most_bytes or _CHUNK)):
                    self._seen = stamp
                    break
                self._offset += sum(map(len, lines))
                events += self._unseen(lines)
        return events

    def _unseen(self, lines: Sequence[bytes]) -> Iterator[Event]:
        for line in lines:
            if (seq := _seq_of(line)) > self.seq:
                self.seq = seq
                if event := _event(line):
                    yield event


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """The file, open for one writer; it is created if it does not exist."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        until = time.monotonic() + _LOCK_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise OSError(errno.ETIMEDOUT, f"locked by another process for {_LOCK_S:g} s", str(path)) from None
                time.sleep(_POLL_S)
        yield file
    finally:
        os.close(file)


@contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    """The file, open for reading; None: it does not exist."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    try:
        yield file
    finally:
        os.close(file)


def _whole(file: int) -> int:
    """Remove a torn last line. Returns the size of the file."""
    size, end = os.fstat(file).st_size, _end_of_lines(file)
    if end < size:
        os.ftruncate(file, end)
    return end


def _write(file: int, line: bytes, end: int) -> None:
    """Append a line, all or nothing, to a file of `end` bytes."""
    try:
        while line:  # the disk may be full after a part of it
            line = line[os.write(file, line) :]
    except BaseException:
        with suppress(OSError):  # otherwise, the next writer removes what was written
            os.ftruncate(file, end)
        raise


def _line(event: Numbered) -> bytes:
    try:
        text = event.model_dump_json()
    except PydanticSerializationError:
        # Lone surrogates, as in file names that are not UTF-8, are written as text, such as `\udcff`.
        text = json.dumps(event.model_dump(mode="json"), ensure_ascii=False, separators=(",", ":"))
        text = _SURROGATE.sub(lambda found: f"\\\\u{ord(found[0]):04x}", text)
    return text.encode() + b"\n"


def _end_of_lines(file: int) -> int:
    """Where the last whole line ends."""
    end = os.fstat(file).st_size
    while end > 0:
        begin = max(0, end - _BLOCK)
        if (at := os.pread(file, end - begin, begin).rfind(b"\n")) >= 0:
            return begin + at + 1
        end = begin
    return 0


def _check_fields(kind: type[Numbered], fields: Mapping[str, Any]) -> None:
    if unknown := fields.keys() - kind.model_fields.keys():
        raise TypeError(f"{kind.__name__} has no field {', '.join(sorted(unknown))}")


def _append(file: int, kind: type[_Kind], fields: Mapping[str, Any]) -> _Kind:
    """Append an event to the locked file."""
    end = _whole(file)
    event = kind(seq=_last_seq(file, end) + 1, **{"at": datetime.now(timezone.utc), **fields})
    _write(file, _line(event), end)
    if kind is StateChanged:
        os.fsync(file)
    return event


def _last_state(file: int) -> StateChanged | None:
    for line in _backward(file, _end_of_lines(file)):
        if _STATE in line and isinstance(event := _event(line), StateChanged):
            return event
    return None


def _last_seq(file: int, end: int) -> int:
    return next((seq for line in _backward(file, end) if (seq := _seq_of(line))), 0)


def _backward(file: int, end: int) -> Iterator[bytes]:
    """The lines up to `end`, the last one first, each with its end of line."""
    rest = b""
    while end > 0:
        begin = max(0, end - _BLOCK)
        rest, *lines = _split(os.pread(file, end - begin, begin) + rest)
        yield from reversed(lines)
        end = begin
    if rest:
        yield rest


def _lines_at(file: int, offset: int, most_bytes: int) -> list[bytes]:
    """The whole lines from an offset on, up to about `most_bytes`, but at least one if there is one."""
    data, size = b"", os.fstat(file).st_size
    while (at := offset + len(data)) < size and (more := os.pread(file, min(most_bytes, size - at), at)):
        data += more
        if (end := data.rfind(b"\n")) >= 0:
            return _split(data[: end + 1])
    return []


def _split(data: bytes) -> list[bytes]:
    return [line + b"\n" for line in data.removesuffix(b"\n").split(b"\n")]


def _seq_of(line: bytes) -> int:
    """The number of an event by its line; 0: it is none."""
    found = _SEQ.match(line)
    return int(found[1]) if found else 0


def _event(line: bytes) -> Event | None:
    """The event of a line; None: this version does not know its type, or it is none."""
    try:
        event = EVENT.validate_json(line)
    except ValidationError:
        return None
    return event if event.version <= VERSION else None
