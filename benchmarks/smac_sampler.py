"""SMAC3's random forest as a sampler, to compare with; it needs `pip install smac`."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from tuner.measure.trial import TrialResult
from tuner.search.samplers import ALL_SEEN, NoMore, Pending, TrialHistory
from tuner.space.candidate import Assignment
from tuner.space.space import SearchSpace

# Questions to SMAC until it names a new candidate.
_ASKED = 20


class SmacSampler:
    """SMAC's facade for hyperparameters, told of all trials, with given first candidates.

    Args:
        space: The search space.
        seed: The seed of SMAC.
        value: What a trial is worth.
        first: The candidates to launch first.
    """

    def __init__(
        self, space: SearchSpace, seed: int, value: Callable[[TrialResult], float], first: Iterable[Assignment]
    ) -> None:
        self._space, self._value, self._first = space, value, tuple(first)
        self._told = 0
        self._smac = _facade(space, seed)

    def propose(
        self, history: TrialHistory, seen: Collection[Assignment], pending: Sequence[Pending] = ()
    ) -> Assignment | NoMore:
        """See `Sampler`; SMAC is told of finished trials alone."""
        del pending
        from ConfigSpace import Configuration  # noqa: PLC0415 (only where it is installed)
        from smac.runhistory import TrialInfo, TrialValue  # noqa: PLC0415

        for trial in history.trials[self._told :]:
            values = self._space.indices(self._space.recall(trial.parameters))
            configuration = Configuration(self._smac.scenario.configspace, values=values)
            self._smac.tell(TrialInfo(configuration, seed=0), TrialValue(cost=-self._value(trial)))
        self._told = len(history.trials)
        for first in self._first:
            if first not in seen:
                return first
        for _ in range(_ASKED):
            indices = {name: int(value) for name, value in self._smac.ask().config.items()}
            if (proposed := self._space.assignment(indices)) not in seen:
                return proposed
        return ALL_SEEN


def _facade(space: SearchSpace, seed: int) -> Any:
    from ConfigSpace import ConfigurationSpace, OrdinalHyperparameter  # noqa: PLC0415
    from smac import HyperparameterOptimizationFacade, Scenario  # noqa: PLC0415

    warnings.simplefilter("ignore")
    configurations = ConfigurationSpace(seed=seed)
    configurations.add([OrdinalHyperparameter(p.name, list(range(len(p.ladder)))) for p in space.parameters])
    scenario = Scenario(
        configurations,
        deterministic=True,
        n_trials=1_000,
        seed=seed,
        output_directory=Path(tempfile.mkdtemp(prefix="smac-")),
    )
    facade = HyperparameterOptimizationFacade
    return facade(
        scenario,
        _never_called,
        initial_design=facade.get_initial_design(scenario, n_configs=0),
        logging_level=False,
        overwrite=True,
    )


def _never_called(config: Any, seed: int = 0) -> float:
    """SMAC wants a function, even of one who asks and tells."""
    raise NotImplementedError(config, seed)
