"""Tells the progress of a run what happens on its slots."""

from __future__ import annotations

from tuner.cluster.dispatcher import Piece, Watch
from tuner.jobs.progress import Progress


class LaunchWatch(Watch):
    """Tells of launches that are no trials; the keys of their work are words. Only for a run with several slots.

    Args:
        progress: Receives what happens.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def began(self, piece: Piece) -> None:
        """See `Watch`."""
        self._progress.launch_began(piece.slot.name, str(piece.key))

    def requeued(self, piece: Piece, reason: str) -> None:
        """See `Watch`."""
        self._progress.requeued(str(piece.key), piece.slot.name, reason)

    def ended(self, piece: Piece) -> None:
        """See `Watch`."""
        self._progress.launch_ended(piece.slot.name)
