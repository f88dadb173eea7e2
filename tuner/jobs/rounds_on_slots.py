"""Carries out the rounds of a verification on free slots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tuner.cluster.dispatcher import Dispatcher, Finished
from tuner.cluster.slots import Slot
from tuner.measure.work import UNHEARD, Work
from tuner.recommend.rounds import Relaunch, Round, VerificationPlan
from tuner.recommend.verification import Verification


@dataclass(frozen=True)
class RoundLaunch:
    """A launch of a round, under way.

    Attributes:
        due: The round.
        index: The index of the launch in the round.
    """

    due: Round
    index: int

    @property
    def launch(self) -> Relaunch:
        """The launch."""
        return self.due.launches[self.index]

    def __str__(self) -> str:
        """What is launched, in words."""
        loads = ", ".join(map(str, self.launch.loads))
        return f"round {self.due.number} of trial {self.launch.trial.number} at {loads}"


class RoundsOnSlots:
    """Carries out the rounds of a plan, each on one slot, so that its launches are compared on one host.

    Args:
        plan: The plan.
        dispatcher: Gives work to slots.
        work_of: Makes the work of a launch.
        folder: The folder for the logs of the servers.
        keep: Called with all verifications after each round, and at the end.
        before_launch: Called before each launch.
    """

    def __init__(  # noqa: PLR0917 (constructed at one place)
        self,
        plan: VerificationPlan,
        dispatcher: Dispatcher,
        work_of: Callable[[Relaunch], Work],
        folder: Path,
        keep: Callable[[Sequence[Verification]], None],
        before_launch: Callable[[], None],
    ) -> None:
        self.plan = plan
        self._dispatcher = dispatcher
        self._work_of = work_of
        self._folder = folder
        self._keep = keep
        self._before_launch = before_launch

    def run(self) -> None:
        """Carry out all rounds; what is known is kept even after an interruption."""
        try:
            while True:
                if self.start() and not self._dispatcher.under_way:
                    return
                if finished := self._dispatcher.wait():
                    self.ended(finished)
        finally:
            self._keep(self.plan.verifications)

    def start(self, *, speculative: bool = False) -> bool:
        """Begin a round on each free slot of one class of hosts, as far as rounds are due.

        Args:
            speculative: Whether the search is still going on.

        Returns:
            Whether none is due. Without a free slot, that is not known.
        """
        for slot in self._dispatcher.free_comparable():
            if (due := self.plan.due(speculative=speculative)) is None:
                return True
            self._begin(RoundLaunch(due, 0), slot)
        return False

    def ended(self, finished: Finished) -> None:
        """Count a launch that has ended, and begin the next one of its round."""
        piece, outcome = finished.piece, finished.outcome
        key, slot = piece.key, piece.slot
        if not isinstance(key, RoundLaunch):
            raise TypeError(f"not a launch of a round: {key}")
        if outcome is not None:
            failure = f"{outcome.failure.cause.value}: {outcome.failure.message}" if outcome.failure else None
            # The deadline may cut a launch off, which is no failure of the config.
            self.plan.receive(key.due, key.launch, outcome.points, failure, outcome.host, outcome.wall_s)
            if key.index + 1 < len(key.due.launches) and self._dispatcher.is_free(slot):
                self._begin(RoundLaunch(key.due, key.index + 1), slot)
                return
        self.plan.end(key.due)
        self._keep(self.plan.verifications)

    def _begin(self, key: RoundLaunch, slot: Slot) -> None:
        self._before_launch()
        self.plan.begin(key.due, key.launch)
        launch = key.launch
        name = f"{launch.trial.number:03d}-{launch.loads[0].level:g}-{key.due.number}"
        self._dispatcher.start(key, self._work_of(launch), slot, self._folder / name, UNHEARD, repeats=False)
