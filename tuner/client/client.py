"""The client of the service, `tritontune serve`, for Python and for the commands."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote
from uuid import uuid4

from pydantic import BaseModel, ValidationError
from typing_extensions import Self

from tuner.client.connection import Connection, Verb
from tuner.client.local_service import admin_token, local_service, local_services
from tuner.client.resources import (
    FINAL,
    Artifact,
    Decision,
    Front,
    Host,
    Job,
    JobHost,
    JobKind,
    JobState,
    NewToken,
    NightEntry,
    Page,
    Proposal,
    ProposalState,
    Resource,
    Schedule,
    ScheduleSpec,
    Submission,
    Target,
    TargetSpec,
    Token,
    TokenSpec,
    Trial,
)
from tuner.client.server_sent import messages
from tuner.core.errors import ServiceAwayError, ServiceError, TokenRefusedError
from tuner.jobs.events import EVENT, Event, StateChanged

DEFAULT_SERVER = "http://127.0.0.1:8100"
"""The address that `tritontune serve` listens at by default."""

SERVER_VARIABLE, TOKEN_VARIABLE, CA_VARIABLE = "TRITONTUNE_SERVER", "TRITONTUNE_TOKEN", "TRITONTUNE_TLS_CA"

_API = "/api/v1"
_PAGE = 200
# How long a lost connection is tried again, in seconds: a service is updated in less.
_PATIENCE_S = 600.0
# The events come first; the service follows within a moment.
_INDEXED_S = 10.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 10.0

_Model = TypeVar("_Model", bound=BaseModel)
_Some = TypeVar("_Some", bound=Resource)


class Client:
    """A client of `tritontune serve`. Use it as a context manager, which closes its connections.

    Args:
        server: Address of the service. Default: `$TRITONTUNE_SERVER`, or else that of the only service that the same
            user runs on this machine, or else http://127.0.0.1:8100.
        token: Default: `$TRITONTUNE_TOKEN`, or else the admin's token of a service that the same user runs on this
            machine.
        data: Data folder of a service on this machine, whose admin token is used.
        ca: CA certificates to trust, as a PEM file. Default: `$TRITONTUNE_TLS_CA`, or else those of the system.
        timeout_s: Deadline of a response, in seconds.
        patience_s: How long `events` and `wait` try to reach a service that is away, in seconds.

    Raises:
        JobError: the address, the token or the file is wrong.
        TokenRefusedError: there is no token.

    Every method raises a `ServiceError` when its request fails:

    - `ServiceAwayError`: the service cannot be reached, or is overloaded.
    - `TokenRefusedError`, `NotAllowedError`, `NotThereError`, `StateConflictError`: the service refuses the request.
    - `RefusedError`: it refuses the request for another reason, such as a wrong option.

    Requests that may be repeated are repeated a few times after a temporary failure.
    """

    def __init__(
        self,
        server: str | None = None,
        token: str | None = None,
        *,
        data: Path | None = None,
        ca: Path | None = None,
        timeout_s: float = 30.0,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        address = server or os.environ.get(SERVER_VARIABLE) or _address_here(data)
        if ca is None and (named := os.environ.get(CA_VARIABLE)):
            ca = Path(named)
        # First without a token, so that a wrong address is reported as such.
        Connection(address, None, ca).close()
        if not token:
            address, token = _with_token(address, data)
        self._connection = Connection(address, token, ca, timeout_s)
        self._patience_s = patience_s

    @property
    def server(self) -> str:
        """Address of the service."""
        return self._connection.server

    def page(self, path: str) -> str:
        """Address of a page of the dashboard, such as that of `jobs/12`."""
        return f"{self.server}/{path}"

    def close(self) -> None:
        """End all connections."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Jobs.

    def submit(self, submission: Submission, *, key: str | None = None) -> Job:
        """Submit a job.

        Args:
            submission: The job.
            key: Idempotency key: a second submission with the same key and content gives the same job. Default: a new
                one, so that a repeated request does not submit the job twice.
        """
        body = submission.model_dump_json(exclude_defaults=True)
        headers = {"idempotency-key": key or str(uuid4())}
        return self._ask(Job, "POST", "/jobs", body=body, headers=headers, repeatable=True)

    def jobs(
        self,
        *,
        states: Collection[JobState] = (),
        kind: JobKind | None = None,
        target: str | None = None,
        schedule: str | None = None,
        model: str | None = None,
        limit: int | None = None,
    ) -> Iterator[Job]:
        """Jobs, the newest first.

        Args:
            states: Only jobs in one of these states; empty: all.
            kind: Only jobs of this kind.
            target: Only jobs of this target.
            schedule: Only jobs of this schedule.
            model: Only jobs of this model.
            limit: At most this many; None: all.
        """
        query = {"state": sorted(states) or None, "kind": kind, "target": target, "schedule": schedule, "model": model}
        return self._list(Job, "/jobs", query, limit=limit)

    def job(self, job: int) -> Job:
        """A job, as it is now."""
        return self._ask(Job, "GET", f"/jobs/{job}")

    def trials(self, job: int) -> Iterator[Trial]:
        """The trials of a job, in order."""
        return self._list(Trial, f"/jobs/{job}/trials", {})

    def hosts_of_job(self, job: int) -> Iterator[JobHost]:
        """The hosts of a job that has several slots, and what each slot does now; empty for other jobs."""
        return self._list(JobHost, f"/jobs/{job}/hosts", {})

    def front(self, job: int) -> Front:
        """The front of each model of a job, so far or at the end."""
        return self._ask(Front, "GET", f"/jobs/{job}/front")

    def events(self, job: int, *, after: int = 0, follow: bool = True) -> Iterator[Event]:
        """The events of a job, without gap and repetition.

        A lost connection is taken up again. Events of types that this version does not know are skipped.

        Args:
            job: The job.
            after: Number of the last known event; 0: from the first.
            follow: Wait for further events, until the job has ended; otherwise only those that there are.

        Raises:
            ServiceAwayError: the service was away for longer than `patience_s`.
        """
        away_since: float | None = None
        pause_s = _FIRST_PAUSE_S
        while True:
            known = after
            try:
                for event in self._events_once(job, after, follow=follow):
                    after = event.seq
                    yield event
                    if follow and isinstance(event, StateChanged) and event.state in FINAL:
                        return
                if not follow or (after == known and self.job(job).is_final):
                    return
                # A service that ends closes its streams.
                problem = ServiceAwayError(f"{self.server}: the stream of events of job {job} ended before the job")
            except ServiceAwayError as error:
                problem = error
            now = time.monotonic()
            if after > known or away_since is None:
                away_since, pause_s = now, _FIRST_PAUSE_S
            if now - away_since > self._patience_s:
                raise problem
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def wait(self, job: int, *, told: Callable[[Event], None] | None = None) -> Job:
        """Wait until a job has ended. Returns its final state.

        Args:
            job: The job.
            told: Called with each of its events.
        """
        last: Event | None = None
        for last in self.events(job):
            if told:
                told(last)
        deadline = time.monotonic() + _INDEXED_S
        while not (found := self.job(job)).is_final and time.monotonic() < deadline:
            time.sleep(_FIRST_PAUSE_S)
        if isinstance(last, StateChanged) and not found.is_final:
            change = {"state": last.state, "reason": last.reason, "exit_code": last.exit_code}
            return found.model_copy(update=change)
        return found

    def artifacts(self, job: int) -> Iterator[Artifact]:
        """The files of a job, by path."""
        return self._list(Artifact, f"/jobs/{job}/artifacts", {})

    def artifact(self, job: int, path: str) -> bytes:
        """The content of a file of a job, such as `run/report.html` or `job.log`."""
        where = f"{_API}/jobs/{job}/artifacts/{quote(path)}"
        return self._connection.request("GET", where, headers={"accept": "*/*"}).body

    def cancel(self, job: int) -> Job:
        """Cancel a job. It is `cancelling` until its last server has ended; see `wait`."""
        return self._ask(Job, "POST", f"/jobs/{job}:cancel", repeatable=True)

    def retry(self, job: int) -> Job:
        """Submit a job again, as a new job."""
        return self._ask(Job, "POST", f"/jobs/{job}:retry", headers={"idempotency-key": str(uuid4())}, repeatable=True)

    # Proposals.

    def proposals(
        self, *, state: ProposalState | None = None, target: str | None = None, job: int | None = None
    ) -> Iterator[Proposal]:
        """Proposals, the newest first."""
        return self._list(Proposal, "/proposals", {"state": state, "target": target, "job": job})

    def proposal(self, proposal: int) -> Proposal:
        """A proposal."""
        return self._ask(Proposal, "GET", f"/proposals/{proposal}")

    def approve(self, proposal: int, reason: str = "", *, if_version: int | None = None) -> Proposal:
        """Deploy the files of a proposal, all or none. See `reject` for the arguments."""
        return self._decide(proposal, "approve", reason, if_version)

    def reject(self, proposal: int, reason: str = "", *, if_version: int | None = None) -> Proposal:
        """Reject a proposal.

        Args:
            proposal: The proposal.
            reason: Why, for others.
            if_version: Only if it still has this version; None: in any case.
        """
        return self._decide(proposal, "reject", reason, if_version)

    def _decide(self, proposal: int, verb: str, reason: str, if_version: int | None) -> Proposal:
        body = Decision(reason=reason).model_dump_json()
        return self._ask(Proposal, "POST", f"/proposals/{proposal}:{verb}", body=body, headers=_if(if_version))

    # Targets and schedules.

    def targets(self) -> Iterator[Target]:
        """Targets, by name."""
        return self._list(Target, "/targets", {})

    def target(self, name: str) -> Target:
        """A target."""
        return self._ask(Target, "GET", f"/targets/{quote(name, '')}")

    def put_target(self, name: str, spec: TargetSpec, *, if_version: int | None = None) -> Target:
        """Make or change a target.

        Args:
            name: Its name.
            spec: What it is to be.
            if_version: Only if it has this version; None: in any case.
        """
        return self._put(Target, f"/targets/{quote(name, '')}", spec, if_version)

    def remove_target(self, name: str, *, if_version: int | None = None) -> None:
        """Remove a target; its jobs and its history stay."""
        self._remove(f"/targets/{quote(name, '')}", if_version)

    def schedules(self) -> Iterator[Schedule]:
        """Schedules, by name."""
        return self._list(Schedule, "/schedules", {})

    def schedule(self, name: str) -> Schedule:
        """A schedule."""
        return self._ask(Schedule, "GET", f"/schedules/{quote(name, '')}")

    def put_schedule(self, name: str, spec: ScheduleSpec, *, if_version: int | None = None) -> Schedule:
        """Make or change a schedule; see `put_target` for the arguments."""
        return self._put(Schedule, f"/schedules/{quote(name, '')}", spec, if_version)

    def remove_schedule(self, name: str, *, if_version: int | None = None) -> None:
        """Remove a schedule; its jobs stay."""
        self._remove(f"/schedules/{quote(name, '')}", if_version)

    # Hosts, history and tokens.

    def hosts(self) -> Iterator[Host]:
        """The machines that run jobs, with their slots."""
        return self._list(Host, "/hosts", {})

    def history(
        self, *, target: str | None = None, model: str | None = None, limit: int | None = None
    ) -> Iterator[NightEntry]:
        """The nights, the newest first; see `jobs` for the arguments."""
        return self._list(NightEntry, "/history", {"target": target, "model": model}, limit=limit)

    def tokens(self) -> Iterator[Token]:
        """The tokens, without their secrets."""
        return self._list(Token, "/tokens", {})

    def new_token(self, spec: TokenSpec) -> NewToken:
        """Make a token. Only this response has its secret."""
        return self._ask(NewToken, "POST", "/tokens", body=spec.model_dump_json(exclude_defaults=True))

    def remove_token(self, token_id: str) -> None:
        """Remove a token; from then on it is refused."""
        self._remove(f"/tokens/{quote(token_id, '')}", None)

    # Requests.

    def _ask(
        self,
        model: type[_Model],
        verb: Verb,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: str | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool | None = None,
    ) -> _Model:
        response = self._connection.request(
            verb, _API + path, query=query, body=body, headers=headers, repeatable=repeatable
        )
        try:
            # A newer service may have more fields.
            return model.model_validate_json(response.body, extra="ignore")
        except ValidationError as error:
            wrong = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in wrong["loc"])
            raise ServiceError(
                f"{self.server}{_API}{path}: unexpected answer: {where or 'the content'}: {wrong['msg']}; "
                "is it a tritontune of another version?"
            ) from None

    def _list(
        self, item: type[_Some], path: str, query: Mapping[str, Any], *, limit: int | None = None
    ) -> Iterator[_Some]:
        """All items of a list, which is fetched in parts."""
        left, cursor = limit, None
        while left is None or left > 0:
            size = _PAGE if left is None else min(_PAGE, left)
            part = self._ask(Page[item], "GET", path, query={**query, "limit": size, "cursor": cursor})  # type: ignore[valid-type]
            yield from part.items[:left]
            left = None if left is None else left - len(part.items)
            cursor = part.next
            if cursor is None:
                return

    def _put(self, model: type[_Model], path: str, spec: Resource, if_version: int | None) -> _Model:
        # After the first request has changed it, a second one would find another version.
        repeatable, body = if_version is None, spec.model_dump_json(exclude_defaults=True)
        return self._ask(model, "PUT", path, body=body, headers=_if(if_version), repeatable=repeatable)

    def _remove(self, path: str, if_version: int | None) -> None:
        # Not repeated: after the first request has done it, a second one would find nothing.
        self._connection.request("DELETE", _API + path, headers=_if(if_version), repeatable=False)

    def _events_once(self, job: int, after: int, *, follow: bool) -> Iterator[Event]:
        """The events of one request."""
        headers = {"accept": "text/event-stream", **({"last-event-id": str(after)} if after else {})}
        query = {"follow": "true" if follow else "false"}
        for message in messages(self._connection.stream(f"{_API}/jobs/{job}/events", query=query, headers=headers)):
            try:
                event = EVENT.validate_json(message.data, extra="ignore")
            except ValidationError:
                continue  # of a type that this version does not know
            if event.seq > after:
                after = event.seq
                yield event


def _if(version: int | None) -> dict[str, str]:
    return {} if version is None else {"if-match": f'"{version}"'}


def _address_here(data: Path | None) -> str:
    """Address of the service of this user on this machine.

    Args:
        data: Its data folder; None: any.

    Raises:
        TokenRefusedError: no service has this data folder, whose token must go to no other one.
    """
    here = [each for each in local_services() if data is None or each.data.resolve() == data.resolve()]
    if data is not None and not here:
        raise TokenRefusedError(
            f"--data: {data}: no service of yours runs with this folder; start it, or give --server"
        )
    return here[0].server if len(here) == 1 else DEFAULT_SERVER


def _with_token(server: str, data: Path | None) -> tuple[str, str]:
    """The address of a service and its token.

    Raises:
        TokenRefusedError: there is no token.
    """
    if data is not None:
        return server, admin_token(data)
    if token := os.environ.get(TOKEN_VARIABLE, "").strip():
        return server, token
    if service := local_service(server):
        # By its own address: somebody else may listen at another one that localhost stands for. TLS tells who it is.
        return (server if server.startswith("https:") else service.server), admin_token(service.data)
    others = [each.server for each in local_services()]
    hint = f"; your services on this machine are at {' and '.join(others)}" if others else ""
    raise TokenRefusedError(
        f"no token for {server}: set {TOKEN_VARIABLE}, or start `tritontune serve` on this machine{hint}"
    )
