"""Describes the chosen point for `tritontune export`, and points that looked better but were not chosen."""

from __future__ import annotations

from tuner.core.objectives import THROUGHPUT, Objective
from tuner.core.slo import Percentile
from tuner.recommend.not_chosen import NotChosen, WhyNot
from tuner.recommend.recommend import Recommendation
from tuner.results.words import launches_and_hosts_of, point_in_words, slo_verdict_in_words
from tuner.study.study import Study


def picked_in_words(study: Study, recommendation: Recommendation) -> str:
    """The chosen trial and load, its measurement, and the verdict on the SLO.

    `trial 4: 3,177 inferences/s, p99 66.7 ms at concurrency 128; SLO p99 <= 100 ms held (99 % confidence): 3 launches,
    p99 66.7 ms (60.1 to 74)`

    Args:
        study: The study with all trials.
        recommendation: The recommendation, with a best point.

    Raises:
        ValueError: there is no best point.
    """
    if recommendation.best is None:
        raise ValueError("there is no best point")
    best, slo, objective, of = recommendation.best, recommendation.slo, recommendation.objective, len(study.trials)
    launches, hosts = launches_and_hosts_of(study, best)
    sure = slo_verdict_in_words(best, slo, of=of, launches=launches, hosts=hosts)
    verdict = f"SLO {slo} {sure}" if slo.root else sure
    text = f"trial {best.trial.number}: {point_in_words(best.point, recommendation.percentile, objective)}; {verdict}"
    if best.trial.number == 0 and of == 1:
        return f"{text}; this is the baseline; no candidate was measured"
    if best.trial.number == 0:
        return f"{text}; this is the baseline; no measured candidate beats it within this limit"
    return text


def not_chosen_in_words(better: NotChosen, percentile: Percentile, objective: Objective = THROUGHPUT) -> str:
    """A point that looked better than the best one, why it was not chosen, and what the user can do.

    `trial 3 looked better (3,835 inferences/s, p99 91.4 ms at concurrency 256), but it was not verified in time; to
    verify it, use --resume with a longer --budget`
    """
    point = point_in_words(better.searched.point, percentile, objective)
    looked = f"trial {better.searched.trial.number} looked better ({point})"
    detail = f" ({better.detail})" if better.detail else ""
    what = {
        WhyNot.NO_TIME: "; to verify it, use --resume with a longer --budget",
        WhyNot.UNSURE: "; to measure it longer, use --resume with a longer --budget",
        WhyNot.UNCONFIRMED: "; to measure it longer, use --resume with a longer --budget",
    }.get(better.why, "")
    return f"{looked}, but {better.why.value}{detail}{what}"
