from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from support.builders import point, space, trial
from support.pages import ROOT
from support.study_fixtures import run, study, verified

from tuner.core.json_text import json_text
from tuner.core.loads import Concurrency
from tuner.recommend.host_effects import BaselineLaunch, HostRecord
from tuner.recommend.verification import Verification
from tuner.report.html.hosts_table import hosts_table
from tuner.report.html.page import report_html
from tuner.results.hosts import host_results
from tuner.results.result_files import front_json
from tuner.study.run_folder import RunFolder
from tuner.study.study import Study

__all__ = ["run", "study", "verified"]

_FACTS = {"gpus": ["NVIDIA H200"] * 2, "driver": "570.1", "processor": "Xeon", "cores": 8, "server": "Triton 2.48.0"}


@pytest.fixture
def spread(study: Study) -> Study:
    """A study on three hosts: the second is 10 % slower than the first, and the third was drained."""
    slower = tuple(point(load, 0.9 * per_s, 1.1 * ms) for load, per_s, ms in ((1, 100, 10), (2, 110, 20)))
    study.add_host_record(HostRecord(name="w1", facts=_FACTS))
    study.add_host_record(
        HostRecord(name="w2", facts=_FACTS, launches=[BaselineLaunch(curve=slower, at=float(at)) for at in range(6)])
    )
    study.add_host_record(HostRecord(name="w3", host_class="L40S", drained="its baseline drifts"))
    for number, host in ((3, "w1"), (4, "w1"), (5, "w2")):
        measured = trial(number, point(1, 90 + number, 10), parameters=space().baseline)
        study.add(measured.model_copy(update={"host": host}), space())
    rounds = (point(8, 390, 20), point(8, 351, 22), point(8, 350, 22))
    study.add_verified(
        [Verification(trial=1, load=Concurrency(8), rounds=rounds, numbers=(1, 2, 3), hosts=("w1", "w2", "w2"))]
    )
    return study


def test_what_each_host_did_and_how_much_it_differs(spread: Study) -> None:
    first, second, third = host_results(spread)
    assert [each.record.name for each in (first, second, third)] == ["w1", "w2", "w3"]
    assert [(each.trials, each.relaunches) for each in (first, second, third)] == [(2, 1), (1, 2), (0, 0)]
    assert second.throughput.value < 1.0 < second.latency.value
    assert second.throughput.low < second.throughput.value < second.throughput.high
    assert first.facts == "2 x NVIDIA H200, driver 570.1, Xeon, 8 cores a slot"
    assert (third.facts, third.record.drained) == ("", "its baseline drifts")


def test_a_study_of_one_host_has_none(study: Study) -> None:
    assert host_results(study) == ()
    study.add_host_record(HostRecord(name="here", facts=_FACTS))
    assert host_results(study) == ()
    assert "hosts" not in front_json(study, study.recommendation)


def test_hosts_that_were_not_stored_are_known_by_their_trials(study: Study) -> None:
    for number, host in ((3, "w1"), (4, "w2")):
        measured = trial(number, point(1, 90 + number, 10), parameters=space().baseline)
        study.add(measured.model_copy(update={"host": host}), space())
    found = host_results(study)
    assert [(each.record.name, each.trials, each.facts) for each in found] == [("w1", 1, ""), ("w2", 1, "")]


def test_front_json_has_the_hosts_as_its_schema_says(spread: Study) -> None:
    front: dict[str, Any] = json.loads(json_text(front_json(spread, spread.recommendation)))
    schema = json.loads((ROOT / "docs/reference/front.schema.json").read_text("utf-8"))
    Draft202012Validator(schema).validate(front)
    assert [(each["name"], each["class"], each["drained"]) for each in front["hosts"]] == [
        ("w1", "", None),
        ("w2", "", None),
        ("w3", "L40S", "its baseline drifts"),
    ]
    assert front["hosts"][0]["facts"] == _FACTS
    assert front["hosts"][1]["throughput_effect"]["value"] < 1.0


def test_the_report_has_a_table_of_the_hosts(run: RunFolder, spread: Study) -> None:
    rows = hosts_table(spread)
    assert rows[1].throughput.startswith("-")
    assert rows[1].latency.startswith("+")
    html = report_html(run)
    assert '<table class="hosts">' in html
    assert '<td class="words">its baseline drifts</td>' in html
    assert "8 cores a slot" in html


def test_the_report_of_one_host_has_no_such_table(run: RunFolder, verified: Study) -> None:
    assert hosts_table(verified) == ()
    assert '<table class="hosts">' not in report_html(run)
