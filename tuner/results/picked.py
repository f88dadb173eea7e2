"""What was picked, as `tritontune export` says it, and what was not, though it looked better."""

from __future__ import annotations

from tuner.core.slo import Percentile
from tuner.recommend.not_chosen import NotChosen, WhyNot
from tuner.recommend.recommend import Recommendation
from tuner.results.words import how_sure, point_in_words


def picked_in_words(found: Recommendation, *, of: int) -> str:
    """Which trial and load were picked, what was measured there, and how sure that is.

    `trial 4 at concurrency 128: 3,177 inferences/s, p99 66.7 ms; verified, and surely within p99 <= 100 ms`

    Args:
        found: With a best point.
        of: How many trials it is the best of.
    """
    if found.best is None:
        raise ValueError("nothing was picked")
    best, slo = found.best, found.slo
    told = f"trial {best.trial.number}: {point_in_words(best.point, slo.percentile)}; {how_sure(best, slo, of=of)}"
    if best.trial.number == 0 and of == 1:
        return f"{told}; this is the config as it is, and no candidate was measured"
    if best.trial.number == 0:
        return f"{told}; this is the config as it is, which no other that was measured beats within this limit"
    return told


def not_chosen_in_words(each: NotChosen, percentile: Percentile) -> str:
    """A point that looked better than the best, why it is not that, and what to do.

    `trial 3 looked better (3,835 inferences/s, p99 91.4 ms at concurrency 256), but it was not verified in time; a
    longer --budget, with --resume, gives it its turn`
    """
    looked = f"trial {each.seemed.trial.number} looked better ({point_in_words(each.seemed.point, percentile)})"
    detail = f" ({each.detail})" if each.detail else ""
    what = {
        WhyNot.NO_TIME: "; a longer --budget, with --resume, gives it its turn",
        WhyNot.UNSURE: "; a longer --budget, with --resume, makes that surer",
    }.get(each.why, "")
    return f"{looked}, but {each.why.value}{detail}{what}"
