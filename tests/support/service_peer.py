"""A service of tests: it answers over a real socket as the REST API does, and fails as it is told to."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

from typing_extensions import Self

from tuner.client.resources import FINAL, Decision, Front, Job, JobHost, JobState, Page, Proposal, Resource, Submission
from tuner.core.record import Interval
from tuner.jobs.events import Event, Noted, StateChanged

TOKEN = "peer-token-1"  # noqa: S105 (a test's)
NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


def interval(value: float) -> Interval:
    """A value with 5 % to each side."""
    return Interval(value=value, low=0.95 * value, high=1.05 * value)


def states(*names: JobState, **last: Any) -> list[Event]:
    """The events of a job that passes through some states; the last one has more fields."""
    return [
        StateChanged(seq=number, at=NOW, state=name, **(last if number == len(names) else {}))
        for number, name in enumerate(names, start=1)
    ]


def proposal(number: int = 1, **fields: Any) -> Proposal:
    """An open proposal."""
    made = {
        "id": number,
        "state": "open",
        "job": 1,
        "repository": "/models",
        "model": "mlp",
        "created_at": NOW,
        "diff": "--- a/mlp/config.pbtxt\n+++ b/mlp/config.pbtxt\n-max_batch_size: 8\n+max_batch_size: 16\n",
        "gain": interval(1.5),
        "verified": True,
    }
    return Proposal.model_validate({**made, **fields})


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    peer: ServicePeer


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    @property
    def peer(self) -> ServicePeer:
        return self.server.peer

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.peer.asked.append(f"{self.command} {self.path}")
        self.peer.headers.append({name.lower(): value for name, value in self.headers.items()})
        if self.peer.ill:
            illness = self.peer.ill.pop(0)
            if illness is None:
                self.close_connection = True
            else:
                self._send(illness[0], b"<html>ill</html>", {"content-type": "text/html", **illness[1]})
            return
        if self.headers.get("authorization") != f"Bearer {TOKEN}":
            self._problem(401, "the token is unknown")
            return
        url = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        try:
            self._route(url.path.removeprefix("/api/v1"), query, body)
        except KeyError as missing:
            self._problem(404, f"there is no {missing.args[0]!r}")

    do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815 (the library calls them)

    def _route(self, path: str, query: dict[str, str], body: bytes) -> None:
        verb, _, action = path.partition(":")
        parts = verb.strip("/").split("/")
        if self.command == "POST" and parts == ["jobs"]:
            self._submit(body)
        elif parts == ["jobs"]:
            wanted = [
                job
                for job in sorted(self.peer.jobs.values(), key=lambda job: -job.id)
                if query.get("state") in {None, job.state}
            ]
            start, limit = int(query.get("cursor", 0)), int(query.get("limit", 50))
            more = str(start + limit) if len(wanted) > start + limit else None
            self._resource(200, Page[Job](items=tuple(wanted[start : start + limit]), next=more))
        elif parts == ["proposals"]:
            kept = [
                each
                for each in self.peer.proposals.values()
                if query.get("state") in {None, each.state} and query.get("job") in {None, str(each.job)}
            ]
            self._resource(200, Page[Proposal](items=tuple(kept)))
        elif parts[0] == "proposals":
            self._proposal(int(parts[1]), action, body)
        elif parts[0] == "jobs":
            self._job(int(parts[1]), parts[2:], action, query)
        else:
            raise KeyError(path)

    def _submit(self, body: bytes) -> None:
        key = self.headers.get("idempotency-key", "")
        if key in self.peer.keys:
            before, number = self.peer.keys[key]
            if before != body:
                self._problem(409, f"the key {key!r} was used for another job")
            else:
                self._resource(200, self.peer.jobs[number])
            return
        submission = Submission.model_validate_json(body)
        if "slow" in submission.job:
            self._problem(422, "the job is wrong", ["slow: unknown option; did you mean 'slo'?"])
            return
        job = self.peer.add(kind=submission.kind, target=submission.target, job=submission.job)
        self.peer.keys[key] = body, job.id
        self.peer.tell(job.id, *self.peer.on_submit(job))
        self._resource(201, job)

    def _job(self, number: int, rest: list[str], action: str, query: dict[str, str]) -> None:
        job = self.peer.jobs[number]
        if action == "cancel":
            if job.is_final:
                self._problem(409, f"job {number} has ended: {job.state}")
                return
            self.peer.tell(number, *self.peer.numbered(number, states("cancelling", "cancelled", exit_code=130)))
            self._resource(200, job)
        elif action == "retry":
            self._resource(201, self.peer.add(kind=job.kind, job=job.job, retry_of=number))
        elif rest == ["events"]:
            self._events(number, follow=query.get("follow") != "false")
        elif rest == ["hosts"]:
            self._resource(200, Page[JobHost](items=tuple(self.peer.hosts)))
        elif rest == ["front"]:
            self._resource(200, Front(points=(), percentile="p99"))
        elif rest[:1] == ["artifacts"]:
            self._send(200, self.peer.files["/".join(rest[1:])], {})
        else:
            self._resource(200, job)

    def _proposal(self, number: int, action: str, body: bytes) -> None:
        found = self.peer.proposals[number]
        if not action:
            self._resource(200, found)
            return
        if found.state != "open":
            self._problem(409, f"proposal {number} was {found.state} by {found.decided_by}")
            return
        state = {"approve": "approved", "reject": "rejected"}[action]
        reason = Decision.model_validate_json(body).reason
        change = {"state": state, "reason": reason, "decided_by": "peer"}
        self.peer.proposals[number] = found.model_copy(update=change)
        self._resource(200, self.peer.proposals[number])

    def _events(self, number: int, *, follow: bool) -> None:
        after = int(self.headers.get("last-event-id", 0))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        sent, ended = 0, False
        while not ended:
            for event in [each for each in list(self.peer.events[number]) if each.seq > after]:
                text = f"id: {event.seq}\nevent: {event.type}\ndata: {event.model_dump_json()}\n\n"
                self.wfile.write(text.encode())
                after, sent = event.seq, sent + 1
                ended = isinstance(event, StateChanged) and event.state in FINAL
                if sent == self.peer.hang_up_after:
                    return
            if not follow or self.peer.streams_end or self.peer.stopped:
                return
            self.wfile.write(b": still here\n\n")
            time.sleep(0.01)

    def _resource(self, status: int, resource: Resource) -> None:
        headers = {"etag": f'"{resource.version}"'} if isinstance(resource, Job | Proposal) else {}
        # As a later version: it has a field that this one does not know.
        text = json.dumps({**json.loads(resource.model_dump_json()), "of_later_versions": 1})
        self._send(status, text.encode(), {"content-type": "application/json", **headers})

    def _problem(self, status: int, detail: str, errors: Sequence[str] = ()) -> None:
        text = json.dumps({"title": "Refused", "status": status, "detail": detail, "errors": list(errors)})
        self._send(status, text.encode(), {"content-type": "application/problem+json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class ServicePeer:
    """Leaving the context stops it.

    Attributes:
        asked: Lines of the requests, such as `GET /api/v1/jobs`.
        headers: Their headers.
        jobs: By id.
        hosts: Of every job.
        events: Of each job; appended ones are sent to those who follow.
        hang_up_after: A connection with events is cut after this many of them; None: never.
        ill: Answers to the next requests in the place of the right ones: a status and headers, or None to hang up.
        streams_end: Streams of events end when there is nothing new.
        on_submit: Events of a new job.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.jobs: dict[int, Job] = {}
        self.hosts: list[JobHost] = []
        self.events: dict[int, list[Event]] = {}
        self.files: dict[str, bytes] = {}
        self.proposals: dict[int, Proposal] = {}
        self.keys: dict[str, tuple[bytes, int]] = {}
        self.hang_up_after: int | None = None
        self.streams_end = False
        self.ill: list[tuple[int, dict[str, str]] | None] = []
        self.on_submit: Callable[[Job], Sequence[Event]] = lambda _: ()
        self.stopped = False
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.peer = self
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def add(self, **fields: Any) -> Job:
        """Add a job, which is queued."""
        number = len(self.jobs) + 1
        made: dict[str, Any] = {"id": number, "kind": "tune", "state": "queued", "created_at": NOW}
        job = Job.model_validate({**made, **{name: value for name, value in fields.items() if value is not None}})
        self.jobs[number], self.events[number] = job, []
        return job

    def tell(self, number: int, *events: Event) -> None:
        """Append events to a job, which gets their states."""
        for event in events:
            if isinstance(event, StateChanged):
                change = {"state": event.state, "reason": event.reason, "exit_code": event.exit_code}
                self.jobs[number] = self.jobs[number].model_copy(update=change)
            self.events[number].append(event)

    def numbered(self, number: int, events: Sequence[Event]) -> Iterator[Event]:
        """Events with the numbers that follow those of a job."""
        first = len(self.events[number]) + 1
        for seq, event in enumerate(events, start=first):
            yield event.model_copy(update={"seq": seq})

    def stop(self) -> None:
        """Stop listening."""
        self.stopped = True
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.stopped:
            self.stop()


def notes(count: int, *, first: int = 1) -> list[Event]:
    """Notes in words, numbered."""
    return [Noted(seq=number, at=NOW, text=f"note {number}") for number in range(first, first + count)]
