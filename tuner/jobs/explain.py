"""What each change of the best config does: where no trial tells, the config is launched without it."""

from __future__ import annotations

from collections.abc import Callable

from tuner.analysis.effects import field_effects
from tuner.core.loads import Concurrency
from tuner.jobs.progress import Progress
from tuner.space.candidate import Assignment
from tuner.study.study import Study

# A config that turns out better without a change is the best from then on, and has changes of its own to explain.
_MOST_BESTS = 3

LeaveOut = Callable[[Assignment, Concurrency | None], None]
"""Launches a candidate, sweeps the load, and measures it under one more; the trial goes into the study."""


def explain(study: Study, *, leave_out: LeaveOut, verify: Callable[[], None], progress: Progress) -> None:
    """Have a trial of the best candidate less each of its changes, for all that differ in nothing else.

    Such a trial is one like any other, so its points may make the front, and it may even be best: then that is
    verified, and explained in turn. One that failed tells enough, and is not tried again.

    Args:
        study: With what is best, and of which trials go there.
        leave_out: Launches a candidate that lacks a change.
        verify: Measures again what is best, unless that has been done.
        progress: Is told of each change.
    """
    tried: list[Assignment] = []
    for _ in range(_MOST_BESTS):
        best = study.recommendation.best
        if best is None:
            return
        if best.trial.number == 0:
            progress.note("nothing to explain: the baseline is the best config")
            return
        load = best.point.load if isinstance(best.point.load, Concurrency) else None
        before = len(tried)
        for effect in field_effects(study, best):
            if effect.trial or effect.without is None or effect.without in tried:
                continue
            tried.append(effect.without)
            progress.note(f"explaining trial {best.trial.number}: without {', '.join((effect.name, *effect.together))}")
            leave_out(effect.without, load)
        if len(tried) == before:
            return
        verify()
