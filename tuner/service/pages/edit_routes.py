"""The forms of targets and schedules."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import RedirectResponse

from tuner.core.errors import UsageError
from tuner.service.auth import Principal
from tuner.service.errors import ConflictError, NotFoundError
from tuner.service.operations import Service
from tuner.service.pages.errors import PageRoute
from tuner.service.pages.forms import FormError, ScheduleForm, TargetForm, named
from tuner.service.pages.rendering import page
from tuner.service.pages.visitors import visitor
from tuner.service.refusals import ForbiddenError, StaleError

Version = Annotated[int, Form()]

_STATUS = (
    (ForbiddenError, HTTPStatus.FORBIDDEN),
    (StaleError, HTTPStatus.CONFLICT),
    (ConflictError, HTTPStatus.CONFLICT),
    (NotFoundError, HTTPStatus.BAD_REQUEST),
    (UsageError, HTTPStatus.BAD_REQUEST),
    (FormError, HTTPStatus.BAD_REQUEST),
)
_REFUSALS = tuple(kind for kind, _ in _STATUS)


class EditPages:
    """The forms of targets and schedules. A form that is wrong, or that comes too late, is shown again with the reason.

    Args:
        service: Has the targets and schedules.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> APIRouter:
        """The addresses."""
        routes = APIRouter(route_class=PageRoute, include_in_schema=False)
        routes.get("/new-target")(self.new_target)
        routes.post("/new-target")(self.add_target)
        routes.get("/targets/{name}/edit")(self.target)
        routes.post("/targets/{name}")(self.save_target)
        routes.post("/targets/{name}/remove")(self.remove_target)
        routes.get("/new-schedule")(self.new_schedule)
        routes.post("/new-schedule")(self.add_schedule)
        routes.get("/schedules/{name}")(self.schedule)
        routes.post("/schedules/{name}")(self.save_schedule)
        routes.post("/schedules/{name}/remove")(self.remove_schedule)
        return routes

    def new_target(self, request: Request) -> Response:
        """The form of a new target."""
        return _form(request, "target_form", self._submitter(request), TargetForm())

    def add_target(self, request: Request, entered: Annotated[TargetForm, Form()]) -> Response:
        """Add a target."""
        who = self._submitter(request)

        def add() -> str:
            name = named(entered.name)
            self._service.put_target(who, name, entered.spec(), if_version=0)
            return f"/targets/{name}"

        return _done(request, "target_form", who, entered, add)

    def target(self, request: Request, name: str) -> Response:
        """The form of a target."""
        who = self._submitter(request)
        return _form(request, "target_form", who, TargetForm.of(self._service.target(who, name)), name=name)

    def save_target(self, request: Request, name: str, entered: Annotated[TargetForm, Form()]) -> Response:
        """Change a target."""
        who = self._submitter(request)

        def save() -> str:
            self._service.put_target(who, named(name), entered.spec(), if_version=entered.version)
            return f"/targets/{name}"

        return _done(request, "target_form", who, entered, save, name=name)

    def remove_target(self, request: Request, name: str, version: Version) -> Response:
        """Remove a target."""
        self._service.remove_target(self._submitter(request), name, if_version=version)
        return RedirectResponse("/", HTTPStatus.SEE_OTHER)

    def new_schedule(self, request: Request, target: Annotated[str, Query(max_length=200)] = "") -> Response:
        """The form of a new schedule."""
        who = self._submitter(request)
        name = self._service.target(who, target).name
        return _form(request, "schedule_form", who, ScheduleForm(name=f"{name}-nights", target=name, enabled=True))

    def add_schedule(self, request: Request, entered: Annotated[ScheduleForm, Form()]) -> Response:
        """Add a schedule."""
        who = self._submitter(request)

        def add() -> str:
            self._service.put_schedule(who, named(entered.name), entered.spec(), if_version=0)
            return f"/targets/{entered.target}"

        return _done(request, "schedule_form", who, entered, add)

    def schedule(self, request: Request, name: str) -> Response:
        """The form of a schedule."""
        who = self._submitter(request)
        return _form(request, "schedule_form", who, ScheduleForm.of(self._service.schedule(who, name)), name=name)

    def save_schedule(self, request: Request, name: str, entered: Annotated[ScheduleForm, Form()]) -> Response:
        """Change a schedule."""
        who = self._submitter(request)

        def save() -> str:
            self._service.put_schedule(who, named(name), entered.spec(), if_version=entered.version)
            return f"/targets/{entered.target}"

        return _done(request, "schedule_form", who, entered, save, name=name)

    def remove_schedule(self, request: Request, name: str, version: Version) -> Response:
        """Remove a schedule."""
        who = self._submitter(request)
        target = self._service.schedule(who, name).target
        self._service.remove_schedule(who, name, if_version=version)
        return RedirectResponse(f"/targets/{target}", HTTPStatus.SEE_OTHER)

    def _submitter(self, request: Request) -> Principal:
        who = visitor(self._service, request)
        who.require("submit")
        return who


def _done(
    request: Request,
    template: str,
    who: Principal,
    entered: TargetForm | ScheduleForm,
    change: Callable[[], str],
    *,
    name: str = "",
) -> Response:
    """Change something and go to the address that the change returns, or show the form again."""
    try:
        return RedirectResponse(change(), HTTPStatus.SEE_OTHER)
    except _REFUSALS as error:
        status = next(code for kind, code in _STATUS if isinstance(error, kind))
        problems = error.problems if isinstance(error, FormError) else (str(error),)
        return _form(request, template, who, entered, name=name, status=status, problems=problems)


def _form(
    request: Request,
    template: str,
    who: Principal,
    entered: TargetForm | ScheduleForm,
    *,
    name: str = "",
    status: HTTPStatus = HTTPStatus.OK,
    problems: tuple[str, ...] = (),
) -> Response:
    return page(request, template, who=who, status=status, entered=entered.model_dump(), name=name, problems=problems)
