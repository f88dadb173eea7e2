"""Event streams over real sockets."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import urllib3
from support.service_parts import SUBMITTER, idle_service
from support.serving import Served, served
from support.web_services import submission

from tuner.client.resources import Role, Submission, TokenSpec
from tuner.client.server_sent import messages
from tuner.jobs import event_log
from tuner.jobs.event_log import EventLog
from tuner.jobs.events import Noted, StateChanged
from tuner.service import streams
from tuner.service.job_folder import JobFolder
from tuner.service.operations import Service


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with idle_service(tmp_path, max_streams=220, max_streams_per_token=210) as service:
        service.submit(SUBMITTER, Submission.model_validate(submission(service)))
        yield service


@pytest.fixture
def log(service: Service) -> EventLog:
    return EventLog(JobFolder.of(service.jobs_folder, 1).path)


def _headers(service: Service, name: str = "reader", role: Role = "read") -> dict[str, str]:
    return {"Authorization": f"Bearer {service.auth.new_token(TokenSpec(name=name, role=role)).secret}"}


@contextmanager
def _stream(serving: Served, headers: dict[str, str], query: str = "") -> Iterator[urllib3.BaseHTTPResponse]:
    with urllib3.PoolManager() as pool:
        url = f"{serving.url}/api/v1/jobs/1/events{query}"
        response = pool.request("GET", url, headers=headers, preload_content=False, timeout=30, retries=False)
        try:
            yield response
        finally:
            response.close()


def _read(response: urllib3.BaseHTTPResponse) -> Iterator[dict[str, Any]]:
    for message in messages(response.stream(65536)):
        event = json.loads(message.data)
        assert message.id == str(event["seq"])
        assert message.event == event["type"]
        yield event


def _wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_events_come_as_they_happen_and_the_stream_ends_with_the_job(service: Service, log: EventLog) -> None:
    with served(service) as serving, _stream(serving, _headers(service)) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        events = _read(response)
        assert next(events)["state"] == "queued"
        log.append(Noted, text="ü\n<b>")
        assert next(events)["text"] == "ü\n<b>"
        log.append(StateChanged, state="running")
        log.append(StateChanged, state="succeeded", exit_code=0)
        assert [event["state"] for event in events] == ["running", "succeeded"]
        _wait_for(lambda: serving.app.state.streams.count == 0)


def test_a_reader_goes_on_after_the_event_it_knows_also_after_a_restart(service: Service, log: EventLog) -> None:
    headers = _headers(service)
    for number in range(2, 41):
        log.append(Noted, text=str(number))
    with served(service) as serving, _stream(serving, headers) as response:
        events = _read(response)
        assert [next(events)["seq"] for _ in range(17)] == list(range(1, 18))
    log.append(Noted, text="41")
    with served(service) as serving, _stream(serving, {**headers, "Last-Event-ID": "17"}) as response:
        log.append(Noted, text="42")
        events = _read(response)
        assert [next(events)["seq"] for _ in range(25)] == list(range(18, 43))


def test_all_events_of_an_ended_job_are_known_at_some_time(service: Service, log: EventLog) -> None:
    log.append(StateChanged, state="failed", reason="no Triton")
    service.store.change_job(1, among={"queued"}, state="failed")
    headers = _headers(service)
    with served(service) as serving:
        with _stream(serving, headers) as response:
            assert [event["state"] for event in _read(response)] == ["queued", "failed"]
        with _stream(serving, headers, "?after=2") as response:
            assert response.status == 204
        with _stream(serving, {**headers, "Last-Event-ID": "no number"}, "?follow=false&after=1") as response:
            assert [event["seq"] for event in _read(response)] == [2]


def test_without_following_the_stream_ends_with_what_there_is(service: Service, log: EventLog) -> None:
    log.append(Noted, text="a")
    with served(service) as serving, _stream(serving, _headers(service), "?follow=false") as response:
        assert [event["seq"] for event in _read(response)] == [1, 2]


@pytest.mark.slow
def test_two_hundred_streams_have_each_event_once(service: Service, log: EventLog) -> None:
    headers = _headers(service)
    seen: list[list[int]] = []

    def read(serving: Served) -> None:
        with _stream(serving, headers) as response:
            seen.append([event["seq"] for event in _read(response)])

    with served(service) as serving:
        threads = [threading.Thread(target=read, args=(serving,)) for _ in range(200)]
        for thread in threads:
            thread.start()
        _wait_for(lambda: serving.app.state.streams.count == 200)
        for number in range(50):
            log.append(Noted, text=str(number))
        log.append(StateChanged, state="succeeded")
        for thread in threads:
            thread.join(60)
        assert seen == [list(range(1, 53))] * 200
        _wait_for(lambda: serving.app.state.streams.count == 0)


def test_there_are_limits_for_a_token_and_for_all(tmp_path: Path) -> None:
    with idle_service(tmp_path, max_streams=3, max_streams_per_token=2) as service, served(service) as serving:
        service.submit(SUBMITTER, Submission.model_validate(submission(service)))
        first, second = _headers(service, "first"), _headers(service, "second")
        with _stream(serving, first), _stream(serving, first):
            with _stream(serving, first) as response:
                assert (response.status, response.headers["retry-after"]) == (429, "5")
            with _stream(serving, second), _stream(serving, second) as response:
                assert response.status == 429
        _wait_for(lambda: serving.app.state.streams.count == 0)
        with _stream(serving, first) as response:
            assert response.status == 200


def test_a_client_that_leaves_costs_nothing(service: Service) -> None:
    headers = _headers(service)
    with served(service) as serving:
        for _ in range(5):
            with _stream(serving, headers) as response:
                next(_read(response))
        opened = serving.app.state.streams
        _wait_for(lambda: opened.count == 0)
        _wait_for(lambda: not opened._followers)


def test_a_slow_reader_does_not_hold_up_others_and_misses_nothing(service: Service, log: EventLog) -> None:
    headers = _headers(service)
    text = "x" * 20_000
    with served(service) as serving, socket.create_connection(("127.0.0.1", serving.port)) as slow:
        lines = ("GET /api/v1/jobs/1/events HTTP/1.1", "Host: 127.0.0.1", f"Authorization: {headers['Authorization']}")
        slow.sendall("\r\n".join((*lines, "", "")).encode())
        with _stream(serving, headers) as response:
            events = _read(response)
            next(events)
            for _ in range(600):  # more than a follower keeps, and than sockets buffer
                log.append(Noted, text=text)
            log.append(StateChanged, state="succeeded")
            assert [event["seq"] for event in events] == list(range(2, 603))
        received = b""
        slow.settimeout(60)
        while part := slow.recv(1 << 20):
            received += part
            if b'"succeeded"' in received[-500:]:
                break
        numbers = [int(line[4:]) for line in received.split(b"\n") if line.startswith(b"id: ")]
        assert numbers == list(range(1, 603))


def test_streams_end_when_the_service_ends(service: Service) -> None:
    with served(service) as serving, _stream(serving, _headers(service)) as response:
        events = _read(response)
        next(events)
        began = time.monotonic()
        serving.stop()
        assert not list(events)
        assert time.monotonic() - began < 8  # uvicorn would have waited for 10 s


def test_a_quiet_stream_is_kept_alive_and_ends_with_its_token(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_KEEP_ALIVE_S", 0.05)
    headers = _headers(service)
    with served(service) as serving, _stream(serving, headers) as response:
        parts = response.stream(65536)
        received = b""
        while received.count(b": keep-alive\n\n") < 2:
            received += next(parts)
        service.store.remove_token(service.store.tokens().items[0].id)
        received += b"".join(parts)
        assert received.startswith(b"retry: 1000\n\nid: 1\n")


def test_a_file_is_looked_at_once_for_all_readers(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    new = event_log.EventTail.new

    def counted(self: event_log.EventTail, most_bytes: int | None = None) -> Any:
        looks.append(threading.get_ident())
        return new(self, most_bytes)

    monkeypatch.setattr(event_log.EventTail, "new", counted)
    headers = _headers(service)
    with served(service) as serving, _stream(serving, headers) as a, _stream(serving, headers) as b:
        readers = [_read(a), _read(b)]
        assert [next(reader)["seq"] for reader in readers] == [1, 1]
        _wait_for(lambda: serving.app.state.streams.count == 2)
        before, began = len(looks), time.monotonic()
        time.sleep(0.6)
        assert len(looks) - before <= (time.monotonic() - began) / streams.POLL_S + 1
