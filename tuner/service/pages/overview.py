"""The overview: every target with its deployed configurations, and what wants attention."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tuner.client.resources import DeployedPoint, JobState, Proposal, Target
from tuner.core.quantities import format_number
from tuner.core.record import Interval
from tuner.service.pages.drawing import sparkline
from tuner.service.pages.words import Tone, slo_of


@dataclass(frozen=True)
class Tile:
    """A number that leads to a list."""

    count: int
    text: str
    address: str
    tone: Tone | str = ""


@dataclass(frozen=True)
class DeployedRow:
    """A deployed configuration in the overview.

    Attributes:
        target: Name of the target.
        point: Its measurement; None: not measured yet.
        slo: The SLO in words.
        verdict: Whether it holds the SLO, in words; empty: unknown.
        tone: Tone of the verdict.
        trend: Path of the sparkline.
        trend_words: The trend in words.
        proposal: Id of the open proposal.
        gain: Its gain.
    """

    target: str
    slo: str
    point: DeployedPoint | None = None
    verdict: str = ""
    tone: Tone | str = ""
    trend: str = ""
    trend_words: str = ""
    proposal: int | None = None
    gain: Interval | None = None


def deployed_rows(targets: Iterable[Target], proposals: Iterable[Proposal]) -> tuple[DeployedRow, ...]:
    """A row for each deployed configuration, and one for each target without any."""
    offers = {(each.target, each.model): each for each in proposals}
    return tuple(row for target in targets for row in _rows(target, offers))


def tiles(counts: Mapping[JobState, int], proposals: int, rows: Sequence[DeployedRow]) -> tuple[Tile, ...]:
    """The numbers at the top of the overview."""
    running = counts["starting"] + counts["running"] + counts["cancelling"]
    violated = sum(row.tone == "bad" for row in rows)
    slower = sum(row.point is not None and row.point.last_night == "regression" for row in rows)
    return (
        Tile(running, "running", "/queue"),
        Tile(counts["queued"], "waiting", "/queue"),
        Tile(proposals, "to decide", "/proposals", "good" if proposals else ""),
        Tile(
            violated, "SLO violated" if violated == 1 else "SLOs violated", "#targets-title", "bad" if violated else ""
        ),
        Tile(slower, "regression" if slower == 1 else "regressions", "#targets-title", "bad" if slower else ""),
    )


def _rows(target: Target, offers: Mapping[tuple[str | None, str], Proposal]) -> Iterable[DeployedRow]:
    slo = slo_of(target.job)
    if not target.deployed:
        yield DeployedRow(target.name, slo)
    for point in target.deployed:
        offer = offers.get((target.name, point.model))
        yield DeployedRow(
            target.name,
            slo,
            point,
            verdict=_verdict(slo, holds=point.holds_slo),
            tone="" if point.holds_slo is None else "good" if point.holds_slo else "bad",
            trend=sparkline(point.trend),
            trend_words=_trend_words(point.trend),
            proposal=offer.id if offer else None,
            gain=point.gain_on_offer or (offer.gain if offer else None),
        )


def _verdict(slo: str, *, holds: bool | None) -> str:
    return "" if holds is None else (slo or "holds") if holds else f"{slo} violated".strip()


def _trend_words(trend: Sequence[float]) -> str:
    if len(trend) < 2:
        return ""
    return f"{len(trend)} nights: from {format_number(trend[0])} to {format_number(trend[-1])} inferences/s"
