"""Whether the service lives and works, and its metrics."""

from __future__ import annotations

import shutil

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from tuner.service.api.access import Reader, ServiceOf
from tuner.service.api.problems import responses
from tuner.service.errors import StoreUnavailableError
from tuner.service.metrics import exposition
from tuner.service.operations import Service

router = APIRouter(tags=["operation"])

_LEAST_FREE_BYTES = 100 * 1024**2
_TEXT = "text/plain; version=0.0.4; charset=utf-8"


@router.get("/healthz", response_class=PlainTextResponse)
async def healthz() -> str:
    """Whether the process answers. Needs no token."""
    return "ok\n"


@router.get(
    "/readyz",
    response_class=PlainTextResponse,
    responses={503: {"description": "It cannot work now; the text says why."}},
)
def readyz(service: ServiceOf) -> Response:
    """Whether the service can work: database, runner and disk. Needs no token."""
    if faults := _faults(service):
        return PlainTextResponse("".join(f"{fault}\n" for fault in faults), 503)
    return PlainTextResponse("ok\n")


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    responses={401: responses()[401], 403: responses()[403], 503: responses()[503]},
)
def metrics(request: Request, service: ServiceOf, who: Reader) -> Response:
    """Metrics in Prometheus' text format. Needs a token of the role read."""
    state = request.app.state
    return Response(exposition(service, who, state.requests, state.streams.count), media_type=_TEXT)


def _faults(service: Service) -> list[str]:
    faults = []
    try:
        service.store.check()
    except StoreUnavailableError:
        faults.append("the database does not answer")
    if not service.runner.is_alive():
        faults.append("the runner of jobs has ended")
    try:
        if shutil.disk_usage(service.data).free < _LEAST_FREE_BYTES:
            faults.append("the disk of the data folder is nearly full")
    except OSError:
        faults.append("the data folder cannot be read")
    return faults
