"""The pages of jobs: the queue, lists, one job, several side by side, and the form of a new one."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path
from secrets import token_urlsafe
from typing import Annotated, Any, get_args
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, ConfigDict, Field

from tuner.client.resources import FrontPoint, Job, JobKind, JobState
from tuner.core.errors import UsageError
from tuner.core.quantities import format_size
from tuner.core.slo import PERCENTILES
from tuner.jobs.events import Event
from tuner.service.auth import Principal
from tuner.service.errors import NotFoundError
from tuner.service.operations import Service
from tuner.service.pages.comparison import best_in_words, common_models, differing_options, job_ids, result_of
from tuner.service.pages.errors import PageRoute
from tuner.service.pages.forms import FormError, SubmitForm
from tuner.service.pages.front_plots import MOST_COMPARED, compared_fronts, front_drawing, upward_of
from tuner.service.pages.hosts import hosts_part
from tuner.service.pages.job_page import (
    MOST_FILES,
    MOST_RESULTS,
    announcement,
    current_model,
    log_lines,
    point_rows,
    trial_page,
)
from tuner.service.pages.rendering import page
from tuner.service.pages.visitors import Id, visitor
from tuner.service.pages.words import lasted, options_text
from tuner.service.refusals import ForbiddenError, LimitError
from tuner.service.store.jobs import JobFilter

MOST_NAMES = 500
"""Targets that a form offers."""

EVENT_TYPES: tuple[str, ...] = tuple(kind.model_fields["type"].default for kind in get_args(get_args(Event)[0]))
"""The types of events."""

_ON_PAGE = 50
_MOST_QUEUED = 100
_MOST_PROPOSALS = 10
_REPORT = "run/report.html"

Asked = Annotated[str, Query(max_length=200)]
_REFUSED = ((ForbiddenError, HTTPStatus.FORBIDDEN), (LimitError, HTTPStatus.TOO_MANY_REQUESTS))


class JobQuery(BaseModel):
    """Which jobs the list shows; values that are not known count as all."""

    model_config = ConfigDict(str_strip_whitespace=True)

    text: Annotated[str, Field(max_length=200)] = ""
    state: Annotated[str, Field(max_length=20)] = ""
    kind: Annotated[str, Field(max_length=20)] = ""
    target: Annotated[str, Field(max_length=200)] = ""
    cursor: Annotated[str | None, Field(max_length=500)] = None

    def wanted(self) -> JobFilter:
        """The filter."""
        states: tuple[JobState, ...] = tuple(each for each in get_args(JobState) if each == self.state)
        kinds: tuple[JobKind, ...] = tuple(each for each in get_args(JobKind) if each == self.kind)
        return JobFilter(states=states, kinds=kinds, target=self.target or None, text=self.text)


class CompareQuery(BaseModel):
    """Which jobs to compare: `jobs=12,13`, or `jobs=12&jobs=13` as the list of jobs sends it."""

    jobs: Annotated[list[Annotated[str, Field(max_length=100)]], Field(max_length=200)] = []
    model: Annotated[str, Field(max_length=200)] = ""


class JobPages:
    """The pages of jobs.

    Args:
        service: Has the jobs.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> APIRouter:
        """The addresses."""
        routes = APIRouter(route_class=PageRoute, include_in_schema=False)
        routes.get("/queue")(self.queue)
        routes.get("/jobs")(self.jobs)
        routes.get("/jobs/{job_id}")(self.job)
        routes.get("/jobs/{job_id}/live")(self.live)
        routes.post("/jobs/{job_id}/cancel")(self.cancel)
        routes.post("/jobs/{job_id}/retry")(self.retry)
        routes.get("/compare")(self.compare)
        routes.get("/submit")(self.form)
        routes.post("/submit")(self.submit)
        return routes

    def queue(self, request: Request) -> Response:
        """The hosts and what waits for them."""
        who = visitor(self._service, request)
        queued = self._service.queue(who, _MOST_QUEUED)
        waiting = self._service.count_jobs(who)["queued"]
        return page(
            request,
            "queue",
            who=who,
            part=hosts_part(self._service, who),
            queued=queued,
            more=max(0, waiting - len(queued)),
            schedules=self._service.schedules(who, limit=_MOST_QUEUED).items,
        )

    def jobs(self, request: Request, asked: Annotated[JobQuery, Query()]) -> Response:
        """The jobs, the newest first."""
        who = visitor(self._service, request)
        given = asked.model_dump(exclude={"cursor"}, exclude_defaults=True)
        return page(
            request,
            "jobs",
            who=who,
            page=self._service.jobs(who, asked.wanted(), cursor=asked.cursor, limit=_ON_PAGE),
            wanted=asked,
            filtered=bool(given),
            address="/jobs" + (f"?{urlencode(given)}" if given else ""),
            first=asked.cursor is not None,
            states=get_args(JobState),
            kinds=get_args(JobKind),
            target_names=self._target_names(who),
        )

    def job(self, request: Request, job_id: Id, model: Asked = "", below: int | None = None) -> Response:
        """A job."""
        who = visitor(self._service, request)
        job = self._service.job(who, job_id)
        asked = urlencode({name: value for name, value in (("model", model), ("below", below)) if value})
        return page(
            request,
            "job",
            options=options_text(job.job),
            live=f"/jobs/{job_id}/live" + (f"?{asked}" if asked else ""),
            event_types=" ".join(EVENT_TYPES),
            **self._job_values(who, job, model, below),
        )

    def live(self, request: Request, job_id: Id, model: Asked = "", below: int | None = None) -> Response:
        """The parts of a job's page that change."""
        who = visitor(self._service, request)
        return page(request, "job_live", **self._job_values(who, self._service.job(who, job_id), model, below))

    def cancel(self, request: Request, job_id: Id) -> Response:
        """Cancel a job."""
        self._service.cancel(visitor(self._service, request), job_id)
        return _to(f"/jobs/{job_id}")

    def retry(self, request: Request, job_id: Id) -> Response:
        """Submit a job once more."""
        return _to(f"/jobs/{self._service.retry(visitor(self._service, request), job_id).id}")

    def compare(self, request: Request, asked: Annotated[CompareQuery, Query()]) -> Response:
        """Several jobs side by side."""
        who = visitor(self._service, request)
        found: list[Job] = []
        problem = ""
        try:
            found = [self._service.job(who, job_id) for job_id in job_ids(asked.jobs, most=MOST_COMPARED)]
        except (ValueError, NotFoundError) as error:
            problem = f"{str(error)[:1].upper()}{str(error)[1:]}."
        if len(found) == 1:
            problem = "Choose two jobs at least."
        models = common_models(found)
        shown = asked.model if asked.model in models else next(iter(models), "")
        fronts = {f"job {job.id}": self._front(who, job, shown) for job in found}
        return page(
            request,
            "compare",
            who=who,
            asked=", ".join(str(job.id) for job in found) or ", ".join(asked.jobs),
            problem=problem,
            jobs=found,
            models=models,
            model=shown,
            lasted=[lasted(job, self._service.clock()) for job in found],
            results=[result_of(job, shown) for job in found],
            best=[best_in_words(front) for front in fronts.values()],
            drawing=compared_fronts(fronts, [job.slo for job in found], [upward_of(job.job) for job in found]),
            differing=differing_options(found),
        )

    def form(self, request: Request, target: Asked = "") -> Response:
        """The form of a new job."""
        who = visitor(self._service, request)
        who.require("submit")
        return self._form(request, who, SubmitForm(target=target, kind="nightly" if target else "tune"))

    def submit(self, request: Request, entered: Annotated[SubmitForm, Form()]) -> Response:
        """Submit a job, and go to its page."""
        who = visitor(self._service, request)
        who.require("submit")
        try:
            # A form that is sent twice gives one job.
            job = self._service.submit(who, entered.submission(), key=entered.key or None)
        except FormError as error:
            return self._form(request, who, entered, *error.problems)
        except (ForbiddenError, LimitError, NotFoundError, UsageError) as error:
            status = next((code for kind, code in _REFUSED if isinstance(error, kind)), HTTPStatus.BAD_REQUEST)
            return self._form(request, who, entered, str(error), status=status)
        return _to(f"/jobs/{job.id}")

    def _form(
        self,
        request: Request,
        who: Principal,
        entered: SubmitForm,
        *problems: str,
        status: HTTPStatus = HTTPStatus.BAD_REQUEST,
    ) -> Response:
        return page(
            request,
            "submit",
            who=who,
            status=status if problems else HTTPStatus.OK,
            entered=entered.model_dump(),
            key=token_urlsafe(12),
            problems=problems,
            target_names=self._target_names(who),
        )

    def _target_names(self, who: Principal) -> list[str]:
        return [target.name for target in self._service.targets(who, limit=MOST_NAMES).items]

    def _front(self, who: Principal, job: Job, model: str) -> tuple[FrontPoint, ...]:
        return tuple(point for point in self._service.front(who, job.id).points if point.model == model)

    def _job_values(self, who: Principal, job: Job, asked: str, below: int | None) -> dict[str, Any]:
        view = self._service.view(who, job.id)
        trials = view.trials
        model = current_model(job, trials, job.results, asked)
        trials = [trial for trial in trials if trial.model == model]
        whole = view.front()
        front = [point for point in whole.points if point.model == model]
        percentile = front[0].percentile if front else whole.percentile
        rows = trial_page(trials, percentile, job.slo, below)
        here = f"/jobs/{job.id}?model={quote(model, safe='')}"
        files, more_files = self._files(who, job)
        return {
            "who": who,
            "job": job,
            "announcement": announcement(job),
            "lasted": lasted(job, self._service.clock()),
            "links": self._links(who, job, model),
            "results": job.results[:MOST_RESULTS],
            "more_results": max(0, len(job.results) - MOST_RESULTS),
            "model": model,
            "hosts": view.hosts,
            "front": front,
            "drawing": front_drawing(
                model,
                front,
                trials,
                job.slo,
                upward=upward_of(job.job),
                first="measured" if job.kind == "measure" else "baseline",
            ),
            "points": point_rows(trials) if job.kind == "measure" else (),
            "percentiles": PERCENTILES,
            "trials": rows.rows,
            "trials_shown": rows.shown,
            "older": None if rows.older is None else f"{here}&below={rows.older}#trials-title",
            "newest": None if below is None else f"{here}#trials-title",
            "log": log_lines(view.latest_lines(), job.created_at),
            "after": view.seq,
            "files": files,
            "more_files": more_files,
        }

    def _links(self, who: Principal, job: Job, model: str) -> list[tuple[str, str]]:
        links = [("Report", _artifact_address(job, path)) for path in self._reports(who, job, model)[:1]]
        if job.is_final:
            proposals = self._service.proposals(who, job=job.id, limit=_MOST_PROPOSALS).items
            links += [(f"Proposal {each.id}", f"/proposals/{each.id}") for each in proposals]
        if job.target:
            links.append(("Jobs of this target", f"/jobs?target={quote(job.target)}"))
        if job.retry_of:
            links.append((f"Compare with job {job.retry_of}", f"/compare?jobs={job.retry_of},{job.id}"))
        return links

    def _reports(self, who: Principal, job: Job, model: str) -> list[str]:
        """Paths of the reports: of a tuning job, or of the model's night."""
        run = self._service.folder(who, job.id).run
        nights = [f"run/{folder.name}/{model}/report.html" for folder in sorted(run.glob("*")) if model]
        return [path for path in (_REPORT, *nights) if self._artifact(who, job, path)]

    def _files(self, who: Principal, job: Job) -> tuple[list[dict[str, str]], int]:
        """The files of a job that has ended; they change too often before."""
        if not job.is_final:
            return [], 0
        found = self._service.artifacts(who, job.id, limit=MOST_FILES)
        files = [
            {"path": each.path, "size": format_size(each.size), "address": _artifact_address(job, each.path)}
            for each in found.items
        ]
        return files, bool(found.next)

    def _artifact(self, who: Principal, job: Job, path: str) -> Path | None:
        try:
            return self._service.artifact(who, job.id, path)
        except NotFoundError:
            return None


def _artifact_address(job: Job, path: str) -> str:
    return f"/api/v1/jobs/{job.id}/artifacts/{quote(path)}"


def _to(address: str) -> Response:
    return RedirectResponse(address, HTTPStatus.SEE_OTHER)
