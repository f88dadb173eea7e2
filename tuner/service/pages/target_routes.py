"""The overview, the page of a target, and the history."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from tuner.service.auth import Principal
from tuner.service.operations import Service
from tuner.service.pages.errors import PageRoute
from tuner.service.pages.history_plots import MOST_NIGHTS
from tuner.service.pages.hosts import hosts_part
from tuner.service.pages.nights import ModelNights, nights_by_model
from tuner.service.pages.overview import deployed_rows, tiles
from tuner.service.pages.rendering import page
from tuner.service.pages.visitors import visitor
from tuner.service.pages.words import slo_of
from tuner.service.store.jobs import JobFilter

_ON_PAGE = 50
_LATEST = 8
_MOST = 500

Cursor = Annotated[str | None, Query(max_length=500)]


class TargetPages:
    """The pages of targets.

    Args:
        service: Has the targets.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> APIRouter:
        """The addresses."""
        routes = APIRouter(route_class=PageRoute, include_in_schema=False)
        routes.get("/")(self.overview)
        routes.get("/targets/{name}")(self.target)
        routes.get("/history")(self.history)
        return routes

    def overview(self, request: Request, cursor: Cursor = None) -> Response:
        """Every target, the hosts, and the latest jobs."""
        who = visitor(self._service, request)
        targets = self._service.targets(who, cursor=cursor, limit=_ON_PAGE)
        proposals = self._service.proposals(who, state="open", limit=_MOST).items
        rows = deployed_rows(targets.items, proposals)
        return page(
            request,
            "overview",
            who=who,
            tiles=tiles(self._service.count_jobs(who), len(proposals), rows),
            rows=rows,
            more=targets.next,
            part=hosts_part(self._service, who),
            latest=self._service.jobs(who, limit=_LATEST).items,
        )

    def target(self, request: Request, name: str) -> Response:
        """A target."""
        who = visitor(self._service, request)
        target = self._service.target(who, name)
        proposals = self._service.proposals(who, state="open", target=name, limit=_MOST).items
        return page(
            request,
            "target",
            who=who,
            target=target,
            slo=slo_of(target.job) or "none",
            schedules=[each for each in self._service.schedules(who, limit=_MOST).items if each.target == name],
            proposals={each.model: each.id for each in proposals},
            groups=self._nights(who, name),
            jobs=self._service.jobs(who, JobFilter(target=name), limit=_LATEST).items,
        )

    def history(
        self, request: Request, target: Annotated[str, Query(max_length=200)] = "", cursor: Cursor = None
    ) -> Response:
        """The nights, of one target or of all."""
        who = visitor(self._service, request)
        names = [each.name for each in self._service.targets(who, limit=_MOST).items]
        return page(
            request,
            "history",
            who=who,
            target=target,
            target_names=names,
            groups=self._nights(who, target) if target else (),
            page=self._service.history(who, target=target or None, cursor=cursor, limit=_ON_PAGE),
            address="/history" + (f"?target={target}" if target else ""),
            first=cursor is not None,
        )

    def _nights(self, who: Principal, name: str) -> tuple[ModelNights, ...]:
        slo = slo_of(self._service.target(who, name).job)
        return nights_by_model(self._service.history(who, target=name, limit=MOST_NIGHTS).items, slo)
