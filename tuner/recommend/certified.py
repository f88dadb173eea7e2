"""The certified request rate of the best config."""

from __future__ import annotations

from tuner.core.loads import Load
from tuner.core.record import Record
from tuner.measure.points import OperatingPoint


class CertifiedRate(Record):
    """The result of certifying a config under Poisson arrivals, as those of independent users.

    Attributes:
        trial: The number of the trial of the config.
        load: The closed loop at which it was recommended.
        point: The point at the highest certified rate; None: no rate was certified.
        reason: Why no rate was certified.
        launched: Whether a server was launched for it.
        host: The host that it was launched on; empty: the machine of the run.
        host_class: The class of hosts that the rate holds for; empty: that of the reference host.
    """

    trial: int
    load: Load
    point: OperatingPoint | None = None
    reason: str | None = None
    launched: bool = True
    host: str = ""
    host_class: str = ""
