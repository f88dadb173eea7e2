from __future__ import annotations

import pytest
from pydantic import ValidationError

from tuner.core.slo import SLO, Limit


def test_reads_the_command_line() -> None:
    slo = SLO.parse(["p99=25ms", "p50=1.5ms"])
    assert slo.limits == (Limit("latency", "p50", 1.5), Limit("latency", "p99", 25.0))
    assert str(slo) == "p50 <= 1.5 ms, p99 <= 25 ms"


def test_the_short_form_is_latency() -> None:
    assert SLO.parse(["latency.p99=25ms"]) == SLO.parse(["p99=25ms"]) == SLO.model_validate({"latency.p99": "25ms"})
    assert SLO.parse(["latency.p99=25ms"]).model_dump() == {"p99": 25.0}


def test_reads_a_job_file_in_text_and_in_milliseconds() -> None:
    assert SLO.model_validate({"p99": "40ms", "p90": 2.5}).root == {"p99": 40.0, "p90": 2.5}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("p99", "write it as p99=25ms"),
        ("p98=1ms", "'p98' is not a supported percentile; write p50, p90, p95 or p99"),
        ("p99=25", "25 has no unit; write 25ms"),
        ("p99=0ms", "must be > 0"),
        ("latency.p98=1ms", "'p98' is not a supported percentile; write p50, p90, p95 or p99"),
        ("latency=1ms", "latency needs a percentile; write latency.p99"),
        ("latancy.p99=1ms", "unknown metric 'latancy'; did you mean 'latency'?"),
        ("tokens=1ms", r"unknown metric 'tokens' \(available: latency\)"),
        ("gpu_memory=1ms", "unknown metric 'gpu_memory'; use --max-gpu-memory"),
    ],
)
def test_refuses_what_is_no_slo(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        SLO.parse([text])


def test_refuses_a_limit_that_is_given_twice() -> None:
    with pytest.raises(ValueError, match="p99 is given twice"):
        SLO.parse(["p99=25ms", "p99=30ms"])
    with pytest.raises(ValueError, match=r"latency\.p99 is given twice"):
        SLO.parse(["p99=25ms", "latency.p99=30ms"])


@pytest.mark.parametrize("limit", [0, -1, True, float("inf"), [1]])
def test_refuses_limits_that_are_none(limit: object) -> None:
    with pytest.raises(ValidationError, match="is not a latency limit"):
        SLO.model_validate({"p99": limit})


def test_holds_at_the_limit_and_not_beyond() -> None:
    slo = SLO.parse(["p99=25ms", "p50=10ms"])
    assert slo.holds({"p50": 10.0, "p90": 24.0, "p95": 24.0, "p99": 25.0})
    assert not slo.holds({"p50": 10.1, "p90": 24.0, "p95": 24.0, "p99": 25.0})


def test_excess_is_the_worst_share_over_a_limit() -> None:
    slo = SLO.parse(["p99=20ms", "p50=10ms"])
    assert slo.excess({"p50": 15.0, "p90": 0, "p95": 0, "p99": 21.0}) == pytest.approx(0.5)


def test_without_limits_everything_holds_and_p99_counts() -> None:
    assert SLO().holds({"p99": 1e9})
    assert SLO().percentile == "p99"
    assert str(SLO()) == "none"


def test_the_highest_limited_percentile_counts() -> None:
    assert SLO.parse(["p50=1ms", "p95=3ms"]).percentile == "p95"


def test_survives_json() -> None:
    slo = SLO.parse(["p99=25ms"])
    assert SLO.model_validate_json(slo.model_dump_json()) == slo
