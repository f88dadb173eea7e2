"""The config to deploy with the entries of a measured warm-up."""

from __future__ import annotations

from tuner.config.config import ModelConfig
from tuner.config.warmup import why_no_warm_up, with_warm_up
from tuner.measure.trial import TrialResult
from tuner.recommend.warm_up import first_answer_is_slow
from tuner.results.words import duration_in_words, warm_up_in_words
from tuner.study.study import Study


def warmed(study: Study, trial: TrialResult, text: str) -> str | None:
    """A config of a trial with the entries of the study's warm-up; None: there is none for it."""
    warm_up, effective = study.latest_warm_up, _effective(trial)
    if warm_up is None or not warm_up.shapes or why_no_warm_up(effective.proto):
        return None
    config = ModelConfig.parse(text, study.identity.model)
    return with_warm_up(config, effective.proto, warm_up.shapes, batch_size=warm_up.batch_size).text


def what_it_saves(study: Study, trial: TrialResult) -> str:
    """What the warm-up of a config saves, after `warmed` has added it."""
    warm_up = study.latest_warm_up
    if warm_up is None:
        return ""
    words = warm_up_in_words(warm_up, offered=False)
    return words if warm_up.trial == trial.number else f"as measured for trial {warm_up.trial}: {words}"


def why_not_warmed(study: Study, trial: TrialResult) -> str:
    """Why `warmed` gives nothing."""
    warm_up = study.latest_warm_up
    if reason := why_no_warm_up(_effective(trial).proto):
        return f"no model_warmup added: {reason}"
    if not first_answer_is_slow(trial):
        took = "" if trial.first_answer_s is None else f", it took {duration_in_words(trial.first_answer_s)}"
        return f"no model_warmup added: the first answer was not slow{took}"
    if warm_up is None or warm_up.trial != trial.number:
        return "no model_warmup added: none was measured for this config; run without --no-verify, or --resume"
    return f"no model_warmup added: {warm_up.reason}"


def _effective(trial: TrialResult) -> ModelConfig:
    return ModelConfig.parse(trial.effective_config or "", "the effective config")
