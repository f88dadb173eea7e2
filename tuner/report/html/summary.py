"""The summary on top of a model's report: the gain, the SLO, and the config to deploy."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from tuner.analysis.effects import field_effects
from tuner.core.objectives import THROUGHPUT
from tuner.core.quantities import format_duration
from tuner.recommend.front import TrialPoint
from tuner.recommend.recommend import Recommendation, is_certain
from tuner.report.html.diff_lines import DiffLine, diff_lines
from tuner.report.html.symbols import TIMES, in_symbols
from tuner.results.picked import not_chosen_in_words
from tuner.results.result_files import best_diff
from tuner.results.why import effects_in_words, why_in_words
from tuner.results.words import (
    certified_in_words,
    gain_rests_on,
    launches_and_hosts_of,
    launches_in_words,
    missed_slo,
    no_candidate_in_words,
    point_in_words,
    rate,
    slo_in_words,
    slo_verdict_in_words,
    warm_up_in_words,
    when_missed,
)
from tuner.study.run_folder import RunFolder
from tuner.study.study import Study

Tone = Literal["good", "unsure", "bad"]


@dataclass(frozen=True)
class Fact:
    """A line below the headline.

    Attributes:
        term: Its label.
        value: Its text.
        note: A detail in small print; may be empty.
        tone: Its colour; None: neutral.
    """

    term: str
    value: str
    note: str = ""
    tone: Tone | None = None


@dataclass(frozen=True)
class Summary:
    """The summary of one model.

    Attributes:
        tone: The colour of the headline.
        headline: A few characters, such as `4.48x`.
        explanation: The meaning of the headline, in a sentence.
        facts: The lines below it.
        diff: The diff of the best config against the user's; empty: no change.
        effects: The effect of each change, one line each.
        deploy: The command that deploys the best config.
    """

    tone: Tone
    headline: str
    explanation: str
    facts: tuple[Fact, ...]
    diff: tuple[DiffLine, ...] = ()
    effects: tuple[str, ...] = ()
    deploy: str = ""


def summary(run: RunFolder, study: Study, recommendation: Recommendation) -> Summary:
    """The summary of a study."""
    if not study.trials:
        if study.ended:
            return Summary("bad", "No result", f"no trial of this model has finished: {study.ended}", ())
        return Summary("unsure", "Nothing yet", "no trial of this model has finished", ())
    if recommendation.best is None:
        text = in_symbols(
            f"none of {len(study.trials)} trials {slo_in_words(recommendation.slo, recommendation.objective)}"
        )
        return Summary("bad", "No config", text, tuple(_facts(study, recommendation)))
    best, facts = recommendation.best, tuple(_facts(study, recommendation))
    effects = tuple(effects_in_words(field_effects(study, best), recommendation.slo, recommendation.objective))
    diff = diff_lines(best_diff(study, best))
    if not diff:
        if alone := no_candidate_in_words(study):
            return Summary("unsure", "Baseline", f"gain: {alone}", facts)
        return Summary("good", "Baseline", "No candidate beats the baseline.", facts)
    tone, headline, text = _gain(study, recommendation, best)
    return Summary(tone, headline, text, facts, diff, effects, _deploy(run, study))


def _gain(study: Study, recommendation: Recommendation, best: TrialPoint) -> tuple[Tone, str, str]:
    gain, slo, objective = recommendation.gain, recommendation.slo, recommendation.objective
    tone: Tone = "good" if best.verified else "unsure"
    if gain is None:
        missed = f"{missed_slo(slo, objective)} {when_missed(study.trials[0], slo, study.verified, objective)}"
        text = in_symbols(f"inferences/s, where the baseline {missed}")
        return tone, rate(best.point.throughput.value), text
    rests_on = gain_rests_on(recommendation, verified=bool(study.verified))
    within = f"95 % interval {gain.low:.2f} to {gain.high:.2f}{rests_on}"
    of = (
        f"the baseline's {objective.words}" if objective.maximizes else f"as quick as the baseline by {objective.words}"
    )
    if gain.low <= 1 <= gain.high:
        return "unsure", f"{gain.value:.2f}{TIMES}", f"{of}, which may be noise: {within}"
    return tone, f"{gain.value:.2f}{TIMES}", f"{of}; {within}"


def _facts(study: Study, recommendation: Recommendation) -> Iterator[Fact]:
    slo, best, baseline = recommendation.slo, recommendation.best, recommendation.baseline
    percentile, objective = recommendation.percentile, recommendation.objective
    if objective != THROUGHPUT:
        yield Fact("Objective", str(objective))
    yield _slo_fact(study, recommendation)
    if best:
        point = point_in_words(best.point, percentile, objective)
        yield Fact(f"Best, trial {best.trial.number}", point, why_in_words(best))
    if baseline is None:
        when = when_missed(study.trials[0], slo, study.verified, objective)
        yield Fact("Baseline", in_symbols(f"{missed_slo(slo, objective)} {when}"))
    elif best is None or baseline.trial.number != best.trial.number:
        failure = baseline.trial.failure
        note = f"failed at another load: {failure.cause.value}" if failure else why_in_words(baseline)
        yield Fact("Baseline, trial 0", point_in_words(baseline.point, percentile, objective), note)
    for not_chosen in study.not_chosen:
        yield Fact("Not chosen", in_symbols(not_chosen_in_words(not_chosen, percentile, objective)), tone="unsure")
    if certified := study.certified:
        tone: Tone = "good" if certified.point else "unsure"
        yield Fact("Rate", in_symbols(certified_in_words(certified, slo, study.hosts)), tone=tone)
    elif best and objective.rate is None:
        yield Fact("Rate", "not certified: not tried", tone="unsure")
    if warm_up := study.warm_up:
        yield Fact("Warm-up", in_symbols(warm_up_in_words(warm_up)))
    for remark in study.remarks:
        yield Fact("Note", in_symbols(remark), tone="unsure")
    trials, points = len(study.trials), sum(len(trial.curve) for trial in study.trials)
    took = format_duration(max(study.took_s, 1e-3))
    effort = f"{trials:,} trials, {points:,} operating points, {study.launches:,} launches in {took}"
    yield Fact("Measured", effort, _quality_warnings(study))


def _quality_warnings(study: Study) -> str:
    """The number of points with quality warnings, and the warnings; empty: none."""
    checks = Counter(
        check for t in study.trials for p in t.curve for check in {warning.check for warning in p.warnings}
    )
    count = sum(bool(point.warnings) for trial in study.trials for point in trial.curve)
    most = ", ".join(f"{check.words} {count:,}" for check, count in checks.most_common())
    return f"{count:,} point{'s' * (count > 1)} with quality warnings: {most}" if count else ""


def _slo_fact(study: Study, recommendation: Recommendation) -> Fact:
    slo, best = recommendation.slo, recommendation.best
    how = in_symbols(slo_verdict_in_words(best, slo, of=len(study.trials))) + _launches(study, best) if best else ""
    if not slo.root:
        return Fact("SLO", "none", how)
    asked = in_symbols(str(slo))
    if best is None:
        return Fact("SLO", f"{asked}: no candidate holds it", tone="bad")
    if best.verified and is_certain(best, slo):
        return Fact("SLO", f"{asked}: held", how, "good")
    return Fact("SLO", f"{asked}: held as measured", how, "unsure")


def _launches(study: Study, best: TrialPoint) -> str:
    """The number of launches and requests of a verified point."""
    if not best.verified:
        return ""
    return f"; {launches_in_words(*launches_and_hosts_of(study, best))}, {best.point.requests:,} requests"


def _deploy(run: RunFolder, study: Study) -> str:
    model, where = study.identity.model, "--in-place"
    if "://" in study.identity.repository:
        where = f"--to {shlex.quote(f'{model}.pbtxt')}"
    return f"tritontune export {shlex.quote(str(run.path))} --model {shlex.quote(model)} {where}"
