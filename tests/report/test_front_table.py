from __future__ import annotations

import io

from rich.console import Console
from support.builders import point, space, trial

from tuner.core.loads import Concurrency, RequestRate
from tuner.core.slo import SLO
from tuner.measure.machine_load import MachineLoad
from tuner.measure.points import OperatingPoint
from tuner.measure.quality_warnings import QualityCheck, QualityWarning
from tuner.recommend.recommend import Recommendation, recommend
from tuner.recommend.verification import Verification
from tuner.report.front_table import front_legend, front_reasons, front_table

LIMIT = SLO({"p99": 15})


def found(*points: OperatingPoint) -> Recommendation:
    better = space().normalize({"instance_group.count": 2})
    return recommend([trial(0, point(1, 50, 4)), trial(1, *points, parameters=better)], LIMIT)


def shown(recommendation: Recommendation) -> str:
    text = io.StringIO()
    Console(file=text, width=100).print(front_table(recommendation))
    return text.getvalue()


def rows(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines() if " ms" in line]


def test_one_row_a_point_and_the_best_is_marked() -> None:
    text = shown(found(point(4, 200, 10), point(8, 300, 20)))
    assert "concurrency" in text
    assert rows(text) == [
        "baseline 0 1 50 2 ms 4 ms 2.0",
        "best 1 4 200 5 ms 10 ms 2.0",
        "1 8 300 10 ms 20 ms 2.0",
    ]


def test_the_best_is_shown_where_one_that_was_measured_once_beats_it() -> None:
    again = Verification(trial=1, load=Concurrency(8), rounds=(point(8, 300, 12),) * 3, choosing=1)
    better = space().normalize({"instance_group.count": 2})
    trials = [trial(0, point(1, 50, 4)), trial(1, point(8, 330, 10), parameters=better), trial(2, point(4, 310, 11))]
    recommendation = recommend(trials, SLO(), [again])
    assert recommendation.best is not None
    assert recommendation.best not in recommendation.front
    assert "best 1 8 300 6 ms 12 ms 2.0" in rows(shown(recommendation))
    assert "trial 1: instance_group.count 2" in front_legend(recommendation, space().baseline)


def test_rates_are_named_as_such() -> None:
    closed_and_open = shown(found(point(RequestRate(200), 200, 10)))
    assert "200 requests/s" in closed_and_open
    rates = recommend([trial(0, point(RequestRate(100), 100, 5), point(RequestRate(200), 200, 10))], LIMIT)
    assert "requests/s" in shown(rates)
    assert "concurrency" not in shown(rates)


def test_doubtful_points_are_marked_and_the_legend_says_why() -> None:
    drifts = QualityWarning(check=QualityCheck.DRIFT, reason="drifts: it did")
    doubtful = [each.model_copy(update={"warnings": (drifts,)}) for each in (point(4, 200, 10), point(8, 300, 20))]
    recommendation = found(*doubtful)
    assert [row.split(" 1 ")[0] for row in rows(shown(recommendation))[1:]] == ["best ?", "?"]
    assert front_legend(recommendation, space().baseline).splitlines()[2:] == [
        "  ? trial 1 at concurrency 4: drifts: it did",
        "  ? trial 1 at concurrency 8: drifts: it did",
    ]


def test_load_from_elsewhere_is_one_line_with_the_most_of_it() -> None:
    def busy(each: OperatingPoint, cores: float) -> OperatingPoint:
        warning = QualityWarning(
            check=QualityCheck.MACHINE_LOAD, reason=f"load from elsewhere: other processes used {cores}"
        )
        load = MachineLoad(cores=4, idle_cores=1.0, elsewhere_cores=cores, stolen_cores=0.0)
        return each.model_copy(update={"warnings": (warning,), "machine": load})

    recommendation = found(busy(point(4, 200, 10), 0.9), busy(point(8, 300, 20), 2.5), busy(point(16, 400, 30), 1.2))
    most = "load from elsewhere: other processes used 2.5"
    assert front_legend(recommendation, space().baseline).splitlines()[2:] == [
        f"  ? trial 1 at concurrency 8: {most} (the highest of 3 points with load from elsewhere)"
    ]


def test_the_legend_says_what_the_trials_are() -> None:
    assert front_legend(found(point(4, 200, 10)), space().baseline).splitlines() == [
        "  trial 0: baseline",
        "  trial 1: instance_group.count 2",
    ]


def test_each_point_has_its_reason_unless_the_server_says_nothing() -> None:
    silent = point(8, 300, 20).model_copy(update={"server": None})
    lines = front_reasons(found(point(4, 200, 10), silent)).splitlines()
    assert [line.split(": ")[0] for line in lines] == ["  trial 0 at concurrency 1", "  trial 1 at concurrency 4"]
    assert all("batches of 2.0 on average" in line for line in lines)
    assert front_reasons(recommend([trial(0, silent)], LIMIT)) == ""
