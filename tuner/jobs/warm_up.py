"""Measures what a warm-up of the best config saves on the first request, where first requests were slow."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from tuner.cluster.dispatcher import Dispatcher
from tuner.config.config import ModelConfig
from tuner.config.patch import Patch
from tuner.config.warmup import MOST_SHAPES, WarmUpShape, why_no_warm_up, with_warm_up
from tuner.core.errors import ServerError, shortened
from tuner.core.quantities import format_duration
from tuner.jobs.progress import Progress
from tuner.measure.session import Session
from tuner.measure.trial import TrialResult
from tuner.measure.work import Limits, Loads, Outcome, TrialTerms, Work
from tuner.recommend.warm_up import FirstAnswer, WarmUp, first_answer_is_slow, is_slow, pays
from tuner.study.study import Study

# Seconds of a launch in addition to its own and its first answer's: to prepare requests, and to stop the server.
_AROUND_S = 1.0


def warm_up_takes_s(study: Study) -> float:
    """Seconds that `measure_warm_up` is expected to take; 0: it launches nothing."""
    if (trial := _slow(study)) is None or _why_not(trial):
        return 0.0
    return 2 * ((trial.launch_s or 0) + (trial.first_answer_s or 0) + _AROUND_S)


def measure_warm_up(  # noqa: PLR0917 (called at one place)
    study: Study,
    terms: TrialTerms,
    dispatcher: Dispatcher,
    folder: Path,
    limits: Callable[[float], Limits],
    progress: Progress,
    *,
    until: float,
) -> None:
    """Launch the best config without and with a warm-up, and store both first answers.

    Nothing is launched if the first answer of the best config was not slow, or no warm-up can be made for the model.

    Args:
        study: The study; the result is stored in it.
        terms: The terms of the launches.
        dispatcher: Gives the launches to slots.
        folder: The folder for the logs of the servers.
        limits: Gives the limits of a launch for a deadline (`time.monotonic`).
        progress: Receives the phase and a note when servers are launched.
        until: When both launches must be done (`time.monotonic`).
    """
    trial = _slow(study)
    if trial is None or (study.warm_up and study.warm_up.launches):
        return
    slow_s = trial.first_answer_s or 0
    warm_up = WarmUp(trial=trial.number, searched_s=slow_s, batch_size=terms.options.batch_size)
    if reason := _why_not(trial):
        study.offer(_no(warm_up, reason))
    elif time.monotonic() + warm_up_takes_s(study) > until:
        study.offer(_no(warm_up, "no time left to measure one"))
    else:
        progress.phase_began("warm-up")
        progress.note(f"measuring a warm-up: the first answer of trial {trial.number} took {format_duration(slow_s)}")
        launches = _Launches(terms, dispatcher, folder, limits(until))
        study.offer(_measured(warm_up, trial, launches))


@dataclass(frozen=True)
class _Shapes:
    """The shapes of the requests of a server; see `Examine`."""

    def __call__(self, session: Session) -> tuple[WarmUpShape, ...]:
        return session.request_shapes()[:MOST_SHAPES]


@dataclass(frozen=True)
class _Launches:
    """Launches configs to time their first answers."""

    terms: TrialTerms
    dispatcher: Dispatcher
    folder: Path
    limits: Limits

    def first_answer(self, patch: Patch, name: str) -> tuple[FirstAnswer, Outcome]:
        """Launch a patch, and time its first answer.

        Raises:
            ServerError: the launch or the first answer failed.
            TuningError: its hosts were lost.
        """
        work = Work(self.terms, patch, Loads(()), self.limits, _Shapes())
        outcome = self.dispatcher.carry_out(f"launch {name} a warm-up", work, self.folder / name)
        if outcome.failure:
            raise outcome.failure.as_error()
        return FirstAnswer(launch_s=outcome.launch_s or 0.0, answer_s=outcome.first_answer_s or 0.0), outcome


def _measured(warm_up: WarmUp, trial: TrialResult, launches: _Launches) -> WarmUp:
    own = ModelConfig.parse(trial.deployable_config, "the best config")
    launched: dict[str, FirstAnswer] = {}
    try:
        without, outcome = launches.first_answer(trial.patch, "without")
        launched["without"] = without
        if not is_slow(without.answer_s, trial):
            return _no(warm_up, f"in another launch, it took {format_duration(without.answer_s)}", launched)
        effective = ModelConfig.parse(outcome.effective_config or "", "the effective config").proto
        config = with_warm_up(own, effective, outcome.examined, batch_size=warm_up.batch_size)
        warmed, _ = launches.first_answer(trial.patch.with_config(config.text), "with")
        launched["warmed"] = warmed
    except ServerError as error:
        which = "with" if launched else "without"
        return _no(warm_up, f"a launch {which} one failed: {shortened(str(error))}", launched)
    if not pays(without, warmed):
        return _no(warm_up, f"with one, it still took {format_duration(warmed.answer_s)}", launched)
    return warm_up.model_copy(update={"shapes": outcome.examined, **launched})


def _no(warm_up: WarmUp, reason: str, launched: Mapping[str, FirstAnswer] = MappingProxyType({})) -> WarmUp:
    return warm_up.model_copy(update={"reason": reason, **launched})


def _slow(study: Study) -> TrialResult | None:
    """The trial of the best config, if its first answer was slow."""
    best = study.recommendation.best
    return best.trial if best and first_answer_is_slow(best.trial) else None


def _why_not(trial: TrialResult) -> str:
    """Why no warm-up can be made for the config of a trial; empty: it can."""
    return why_no_warm_up(ModelConfig.parse(trial.effective_config or "", "the effective config").proto)
