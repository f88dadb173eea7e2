"""What the nights tell of targets: their history, and the deployed configurations for the overview."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tuner.client.resources import DeployedPoint, NightEntry, Page, Proposal, ProposalState, Target
from tuner.core.errors import JobError
from tuner.core.slo import NO_LIMIT, SLO
from tuner.nightly.history import History, Night
from tuner.nightly.measured import Measured
from tuner.service.errors import StoreUnavailableError
from tuner.service.store.pages import checked_limit, every, number_of, page_of
from tuner.service.store.proposals import ProposalFilter
from tuner.service.store.store import Store

_log = logging.getLogger(__name__)

TREND = 30
"""Number of nights in a trend."""

# Proposals that are looked at.
_MOST_OPEN, _MOST_APPROVED = 500, 100
_Nights = Mapping[tuple[str, str], Sequence[Night]]
_Newest = Mapping[tuple[str, str], Proposal]


class Histories:
    """The history of all nights of the service.

    Args:
        path: The file of the history; it need not exist.
        store: The targets and proposals.
    """

    def __init__(self, path: Path, store: Store) -> None:
        self._path, self._store = path, store
        self._mutex = threading.Lock()
        self._stamp: tuple[int, ...] | None = None
        self._nights: dict[str, Mapping[str, Sequence[Night]]] = {}

    def nights(
        self, target: Target | None = None, model: str | None = None, *, cursor: str | None = None, limit: int = 50
    ) -> Page[NightEntry]:
        """A page of nights, the newest first.

        Args:
            target: Only nights of its models; None: all.
            model: Only nights of this model; None: all.
            cursor: `next` of the page before; None: the first page.
            limit: The most nights on the page, from 1 to 500.

        Raises:
            CursorError: the cursor is not one of this list.
            StoreUnavailableError: the database does not answer, or the history cannot be read.
        """
        before, limit = number_of(cursor, "nights"), checked_limit(limit)
        repository, models = (_repository_of(target), _models_of(target)) if target else (None, ())
        if model is not None:
            if models and model not in models:
                return Page[NightEntry](items=())
            models = (model,)
        if not self._path.exists():
            return Page[NightEntry](items=())
        targets = [target] if target else list(every(self._store.targets))
        try:
            with History.opened(str(self._path)) as history:
                found = history.newest(repository=repository, models=models, before=before, limit=limit + 1)
        except JobError as error:
            raise StoreUnavailableError(str(error)) from None
        page = page_of(found, limit, "nights", lambda numbered: numbered[0])
        entries = tuple(_entry(night, targets) for _, night in page.items)
        return Page[NightEntry].model_construct(items=entries, next=page.next)

    def with_deployed(self, targets: Sequence[Target]) -> tuple[Target, ...]:
        """The targets with the deployed configurations of their models, as they were last measured, by name.

        After a proposal was approved, its measurement counts until the next night. A history that cannot be read is
        logged, and counts as empty.

        Raises:
            StoreUnavailableError: the database does not answer.
        """
        open_, approved = self._proposals("open", _MOST_OPEN), self._proposals("approved", _MOST_APPROVED)
        nights = self._last_nights(tuple(map(_repository_of, targets)))
        return tuple(
            target.model_copy(update={"deployed": tuple(_points(target, nights, open_, approved))})
            for target in targets
        )

    def _proposals(self, state: ProposalState, most: int) -> _Newest:
        """The newest proposal of each model."""
        items = self._store.proposals(ProposalFilter(states=[state]), limit=most).items
        return {(each.repository, each.model): each for each in reversed(items)}

    def _last_nights(self, repositories: Collection[str]) -> _Nights:
        """The last nights of each model of some repositories, the newest first."""
        with self._mutex:
            stamp = _stamp_of(self._path)
            if stamp != self._stamp:
                # It changes once a night.
                self._nights, self._stamp = {}, stamp
            missing = set(repositories) - self._nights.keys()
            if missing and stamp:
                self._nights |= self._read(missing)
            return {
                (repository, model): nights
                for repository in repositories
                for model, nights in self._nights.get(repository, {}).items()
            }

    def _read(self, repositories: Collection[str]) -> Mapping[str, Mapping[str, Sequence[Night]]]:
        try:
            with History.opened(str(self._path)) as history:
                return {
                    repository: {
                        model: tuple(
                            night for _, night in history.newest(repository=repository, models=(model,), limit=TREND)
                        )
                        for model in history.models_in(repository)
                    }
                    for repository in repositories
                }
        except JobError as error:
            _log.warning("%s", error)
            return {repository: {} for repository in repositories}


def _stamp_of(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _entry(night: Night, targets: Sequence[Target]) -> NightEntry:
    serving = night.serving
    return NightEntry(
        night=_time(night.night),
        target=next((target.name for target in targets if _is_of(night, target)), None),
        repository=night.repository,
        model=night.model,
        outcome=night.outcome,
        reason=night.drift if night.regression else night.reason,
        regression=night.regression,
        action=night.action,
        throughput=serving and serving.throughput,
        latency_ms=serving and serving.latency,
        percentile=serving and serving.percentile,
        gain=night.gain,
    )


def _points(target: Target, nights: _Nights, open_: _Newest, approved: _Newest) -> Iterator[DeployedPoint]:
    repository, slo = _repository_of(target), _slo_of(target)
    known = sorted({model for at, model in (*nights, *open_, *approved) if at == repository})
    for model in _models_of(target) or known:
        key = (repository, model)
        if point := _point(model, nights.get(key, ()), slo, open_.get(key), approved.get(key)):
            yield point


def _point(
    model: str, nights: Sequence[Night], slo: SLO, offered: Proposal | None, approved: Proposal | None
) -> DeployedPoint | None:
    """The deployed point of a model from its nights, the newest first."""
    last = next((night for night in nights if night.serving), None)
    served = [night.serving.throughput.value for night in reversed(nights) if night.serving]
    measured_at = _time(last.night) if last else None
    common: dict[str, Any] = {
        "model": model,
        "gain_on_offer": offered.gain if offered else None,
        "last_night": nights[0].outcome if nights else None,
        "trend": tuple(served),
    }
    if approved and approved.throughput and (measured_at is None or (approved.decided_at or measured_at) > measured_at):
        limit = slo.limit_ms(slo.percentile)
        holds = None
        if limit is not None and approved.latency_ms and approved.percentile == slo.percentile:
            holds = approved.latency_ms.value <= limit
        return DeployedPoint(
            **common,
            measured_at=approved.created_at,
            throughput=approved.throughput,
            latency_ms=approved.latency_ms,
            percentile=approved.percentile,
            holds_slo=holds,
        )
    if last and last.serving and measured_at:
        return DeployedPoint(
            **common,
            measured_at=measured_at,
            throughput=last.serving.throughput,
            latency_ms=last.serving.latency,
            percentile=last.serving.percentile,
            holds_slo=_holds(last.serving, slo),
        )
    if nights:
        return DeployedPoint(**common, measured_at=_time(nights[0].night))
    return DeployedPoint(**common, measured_at=offered.created_at) if offered else None


def _holds(measured: Measured, slo: SLO) -> bool | None:
    """Whether all limits hold; None: there is none, or one was not measured."""
    latencies = {limit.key: measured.latency_at(limit.percentile) for limit in slo.limits}
    if not slo.limits or not all(latencies.values()):
        return None
    return slo.holds({key: latency.value for key, latency in latencies.items() if latency})


def _is_of(night: Night, target: Target) -> bool:
    models = _models_of(target)
    return night.repository == _repository_of(target) and (not models or night.model in models)


def _repository_of(target: Target) -> str:
    """The repository as the history names it."""
    return str(Path(str(target.job.get("repository") or ".")).resolve())


def _models_of(target: Target) -> tuple[str, ...]:
    """The models of a target; empty: all of its repository."""
    models = target.job.get("model") or ()
    return (models,) if isinstance(models, str) else tuple(map(str, models))


def _slo_of(target: Target) -> SLO:
    with suppress(ValidationError):
        return SLO.model_validate(target.job.get("slo") or {})
    return NO_LIMIT


def _time(night: str) -> datetime:
    at = datetime.fromisoformat(night)
    return at if at.tzinfo else at.replace(tzinfo=timezone.utc)
