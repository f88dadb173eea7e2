"""Which hosts may be used: those like the reference host, or in classes of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuner.cluster.slots import HostFacts

_PLURAL = ("gpus", "cores")


@dataclass(frozen=True)
class Admission:
    """Whether a host is admitted.

    Attributes:
        host_class: Its class; empty: that of the reference host.
        reason: Why it is left out; empty: it is admitted.
    """

    host_class: str = ""
    reason: str = ""


def reference_of(known: Sequence[tuple[HostFacts, int]]) -> HostFacts:
    """The facts of most slots; of equal numbers, the first.

    Args:
        known: The facts of each host, and the number of its slots; not empty.
    """
    numbers: list[tuple[HostFacts, int]] = []
    for facts, _ in known:
        numbers.append((facts, sum(slots for other, slots in known if other == facts)))
    return max(numbers, key=lambda each: each[1])[0]


def admit(facts: HostFacts, reference: HostFacts, *, mixed: bool) -> Admission:
    """Compare a host with the reference host."""
    differing = facts.differing_fields(reference)
    if not differing:
        return Admission()
    if mixed:
        return Admission(host_class=", ".join(f"{name} {_shown(getattr(facts, name))}" for name in differing))
    name = differing[0]
    here, there = _shown(getattr(facts, name)), _shown(getattr(reference, name))
    verb, theirs = ("are", "those") if name in _PLURAL else ("is", "that")
    return Admission(
        reason=(
            f"its {name} {verb} {here}, {theirs} of the reference host {there}; --mixed uses it in a class of its own"
        )
    )


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value) or "none"
