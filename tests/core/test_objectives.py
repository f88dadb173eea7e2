from __future__ import annotations

import pytest

from tuner.core.objectives import MAXIMIZED, THROUGHPUT, Objective
from tuner.core.slo import SLO, Statistic

QUICK = Objective.quickest(Statistic.parse("latency.p95"), 500.0)


def test_names_and_units() -> None:
    assert [Objective(metric=metric).name for metric in MAXIMIZED] == list(MAXIMIZED)
    assert (QUICK.name, QUICK.unit, QUICK.direction) == ("latency.p95", "ms", "minimize")
    assert str(QUICK) == "minimize p95 latency at 500 requests/s"
    assert str(Objective(metric="throughput_per_gpu")) == "maximize throughput per GPU"
    assert Objective(metric="inferences_per_joule").unit == "inferences/J"


def test_the_minimized_percentile_decides_before_that_of_the_slo() -> None:
    slo = SLO({"p99": 25.0})
    assert (QUICK.percentile_for(slo), THROUGHPUT.percentile_for(slo)) == ("p95", "p99")
    assert THROUGHPUT.percentile_for(SLO({"p50": 3.0})) == "p50"


def test_a_merit_is_the_value_or_the_inverse_of_a_latency() -> None:
    assert THROUGHPUT.value_of(300.0) == 300.0
    assert QUICK.value_of(100.0) == pytest.approx(10.0)  # 100 a second take 10 ms each


def test_beside_a_latency_plots_show_throughput() -> None:
    assert QUICK.upward == THROUGHPUT
    assert Objective(metric="inferences_per_joule").upward.metric == "inferences_per_joule"


def test_it_survives_json() -> None:
    assert Objective.model_validate_json(QUICK.model_dump_json()) == QUICK
