"""A line for each busy slot of a run that has several."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rich.text import Text


@dataclass
class _Busy:
    """What a slot does.

    Attributes:
        slot: Its name.
        work: The work in words, such as `trial 12`.
        trial: The number of the trial; None: the work is no trial.
        candidate: The candidate of a trial in words, which are often long.
        now: What was measured last, or what is under way; empty: unknown.
    """

    slot: str
    work: str
    trial: int | None = None
    candidate: str = ""
    now: str = ""

    def __str__(self) -> str:
        details = "; ".join(part for part in (self.now, self.candidate) if part)
        return f"{self.work}: {details}" if details else self.work


class SlotLines:
    """What the slots of a run do now; empty where it has only one. The display may read it from its own thread."""

    def __init__(self) -> None:
        self._busy: dict[str, _Busy] = {}

    def __bool__(self) -> bool:
        return bool(self._busy)

    def __len__(self) -> int:
        return len(self._busy)

    def began(self, slot: str, work: str) -> None:
        """A slot begins some work that is no trial."""
        self._busy[slot] = _Busy(slot, work)

    def began_trial(self, slot: str, number: int, candidate: str) -> None:
        """A slot begins a trial, perhaps one that was lost on another slot."""
        self.end_trial(number)
        self._busy[slot] = _Busy(slot, f"trial {number}", number, candidate, "launching")

    def tell(self, trial: int | None, now: str) -> bool:
        """Change what is said of a trial. Returns whether a slot runs it."""
        for busy in self._of(trial):
            busy.now = now
        return bool(self._of(trial))

    def end(self, slot: str) -> None:
        """A slot has nothing to do."""
        self._busy.pop(slot, None)

    def end_trial(self, trial: int | None) -> None:
        """The slot of a trial has nothing to do."""
        for busy in self._of(trial):
            self.end(busy.slot)

    def end_host(self, host: str) -> None:
        """The slots of a host are lost."""
        for slot in tuple(self._busy):
            if slot.rpartition("/")[0] == host:
                self.end(slot)

    def clear(self) -> None:
        """No slot has anything to do."""
        self._busy = {}

    def lines(self, most: int) -> list[Text]:
        """The lines, in order of slots, one of which may stand for those that do not fit into `most`."""
        busy = sorted(self._busy.values(), key=lambda each: _natural(each.slot))
        width = max((len(each.slot) for each in busy), default=0)
        shown = busy if len(busy) <= most else busy[: max(0, most - 1)]
        lines = [_cropped(f"  {each.slot:<{width}}  {each}") for each in shown]
        if len(shown) < len(busy):
            lines.append(_cropped(f"  and {len(busy) - len(shown)} more slots"))
        return lines

    def _of(self, trial: int | None) -> list[_Busy]:
        return [each for each in tuple(self._busy.values()) if trial is not None and each.trial == trial]


def _natural(name: str) -> list[str | int]:
    """A key that puts `gpu:2` before `gpu:10`."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def _cropped(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")
