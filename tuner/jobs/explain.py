"""Explains the best config: launches it without each of its changes, unless a trial already shows the effect."""

from __future__ import annotations

from collections.abc import Callable

from tuner.analysis.effects import field_effects
from tuner.core.loads import Concurrency
from tuner.jobs.progress import Progress
from tuner.space.candidate import Assignment
from tuner.study.study import Study

# The most configs to explain in turn, since a config that is better without a change becomes the best one.
_MOST_BESTS = 3

RunWithout = Callable[[Assignment, Concurrency | None], None]
"""Runs a trial of a candidate, with one more load after the sweep, and stores it in the study."""


def explain(study: Study, *, run_without: RunWithout, verify: Callable[[], None], progress: Progress) -> None:
    """Run a trial of the best candidate without each of its changes, unless the study has it.

    These are ordinary trials: their points may be on the front, and one may be the new best. Then that is verified and
    explained in turn. A failed trial is not repeated.

    Args:
        study: The study with the best candidate; the new trials are stored in it.
        run_without: Runs a trial of a candidate without a change.
        verify: Verifies the best candidate, unless it is verified.
        progress: Receives the phase, and a note for each change.
    """
    tried: list[Assignment] = []
    for _ in range(_MOST_BESTS):
        progress.phase_began("explanation")
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
            run_without(effect.without, load)
        if len(tried) == before:
            return
        verify()
