"""Which parameters decide how good a candidate is, as Optuna's PED-ANOVA reads it off the trials."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from tuner.study.quiet import quiet_optuna
from tuner.study.study import Study

FEWEST_TRIALS = 10
# PED-ANOVA compares the best trials with all of them: a tenth, but not fewer than this.
_FEWEST_BEST, _BEST_SHARE = 5, 0.1


@dataclass(frozen=True)
class Importances:
    """What the trials say of each parameter.

    Attributes:
        shares: By parameter, the most important first; they add up to 1. Empty: nothing can be said.
        trials: How many trials say it.
        reason: Why nothing can be said.
    """

    shares: Mapping[str, float] = field(default_factory=dict)
    trials: int = 0
    reason: str = ""


def importances(study: Study) -> Importances:
    """How important each parameter that varied is for the throughput within the SLO, by the trials that ran."""
    told = [trial for result, trial in zip(study.trials, study.optuna_trials(), strict=False) if result.failure is None]
    count = len(told)
    if count < FEWEST_TRIALS:
        return Importances(trials=count, reason=f"needs {FEWEST_TRIALS} trials that did not fail, got {count}")
    varied = [name for name in told[0].params if len({trial.params[name] for trial in told}) > 1]
    if not varied or len({trial.values[0] for trial in told}) == 1:
        return Importances(trials=count, reason="all trials have equal parameters or equal results")
    with quiet_optuna(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alone = optuna.create_study(direction="maximize")
        for trial in told:
            distributions = {name: trial.distributions[name] for name in varied}
            params = {name: trial.params[name] for name in varied}
            alone.add_trial(optuna.create_trial(params=params, distributions=distributions, value=trial.values[0]))
        share = min(0.5, max(_BEST_SHARE, _FEWEST_BEST / count))
        shares = get_param_importances(alone, evaluator=PedAnovaImportanceEvaluator(target_quantile=share))
    if not sum(shares.values()):
        return Importances(trials=count, reason="no parameter separates the best trials from the others")
    return Importances(shares=shares, trials=count)
