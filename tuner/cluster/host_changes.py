"""What happens to the hosts of a run, for those who watch it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

HostEvent = Literal["admitted", "left_out", "lost", "drained", "back"]
"""What happened to a host: it was admitted, or not; it was lost; it gets no more work; it works again after a loss."""

_WORDS: dict[HostEvent, str] = {
    "admitted": "was admitted",
    "left_out": "is left out",
    "lost": "was lost",
    "drained": "gets no more work",
    "back": "works again",
}


@dataclass(frozen=True)
class HostChange:
    """What happened to a host.

    Attributes:
        host: The name of the host.
        event: What happened.
        reason: Why, in one line; empty: it needs no reason.
        host_class: The class of hosts that it is compared with; empty: that of the reference host.
        slots: The names of its slots, when it is admitted.
        description: What it has, when it is admitted: GPUs or cores, and its Triton.
    """

    host: str
    event: HostEvent
    reason: str = ""
    host_class: str = ""
    slots: tuple[str, ...] = ()
    description: str = ""

    def __str__(self) -> str:
        """In words: `host worker-2 was lost: its heartbeat stopped`."""
        slots = len(self.slots)
        what = f"host {self.host} {_WORDS[self.event]}"
        if self.event == "admitted":
            what += f" with {slots} slot{'s' * (slots != 1)}"
        return f"{what}: {detail}" if (detail := self.reason or self.description) else what
