"""Studies of many trials, stored as a run stores them but in one go."""

from __future__ import annotations

import itertools
import random
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import optuna
from sqlalchemy import StaticPool
from support.builders import identity, point, space, trial

from tuner.core.errors import Cause
from tuner.measure.trial import TrialResult
from tuner.space.space import SearchSpace
from tuner.study.objectives import DIRECTIONS, as_optuna_trial
from tuner.study.quiet import quiet_optuna
from tuner.study.run_folder import RunFolder
from tuner.study.study import Identity, Study


def long_study(run: RunFolder, count: int, *, failing: int = 0, **changes: Any) -> Study:
    """A study of so many trials that succeed, the baseline among them, and of some that fail."""
    built, asked = space(cpus=2), identity(**changes)
    _store(run, asked, built, list(_results(built, count, failing)))
    return Study.load(run.database, asked.model)


def _results(built: SearchSpace, count: int, failing: int) -> Iterator[TrialResult]:
    chance = random.Random(7)  # noqa: S311 (no secret)
    others = [each for each in built.assignments() if each != built.baseline]
    chance.shuffle(others)
    for number, assignment in zip(range(count + failing), itertools.cycle(others), strict=False):
        if number == 0:
            yield _measured(0, built, {}, 100.0, 4.0)
        elif number <= failing:
            config = built.candidate(assignment).config.text
            yield trial(number, failure=Cause.CRASHED, parameters=assignment, config=config)
        else:
            yield _measured(number, built, assignment, chance.uniform(80, 900), chance.uniform(2, 8))


def _measured(number: int, built: SearchSpace, assignment: Any, capacity: float, half: float) -> TrialResult:
    """A trial whose throughput comes near its capacity as the load rises, and is half of that under one load."""
    rates = {load: capacity * load / (load + half) for load in (1, 2, 4, 8, 16, 32)}
    curve = [point(load, rate, 3 + 1000 * load / rate) for load, rate in rates.items()]
    settled = built.normalize(assignment)
    return trial(number, *curve, parameters=settled, config=built.candidate(settled).config.text)


def _store(run: RunFolder, asked: Identity, built: SearchSpace, results: Sequence[TrialResult]) -> None:
    """In memory first: on a disk, each of Optuna's commits takes its time."""
    storage = optuna.storages.RDBStorage("sqlite://", engine_kwargs={"poolclass": StaticPool})
    with quiet_optuna():
        study = optuna.create_study(storage=storage, study_name=asked.model, directions=DIRECTIONS)
    study.set_user_attr("identity", asked.model_dump_json())
    for number, result in enumerate(results):
        attributes: dict[str, str | float] = {
            "candidate": "",
            "hypervolume": 1000.0 * (1 + number),
            "result": result.model_dump_json(),
        }
        study.add_trial(as_optuna_trial(result, built, asked.slo, attributes))
    run.path.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(run.database)) as file, closing(storage.engine.raw_connection()) as memory:
        memory.driver_connection.backup(file)  # type: ignore[union-attr]
    storage.engine.dispose()
