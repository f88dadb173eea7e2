"""The request rate that the best config was shown to serve."""

from __future__ import annotations

from tuner.core.loads import Load
from tuner.core.record import Record
from tuner.measure.points import OperatingPoint


class CertifiedRate(Record):
    """What became of a config when requests came at their own times, as those of independent users do.

    Attributes:
        trial: Whose config.
        load: The closed loop that it was recommended at.
        point: At the highest Poisson rate that it was shown to keep up with, within the SLO; None: at none.
        reason: Why at none, in words.
        launched: Whether it was tried.
    """

    trial: int
    load: Load
    point: OperatingPoint | None = None
    reason: str | None = None
    launched: bool = True
