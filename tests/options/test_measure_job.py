from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tuner.core.errors import JobError
from tuner.core.loads import Concurrency, Ramp, RequestRate
from tuner.options.endpoint import Tls
from tuner.options.measure_job import MeasureJob


def job(**options: Any) -> MeasureJob:
    return MeasureJob.make({"url": "localhost:8001", **options})


def refusal(**options: Any) -> str:
    with pytest.raises(JobError) as raised:
        MeasureJob.make(options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_without_a_load_it_is_one_request_at_a_time() -> None:
    assert job().loads == (Concurrency(1),)


@pytest.mark.parametrize(
    ("text", "levels"),
    [("1,8,64", (1, 8, 64)), ("4", (4,)), ("1:4", (1, 2, 3, 4)), ("8:32:8", (8, 16, 24, 32)), ("1,4:8:4", (1, 4, 8))],
)
def test_concurrencies(text: str, levels: tuple[int, ...]) -> None:
    assert job(concurrency=text).loads == tuple(Concurrency(level) for level in levels)


def test_rates_are_poisson_unless_told_otherwise() -> None:
    assert job(rate="100,0.5").loads == (RequestRate(100), RequestRate(0.5))
    assert job(rate="100:200:50", arrivals="constant").loads == tuple(
        RequestRate(per_s, "constant") for per_s in (100, 150, 200)
    )


def test_the_highest_rate_is_no_load_of_its_own() -> None:
    assert job(rate="max", slo=("p99=25ms",)).loads == ()
    assert job(rate="max", concurrency="2").loads == (Concurrency(2),)


def test_loads_come_one_after_the_other(tmp_path: Path) -> None:
    intervals, timestamps = tmp_path / "intervals", tmp_path / "timestamps"
    intervals.write_text("1000\n")
    timestamps.write_text("0\n1\n")
    loads = job(concurrency="1", rate="5", ramp="10:100:2s", intervals=intervals, timestamps=timestamps).loads
    assert loads[:3] == (Concurrency(1), RequestRate(5), Ramp(10, 100, 2.0))
    assert [str(load) for load in loads[3:]] == ["replay of intervals", "replay of timestamps"]


def test_a_wrong_rate_is_told_of_max() -> None:
    assert refusal(url="h:1", rate="maxx").endswith("as 100,200, or START:END:STEP, or max")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({}, "measure needs either MODEL_REPO or the --url of a running Triton"),
        ({"repository": "r", "url": "h:1"}, "measure needs either MODEL_REPO or the --url"),
        (
            {"url": "h:1", "concurrency": "0"},
            "--concurrency: '0' is not a concurrency; write whole numbers from 1 to 65,536",
        ),
        ({"url": "h:1", "concurrency": "1.5"}, "--concurrency: '1.5' is not a concurrency; write whole numbers from 1"),
        ({"url": "h:1", "concurrency": "a"}, "--concurrency: 'a' is not a concurrency; write whole numbers"),
        (
            {"url": "h:1", "concurrency": "1,100000"},
            "--concurrency: '1,100000' is not a concurrency; write whole numbers",
        ),
        ({"url": "h:1", "concurrency": "inf"}, "--concurrency: 'inf' is not a concurrency; write whole numbers"),
        ({"url": "h:1", "concurrency": "1:inf"}, "--concurrency: '1:inf' is not a concurrency; write whole numbers"),
        ({"url": "h:1", "concurrency": "8:1"}, "--concurrency: '8:1' is not a range"),
        ({"url": "h:1", "concurrency": "1:9:0"}, "--concurrency: '1:9:0' is not a range"),
        ({"url": "h:1", "concurrency": "1:9:1:1"}, "--concurrency: '1:9:1:1' is not a range"),
        ({"url": "h:1", "rate": "1:9999999"}, "--rate: '1:9999999' must have <= 1,000 levels"),
        ({"url": "h:1", "rate": "0"}, "--rate: '0' is not a rate; write requests/s > 0 and <= 10,000,000"),
        ({"url": "h:1", "rate": "1e9"}, "--rate: '1e9' is not a rate; write requests/s > 0 and <="),
        ({"url": "h:1", "rate": "maxx"}, "--rate: 'maxx' is not a rate; write requests/s > 0 and <="),
        ({"url": "h:1", "ramp": "1:2"}, "--ramp: '1:2' is not a ramp; write FROM:TO:TIME (requests/s, duration)"),
        ({"url": "h:1", "ramp": "0:0:1s"}, "--ramp: '0:0:1s' is not a ramp"),
        ({"url": "h:1", "ramp": "1.1.1:2:1s"}, "--ramp: '1.1.1:2:1s' is not a ramp"),
        ({"url": "h:1", "ramp": "1:2:x"}, "--ramp: 'x' is not a duration"),
        ({"url": "h:1", "server": "process"}, "--server process cannot be used with --url: that server runs already"),
        ({"url": "h:1", "triton_path": "t"}, "--triton-path cannot be used with --url"),
        ({"repository": "r", "tls_ca": "f"}, "--tls-ca needs --url"),
        ({"url": "h:1", "tls_key": "f"}, "--tls-key needs --tls-cert, the certificate of the key"),
        ({"url": "h:1", "slo": ("p99=5ms",)}, "--slo needs --rate max"),
        ({"url": "h:1", "rate": "nan"}, "--rate: 'nan' is not a rate; write requests/s > 0"),
        ({"url": "h:1", "arrivals": "constant"}, "--arrivals needs --rate or --ramp"),
        ({"url": "h:1", "slo": ("p99",)}, "--slo: 'p99' is not an SLO; write it as p99=25ms"),
        ({"url": "h:1", "model_version": "x"}, "--model-version: 'x' is not a version; write a whole number >= 1"),
        ({"url": "h:1", "concurency": "1"}, "unknown option 'concurency'; did you mean 'concurrency'?"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_line(options: dict[str, Any], complaint: str) -> None:
    assert refusal(**options).startswith(complaint)


def test_the_endpoint_has_the_headers_and_the_certificates() -> None:
    made = job(url="grpcs://localhost:8001", header=("Authorization: Bearer abc",), tls_name="triton")
    endpoint = made.endpoint(made.header)
    assert endpoint.headers == (("authorization", "Bearer abc"),)
    assert endpoint.tls == Tls(server_name="triton")
    assert job(url="http://localhost").endpoint(()).protocol == "http"
