"""The part of this machine that servers are pinned to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Pins:
    """What servers may use of this machine, by choice of tritontune.

    Launchers do not describe it, so that studies on different slots of a machine have the same Triton.

    Attributes:
        gpus: UUIDs of GPUs, separated by commas; None: those of the user's options.
        cores: Cores; empty: all that this process may use.
    """

    gpus: str | None = None
    cores: frozenset[int] = frozenset()

    def __bool__(self) -> bool:
        """Whether anything is pinned."""
        return bool(self.gpus or self.cores)

    @property
    def core_list(self) -> str:
        """The cores as the kernel and Docker list them, such as `0-3,8`."""
        return core_list(self.cores)


NO_PINS = Pins()


def core_list(cores: Iterable[int]) -> str:
    """Cores as the kernel and Docker list them: `0-3,8`."""
    groups: list[list[int]] = []
    for core in sorted(cores):
        if groups and core == groups[-1][-1] + 1:
            groups[-1].append(core)
        else:
            groups.append([core])
    return ",".join(f"{group[0]}-{group[-1]}" if len(group) > 1 else str(group[0]) for group in groups)
