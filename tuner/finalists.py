"""The end of a search: what looks best is measured again, until what is best has been."""

from __future__ import annotations

import random
import time
from pathlib import Path

from tuner.errors import ServerError
from tuner.measure.points import OperatingPoint
from tuner.progress import Progress
from tuner.quantities import format_size
from tuner.search.front import TrialPoint, points_of, usable_points
from tuner.search.recommend import best_point
from tuner.search.study import Study
from tuner.search.verification import Verification
from tuner.trial import Bench, Limits, measure_again

_ROUNDS = 3
_MOST_FINALISTS = 4


def verify(study: Study, bench: Bench, folder: Path, *, limits: Limits, progress: Progress) -> None:
    """Measure the best point again, and the baseline's, in turns; what then looks best, too, until that is verified.

    A point that turns out worse than it looked makes way for the next. It ends when the best point is a verified one,
    after some finalists, or when the time is up; a round under way is finished.

    Args:
        study: With the finished trials; what is verified goes there.
        bench: With the rules for these rounds.
        folder: For the servers' logs.
        limits: On each launch, and on all of it.
        progress: Is told of each finalist.
    """
    order = random.Random(bench.options.seed)  # noqa: S311 (no secret)
    reference = best_point(points_of(study.trials[0], study.verified), bench.slo)
    baseline = None if reference is None or reference.verified else _Again(reference, bench, folder, limits)
    for _ in range(_MOST_FINALISTS):
        best = best_point(usable_points(study.trials, study.verified, study.identity.max_gpu_memory), bench.slo)
        if best is None or best.verified or time.monotonic() >= limits.until:
            break
        progress.note(f"verifying trial {best.trial.number} at {best.point.load}")
        finalist = baseline if baseline and baseline.is_of(best) else _Again(best, bench, folder, limits)
        while finalist.stands and not finalist.done:
            again = [finalist, baseline] if baseline and baseline is not finalist and not baseline.done else [finalist]
            # In random order, so that neither always comes first after a pause.
            for each in order.sample(again, len(again)):
                each.measure()
            if time.monotonic() >= limits.until:
                break
        study.add_verified([finalist.verification])
    if baseline and baseline.began and baseline.verification not in study.verified:
        study.add_verified([baseline.verification])


class _Again:
    """One finalist, measured again round after round; once it has failed, no more."""

    def __init__(self, point: TrialPoint, bench: Bench, folder: Path, limits: Limits) -> None:
        self._number = point.trial.number
        self._config = point.trial.config
        self._load = point.point.load
        self._bench = bench
        self._folder = folder
        self._limits = limits
        self._rounds: list[OperatingPoint] = []
        self._failure: str | None = None

    def is_of(self, point: TrialPoint) -> bool:
        """Whether it is this point's."""
        return (point.trial.number, point.point.load) == (self._number, self._load)

    @property
    def began(self) -> bool:
        """Whether there has been a round."""
        return bool(self._rounds) or self._failure is not None

    @property
    def done(self) -> bool:
        """Whether there are rounds enough."""
        return len(self._rounds) >= _ROUNDS or self._failure is not None

    @property
    def stands(self) -> bool:
        """Whether nothing that was measured so far speaks against it."""
        point = self.verification.point
        if point is None:
            return self._failure is None
        return point.holds(self._bench.slo)

    def measure(self) -> None:
        """One more round."""
        if self._failure is not None:
            return
        folder = self._folder / f"{self._number:03d}-{self._load.level:g}-{len(self._rounds) + 1}"
        try:
            point = measure_again(self._bench, self._config, self._load, folder, limits=self._limits)
        except ServerError as error:
            self._failure = f"{error.cause.value}: {error}"
        else:
            self._rounds.append(point)
            self._failure = self._excess(point)

    def _excess(self, point: OperatingPoint) -> str | None:
        """Why it took too much memory of a GPU this time; the baseline may take what it takes."""
        limit, taken = self._bench.max_gpu_memory, point.gpu.taken_bytes if point.gpu else None
        if self._number == 0 or limit is None or taken is None or taken <= limit:
            return None
        return f"it took {format_size(taken)} of GPU memory, and {format_size(limit)} is the limit"

    @property
    def verification(self) -> Verification:
        """What the rounds so far say."""
        return Verification(trial=self._number, load=self._load, rounds=tuple(self._rounds), failure=self._failure)
