"""The importance of parameters, by PED-ANOVA (Watanabe et al., 2023) as implemented in Optuna."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from tuner.study.quiet import quiet_optuna
from tuner.study.study import Study

FEWEST_TRIALS = 10
"""The fewest successful trials for an importance."""
# PED-ANOVA compares the best trials with all: at least this many, and this share.
_FEWEST_BEST, _BEST_SHARE = 5, 0.1


@dataclass(frozen=True)
class Importances:
    """The importance of each parameter.

    Attributes:
        shares: Importance by parameter, in descending order; the sum is 1. Empty: unknown.
        trials: Number of trials it was computed from.
        reason: Why it is unknown; empty: it is known.
    """

    shares: Mapping[str, float] = field(default_factory=dict)
    trials: int = 0
    reason: str = ""


def importances(study: Study) -> Importances:
    """The importance of each varied parameter for throughput within the SLO, from the successful trials."""
    pairs = zip(study.trials, study.optuna_trials(), strict=False)
    trials = [trial for result, trial in pairs if result.failure is None]
    count = len(trials)
    if count < FEWEST_TRIALS:
        return Importances(trials=count, reason=f"needs {FEWEST_TRIALS} trials that did not fail, got {count}")
    varied = [name for name in trials[0].params if len({trial.params[name] for trial in trials}) > 1]
    if not varied or len({trial.values[0] for trial in trials}) == 1:
        return Importances(trials=count, reason="all trials have equal parameters or equal results")
    with quiet_optuna(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alone = optuna.create_study(direction="maximize")
        for trial in trials:
            distributions = {name: trial.distributions[name] for name in varied}
            params = {name: trial.params[name] for name in varied}
            alone.add_trial(optuna.create_trial(params=params, distributions=distributions, value=trial.values[0]))
        share = min(0.5, max(_BEST_SHARE, _FEWEST_BEST / count))
        shares = get_param_importances(alone, evaluator=PedAnovaImportanceEvaluator(target_quantile=share))
    if not sum(shares.values()):
        return Importances(trials=count, reason="no parameter separates the best trials from the others")
    return Importances(shares=shares, trials=count)
