"""Jobs: submitting, listing, cancelling, repeating; their trials, front, events and files."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Path, Query, Request, Response
from fastapi.responses import FileResponse, StreamingResponse

from tuner.client.resources import Artifact, Front, Job, JobHost, JobKind, JobState, Page, Submission, Trial
from tuner.service.api.access import (
    PREFIX,
    Cursor,
    Id,
    IfMatch,
    Key,
    Limit,
    Reader,
    ServiceOf,
    Submitter,
    expected_version,
)
from tuner.service.api.problems import answer, responses
from tuner.service.store.jobs import JobFilter
from tuner.service.streams import EventStreams

router = APIRouter(prefix=f"{PREFIX}/jobs", tags=["jobs"])

_EXAMPLES: dict[str, Any] = {
    "tune": {
        "summary": "Tune a model",
        "value": {
            "kind": "tune",
            "job": {"repository": "/models", "model": "mlp", "slo": {"p99": "40ms"}, "budget": "10m"},
        },
    },
    "night": {"summary": "One night of a target", "value": {"kind": "nightly", "target": "recommender"}},
}
# Files that a browser shows as text. All others are downloads, so that none of them runs in a page.
_TEXT = frozenset({".csv", ".diff", ".json", ".jsonl", ".log", ".pbtxt", ".txt", ".yaml", ".yml"})
# Bytes of a log that are sent at once.
_PART = 1 << 16
# A report runs scripts of its own, in an origin of its own, without the session of the dashboard.
_REPORT_POLICY = (
    "sandbox allow-scripts allow-popups allow-downloads; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:; frame-ancestors 'self'"
)
_STREAM: dict[str, Any] = {"content": {"text/event-stream": {}}, "description": "Events, as they happen."}
_KNOWN = {"description": "The job has ended, and all of its events are known."}
_FILE = {"content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}, "description": "The file."}


@router.post("", status_code=201, response_model=Job, responses=responses(400, 404, 409, 413, 415, 429, 507))
def submit(
    service: ServiceOf,
    who: Submitter,
    submission: Annotated[Submission, Body(openapi_examples=_EXAMPLES)],
    key: Key = None,
) -> Response:
    """Submit a job. It waits in the queue for a slot; `reason` says what it waits for."""
    job = service.submit(who, submission, key)
    return answer(job, 201, headers={"Location": f"{PREFIX}/jobs/{job.id}"})


@router.get("", response_model=Page[Job], responses=responses())
def jobs(
    service: ServiceOf,
    who: Reader,
    *,
    state: Annotated[list[JobState] | None, Query(description="Only jobs in one of these states.")] = None,
    kind: Annotated[list[JobKind] | None, Query(description="Only jobs of one of these kinds.")] = None,
    target: Annotated[str | None, Query(max_length=100, description="Only jobs of this target.")] = None,
    schedule: Annotated[str | None, Query(max_length=100, description="Only jobs of this schedule.")] = None,
    model: Annotated[str | None, Query(max_length=255, description="Only jobs of this model.")] = None,
    text: Annotated[str, Query(max_length=200, description="Words that must be in names, reason or SLO.")] = "",
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Response:
    """Jobs, the newest first."""
    wanted = JobFilter(
        states=frozenset(state or ()),
        kinds=frozenset(kind or ()),
        target=target,
        schedule=schedule,
        model=model,
        text=text,
    )
    return answer(service.jobs(who, wanted, cursor=cursor, limit=limit))


@router.get("/{job_id}", response_model=Job, responses=responses(404))
def job(service: ServiceOf, who: Reader, job_id: Id) -> Response:
    """A job, as it is now."""
    return answer(service.job(who, job_id))


@router.post("/{job_id}:cancel", response_model=Job, responses=responses(404, 409, 412))
def cancel(service: ServiceOf, who: Submitter, job_id: Id, if_match: IfMatch = None) -> Response:
    """Cancel a job. It is `cancelling` until its last server is gone, then `cancelled`; what it measured is kept."""
    return answer(service.cancel(who, job_id, if_version=expected_version(if_match)))


@router.post("/{job_id}:retry", status_code=201, response_model=Job, responses=responses(404, 409, 429, 507))
def retry(service: ServiceOf, who: Submitter, job_id: Id, key: Key = None) -> Response:
    """Submit a job that has ended once more, with its options. `retry_of` of the new one names it."""
    again = service.retry(who, job_id, key)
    return answer(again, 201, headers={"Location": f"{PREFIX}/jobs/{again.id}"})


@router.get("/{job_id}/trials", response_model=Page[Trial], responses=responses(404))
def trials(service: ServiceOf, who: Reader, job_id: Id, cursor: Cursor = None, limit: Limit = 50) -> Response:
    """The trials of a job, in order of their beginning."""
    return answer(service.trials(who, job_id, cursor=cursor, limit=limit))


@router.get("/{job_id}/hosts", response_model=Page[JobHost], responses=responses(404))
def hosts_of_job(service: ServiceOf, who: Reader, job_id: Id, cursor: Cursor = None, limit: Limit = 50) -> Response:
    """The hosts of a job that has several slots, and what each slot does now; empty for other jobs."""
    return answer(service.hosts_of_job(who, job_id, cursor=cursor, limit=limit))


@router.get("/{job_id}/front", response_model=Front, responses=responses(404))
def front(service: ServiceOf, who: Reader, job_id: Id) -> Response:
    """The front of each model of a job, so far or at the end."""
    return answer(service.front(who, job_id))


@router.get(
    "/{job_id}/events",
    response_class=StreamingResponse,
    responses=responses(404, 429, also={200: _STREAM, 204: _KNOWN}),
)
def events(
    request: Request,
    service: ServiceOf,
    who: Reader,
    job_id: Id,
    *,
    last_event_id: Annotated[
        str | None, Header(max_length=20, description="Number of the last known event; only later ones are sent.")
    ] = None,
    after: Annotated[int, Query(ge=0, le=2**53, description="The same, for clients that cannot send the header.")] = 0,
    follow: Annotated[bool, Query(description="Wait for further events, until the job has ended.")] = True,
) -> Response:
    """The events of a job as Server-Sent Events: their id is `seq`, and their data an object of `events.jsonl`."""
    known = int(last_event_id) if last_event_id and last_event_id.isascii() and last_event_id.isdigit() else after
    streams: EventStreams = request.app.state.streams
    found = service.job(who, job_id)
    if follow and found.is_final and service.last_event(who, job_id) <= known:
        return Response(status_code=204)
    opened = streams.opened(who, service.folder(who, job_id).path, known, follow=follow)
    return StreamingResponse(
        opened, media_type="text/event-stream", headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    )


@router.get("/{job_id}/artifacts", response_model=Page[Artifact], responses=responses(404))
def artifacts(service: ServiceOf, who: Reader, job_id: Id, cursor: Cursor = None, limit: Limit = 50) -> Response:
    """The files of a job, by path."""
    return answer(service.artifacts(who, job_id, cursor=cursor, limit=limit))


@router.get("/{job_id}/artifacts/{path:path}", response_class=FileResponse, responses=responses(404, also={200: _FILE}))
def artifact(
    service: ServiceOf,
    who: Reader,
    job_id: Id,
    path: Annotated[str, Path(max_length=4096, description="Path within the job's folder, or within its run/.")],
) -> Response:
    """A file of a job, such as `run/report.html`, `job.log`, or `run/mlp/best/config.pbtxt`."""
    file = service.artifact(who, job_id, path)
    ending = file.suffix.lower()
    if ending == ".log":
        return StreamingResponse(_encoded(service.log(who, job_id, file)), media_type="text/plain; charset=utf-8")
    if ending == ".html":
        return FileResponse(file, media_type="text/html", headers={"Content-Security-Policy": _REPORT_POLICY})
    if ending in _TEXT:
        kind = "application/json" if ending == ".json" else "text/plain; charset=utf-8"
        return FileResponse(file, media_type=kind)
    kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    return FileResponse(file, media_type=kind, filename=PurePosixPath(path).name)


def _encoded(lines: Iterator[str]) -> Iterator[bytes]:
    """The lines in parts of some size, as each part costs a change of threads."""
    part = bytearray()
    for line in lines:
        part += line.encode("utf-8", "replace")
        if len(part) >= _PART:
            yield bytes(part)
            part.clear()
    yield bytes(part)
