"""Studies of many trials, stored as a run stores them but in one go."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Any

from support.builders import identity, point, space, trial

from tuner.errors import Cause
from tuner.run_folder import RunFolder
from tuner.search.objectives import as_optuna_trial
from tuner.search.study import Study
from tuner.trial import TrialResult


def long_study(run: RunFolder, count: int, *, failing: int = 0, **changes: Any) -> Study:
    """A study of so many trials that succeed, the baseline among them, and of some that fail."""
    built = space(cpus=8)
    chance = random.Random(7)
    others = list(built.assignments())
    others.remove(built.baseline)
    chance.shuffle(others)
    results = []
    for number, assignment in enumerate(itertools.islice([built.baseline, *others], count + failing)):
        capacity = 100.0 if number == 0 else chance.uniform(80, 900)
        half = chance.uniform(2, 8)
        rates = {load: capacity * load / (load + half) for load in (1, 2, 4, 8, 16, 32)}
        curve = [point(load, rate, 3 + 1000 * load / rate) for load, rate in rates.items()]
        fails = number > 0 and number % 5 == 1 and len([r for r in results if r.failure]) < failing
        config = built.candidate(assignment).config.text
        results.append(
            trial(number, failure=Cause.CRASHED, parameters=assignment, config=config)
            if fails
            else trial(number, *curve, parameters=assignment, config=config)
        )
    study = Study.create_or_resume(run.database, identity(**changes))
    store(study, results)
    return Study.load(run.database, study.identity.model)


def store(study: Study, results: Sequence[TrialResult]) -> None:
    """Store trials at once: `Study.add` looks at all that came before, each time."""
    built, asked = space(cpus=8), study.identity
    study._study.add_trials(
        as_optuna_trial(
            result,
            built,
            asked.slo,
            {"candidate": "", "hypervolume": 1000.0 * (1 + number), "result": result.model_dump_json()},
        )
        for number, result in enumerate(results)
    )
