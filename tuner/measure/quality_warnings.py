"""Quality warnings: the reasons not to trust an operating point."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from pydantic import AliasChoices, Field

from tuner.core.record import Record


class QualityCheck(str, Enum):
    """The quality checks; `quality_checks.py` performs them. The values are stored, and written to `front.json`."""

    LITTLES_LAW = "littles_law"
    REQUEST_COUNT = "request_count"
    FAILURES = "failures"
    CACHE_HITS = "cache_hits"
    CLIENT_BOUND = "client_bound"
    DRIFT = "drift"
    GPU_THROTTLED = "gpu_throttled"
    MACHINE_LOAD = "machine_load"

    @property
    def words(self) -> str:
        """The name of the check in reports."""
        return _WORDS[self]


_WORDS = {
    QualityCheck.LITTLES_LAW: "Little's law",
    QualityCheck.REQUEST_COUNT: "request count",
    QualityCheck.FAILURES: "failed requests",
    QualityCheck.CACHE_HITS: "cache hits",
    QualityCheck.CLIENT_BOUND: "the client",
    QualityCheck.DRIFT: "drift",
    QualityCheck.GPU_THROTTLED: "GPU throttled",
    QualityCheck.MACHINE_LOAD: "load from elsewhere",
}


class QualityWarning(Record):
    """A quality check that an operating point failed.

    Attributes:
        check: The check; `gate` in studies of earlier versions, and in exports.
        reason: Why it failed, in one line with numbers.
    """

    check: QualityCheck = Field(validation_alias=AliasChoices("check", "gate"))
    reason: str


def warnings_together(rounds: Sequence[tuple[QualityWarning, ...]]) -> tuple[QualityWarning, ...]:
    """The warnings of several rounds at one load: the first of each check, with the number of rounds that failed it."""
    first: dict[QualityCheck, QualityWarning] = {}
    for warning in (warning for warnings in rounds for warning in warnings):
        first.setdefault(warning.check, warning)
    if len(rounds) == 1:
        return tuple(first.values())
    counts = {check: sum(any(warning.check is check for warning in warnings) for warnings in rounds) for check in first}
    return tuple(
        QualityWarning(check=check, reason=f"{warning.reason} (in {counts[check]} of {len(rounds)} rounds)")
        for check, warning in first.items()
    )
