from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tuner.jobs import event_log
from tuner.jobs.event_log import EventLog, EventTail
from tuner.jobs.events import ArtifactWritten, Noted, Numbered, PhaseBegan, StateChanged, TrialEnded


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path)


def _texts(events: Iterator[Numbered]) -> list[tuple[int, str]]:
    return [(event.seq, event.text) for event in events if isinstance(event, Noted)]


def test_events_are_numbered_and_timed(log: EventLog) -> None:
    first = log.append(StateChanged, state="starting")
    second = log.append(Noted, text="two\nlines: ü")
    assert (first.seq, second.seq) == (1, 2)
    assert first.at.utcoffset() is not None
    assert list(log.read()) == [first, second]
    assert list(log.read(after=1)) == [second]
    assert [json.loads(line)["type"] for line in log.path.read_text().splitlines()] == ["state", "note"]


def test_without_a_file_there_are_no_events(log: EventLog) -> None:
    assert not list(log.read())
    assert log.last_state() is None
    assert log.last_seq() == 0
    assert EventTail(log.path.parent).new() == ()


def test_a_wrong_field_is_an_error(log: EventLog) -> None:
    with pytest.raises(TypeError, match="Noted has no field words"):
        log.append(Noted, words="hello")
    assert not log.path.exists()


def test_the_last_state_is_found_before_many_events(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "_BLOCK", 50)
    log.append(StateChanged, state="starting")
    log.append(StateChanged, state="running", attempt=2)
    for index in range(20):
        log.append(Noted, text=f'"type":"state" {index}')
    state = log.last_state()
    assert state is not None
    assert (state.state, state.attempt, state.seq) == ("running", 2, 2)
    assert log.last_seq() == 22


@pytest.mark.parametrize("torn", [b'{"seq":2,"at":"2026', b"\0" * 100, b'{"seq":7,' + b"x" * 200_000])
def test_a_torn_last_line_is_ignored_and_then_removed(log: EventLog, torn: bytes) -> None:
    log.append(Noted, text="before")
    whole = log.path.read_bytes()
    log.path.write_bytes(whole + torn)
    tail = EventTail(log.path.parent)
    assert _texts(log.read()) == [(1, "before")] == _texts(iter(tail.new()))
    assert log.last_seq() == 1
    log.append(Noted, text="after")
    assert log.path.read_bytes().startswith(whole + b'{"seq":2,')
    assert _texts(log.read()) == [(1, "before"), (2, "after")]
    assert _texts(iter(tail.new())) == [(2, "after")]


def test_what_cannot_be_read_is_left_out(log: EventLog) -> None:
    log.append(Noted, text="before")
    later = b'{"seq":2,"at":"2026-11-30T12:00:00Z","version":1,"type":"invented","new":1}\n'
    broken = b'{"seq":3,"at":"2026-11-30T12:00:00Z","version":1,"type":"note"}\n\n\0\0\n'
    breaking = b'{"seq":4,"at":"2026-11-30T12:00:00Z","version":2,"type":"note","text":"?"}\n'
    extended = b'{"seq":5,"at":"2026-11-30T12:00:00Z","version":1,"type":"note","text":"more","new":1}\n'
    log.path.write_bytes(log.path.read_bytes() + later + broken + breaking + extended)
    assert _texts(log.read()) == [(1, "before"), (5, "more")]
    log.append(Noted, text="after")
    assert _texts(log.read(after=4)) == [(5, "more"), (6, "after")]


def test_lone_surrogates_and_infinite_numbers_are_readable(log: EventLog) -> None:
    log.append(ArtifactWritten, path="caf\udce9")
    ended = log.append(TrialEnded, model="m", trial=0, parameters={"a": float("inf")}, points=(), wall_s=1.0)
    assert [event.seq for event in log.read()] == [1, 2]
    assert next(log.read()).path == r"caf\udce9"  # type: ignore[union-attr]
    assert ended.parameters == {"a": float("inf")}
    for line in log.path.read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)


def test_long_lines_are_read_in_blocks(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "_CHUNK", 64)
    monkeypatch.setattr(event_log, "_BLOCK", 64)
    texts = ["x" * length for length in (1, 500, 3, 1000)]
    for text in texts:
        log.append(Noted, text=text)
    assert _texts(log.read()) == list(enumerate(texts, 1))
    assert _texts(iter(EventTail(log.path.parent).new())) == list(enumerate(texts, 1))
    assert _texts(iter(EventTail(log.path.parent).new(most_bytes=64))) == [(1, "x")]


def test_a_tail_returns_each_event_once(log: EventLog) -> None:
    tail = EventTail(log.path.parent, after=1)
    assert tail.new() == ()
    log.append(Noted, text="1")
    log.append(Noted, text="2")
    assert _texts(iter(tail.new())) == [(2, "2")]
    assert tail.new() == ()
    assert tail.seq == 2
    log.append(Noted, text="3")
    assert _texts(iter(tail.new())) == [(3, "3")]


def test_a_tail_without_news_takes_one_stat(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    log.append(Noted, text="1")
    tail = EventTail(log.path.parent)
    tail.new()
    monkeypatch.setattr(os, "open", lambda *_, **__: pytest.fail("opened"))
    assert tail.new() == ()


def test_a_tail_goes_on_in_a_new_file_with_higher_numbers(log: EventLog) -> None:
    log.append(Noted, text="1")
    log.append(Noted, text="2")
    tail = EventTail(log.path.parent)
    assert len(tail.new()) == 2
    copy = log.path.with_name("copy")
    copy.write_bytes(log.path.read_bytes())
    copy.replace(log.path)
    log.append(Noted, text="3")
    assert _texts(iter(tail.new())) == [(3, "3")]


_WRITER = """
import sys
from pathlib import Path
from tuner.jobs.event_log import EventLog
from tuner.jobs.events import Noted
log = EventLog(Path(sys.argv[1]))
index = 0
while index < int(sys.argv[3]) or sys.argv[3] == "-1":
    log.append(Noted, text=f"{sys.argv[2]} {index} " + "x" * (index % 7 * 3000))
    index += 1
"""


def _writer(log: EventLog, name: str, count: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", _WRITER, log.path.parent, name, str(count)])


@pytest.mark.slow
def test_several_processes_append_while_one_reads(log: EventLog) -> None:
    writers = [_writer(log, name, 100) for name in "abc"]
    tail, seen = EventTail(log.path.parent), list[tuple[int, str]]()
    while any(writer.poll() is None for writer in writers):
        seen += _texts(iter(tail.new()))
        time.sleep(0.001)
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    seen += _texts(iter(tail.new()))
    assert [seq for seq, _ in seen] == list(range(1, 301))
    assert seen == _texts(log.read())
    for name in "abc":
        assert [int(text.split()[1]) for _, text in seen if text.startswith(name)] == list(range(100))


@pytest.mark.slow
def test_killed_writers_leave_neither_gap_nor_repetition(log: EventLog) -> None:
    for name in "abcd":
        writer = _writer(log, name, -1)
        before = log.last_seq()
        while log.last_seq() < before + 20:
            time.sleep(0.001)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    log.append(Noted, text="last")
    seqs = [event.seq for event in log.read()]
    assert seqs == list(range(1, len(seqs) + 1))
    assert len(seqs) > 80
    assert len(log.path.read_bytes().splitlines()) == len(seqs)


@contextmanager
def _full_disk(left: int, path: Path) -> Iterator[None]:
    """The file may grow by `left` bytes: the kernel then writes a part, and the next write fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + left, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("left", [0, 40])
def test_a_full_disk_leaves_the_file_as_it_was(log: EventLog, left: int) -> None:
    log.append(Noted, text="before")
    whole = log.path.read_bytes()
    with _full_disk(left, log.path), pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
        log.append(Noted, text="lost" * 100)
    assert log.path.read_bytes() == whole
    assert log.append(Noted, text="after").seq == 2


def test_a_disk_without_any_space_is_an_error(log: EventLog) -> None:
    log.path.symlink_to("/dev/full")
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        log.append(Noted, text="lost")
    assert log.last_state() is None
    assert not list(log.read())


def test_an_interrupted_write_is_undone(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    log.append(Noted, text="before")
    whole, write = log.path.read_bytes(), os.write

    def interrupted(file: int, data: bytes) -> int:
        write(file, data[:10])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            log.append(Noted, text="lost")
    assert log.path.read_bytes() == whole


def test_a_writer_waits_for_another_one(log: EventLog) -> None:
    log.append(Noted, text="1")
    with event_log._locked(log.path):
        late = threading.Thread(target=lambda: log.append(PhaseBegan, phase="search"))
        late.start()
        late.join(timeout=0.05)
        assert log.last_seq() == 1
    late.join()
    assert [event.seq for event in log.read()] == [1, 2]


def test_a_writer_does_not_wait_for_ever(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "_LOCK_S", 0.05)
    log.append(Noted, text="1")
    with event_log._locked(log.path), pytest.raises(OSError, match=r"locked by another process for 0\.05 s"):
        log.append(Noted, text="never")
    assert log.last_seq() == 1


def test_a_job_that_has_ended_never_changes_its_state(log: EventLog) -> None:
    starting = log.change_state(state="starting", host="here", slots=("gpu:0",))
    assert starting == log.last_state()
    log.append(Noted, text="later")
    assert log.change_state(among=("queued", "running"), state="cancelling") is None
    assert log.change_state(among=("starting",), state="running") is not None
    ended = log.change_state(state="succeeded", exit_code=0)
    assert log.change_state(state="cancelling") is None
    assert log.last_state() == ended
    with pytest.raises(TypeError, match="StateChanged has no field words"):
        log.change_state(words="hello")
