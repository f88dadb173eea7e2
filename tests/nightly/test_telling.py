"""The report of a night, and whom it goes to."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.builders import interval
from support.nights import measured, night
from support.web_peer import Reply, WebPeer

from tuner.nightly.jobs import Notify
from tuner.nightly.notify import report_json, send_notifications
from tuner.nightly.outcome import NightReport
from tuner.nightly.prometheus import write_metrics
from tuner.nightly.web import post

IMPROVED = night(
    outcome="improved",
    reason="1.30 x the throughput (1.25 to 1.35) in 4 pairs of launches",
    action="config.pbtxt replaced",
    gain=interval(1.3),
    candidate=measured(130.0, 20.0),
    candidate_config="f" * 64,
)
SLOWER = night(model="slow", outcome="regression", regression=True, drift="slower: <100> & more")
FAILED = night(model="bad", outcome="failed", reason="it does not work", deployed=None, conditions=None)


def _report(*jobs: object) -> NightReport:
    return NightReport.of(night().night, jobs, notes=("a note",), duration_s=60.0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("jobs", "outcome", "code"),
    [
        ([night()], "kept", 0),
        ([night(), IMPROVED], "improved", 10),
        ([IMPROVED, SLOWER, night()], "regression", 20),
        ([FAILED, SLOWER, IMPROVED], "failed", 1),
    ],
)
def test_the_worst_news_win(jobs: list[object], outcome: str, code: int) -> None:
    report = _report(*jobs)
    assert (report.outcome, report.exit_code) == (outcome, code)


def test_a_line_for_each_model() -> None:
    assert _report(IMPROVED, SLOWER).summary == (
        "mlp: improved: 1.30 x the throughput (1.25 to 1.35) in 4 pairs of launches; config.pbtxt replaced; "
        "slow: regression: slower: <100> & more"
    )


@pytest.fixture
def peer() -> Iterator[WebPeer]:
    with WebPeer(lambda _asked: Reply(200)) as peer:
        yield peer


def test_each_is_told_in_its_own_way(peer: WebPeer, tmp_path: Path) -> None:
    report, file = _report(IMPROVED, SLOWER), tmp_path / "new/told.jsonl"
    whom = [
        Notify.make({"webhook": f"http://{peer.address}/hook"}),
        Notify.make({"slack": f"http://{peer.address}/slack"}),
        Notify.make({"file": str(file)}),
    ]
    assert list(send_notifications(report, whom)) == []
    assert list(send_notifications(report, whom[2:])) == []
    hook, slack = peer.asked
    assert json.loads(hook.body) == report_json(report)
    assert json.loads(hook.body)["schema"] == 1
    assert json.loads(hook.body)["jobs"][0]["candidate"]["doubts"] == []
    text = json.loads(slack.body)["text"]
    assert text.startswith("tritontune: regression: mlp: improved: 1.30 x")
    assert text.endswith("slower: &lt;100&gt; &amp; more")
    assert [json.loads(line) for line in file.read_text().splitlines()] == [report_json(report)] * 2


def test_who_cannot_be_told_is_named_without_secrets(peer: WebPeer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuner.nightly.notify.post", partial(post, pause_s=0.01))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        whom = [
            Notify.make({"webhook": f"{url}/s3cret"}),
            Notify.make({"file": "/proc/nowhere/told"}),
            Notify.make({"slack": f"http://{peer.address}/slack"}),
        ]
        problems = list(send_notifications(_report(IMPROVED), whom))
    assert len(problems) == 2
    assert problems[0].startswith(f"notification failed: {url}/... cannot be reached")
    assert problems[1].startswith("notification failed: /proc/nowhere/told: ")
    assert len(peer.asked) == 1


def test_what_prometheus_reads(tmp_path: Path) -> None:
    path = tmp_path / "tritontune.prom"
    write_metrics(_report(IMPROVED, SLOWER, FAILED), path)
    told = {
        (sample.name.removeprefix("tritontune_nightly_"), sample.labels.get("model")): sample.value
        for family in text_string_to_metric_families(path.read_text())
        for sample in family.samples
    }
    assert told["gain_ratio", "mlp"] == 1.3
    assert told["gain_low_ratio", "mlp"] == pytest.approx(1.274)
    assert ("gain_ratio", "slow") not in told
    assert told["throughput_inferences_per_second", "mlp"] == 130.0
    assert told["p99_seconds", "mlp"] == told["latency_seconds", "mlp"] == 0.02
    assert 'percentile="p99"' in path.read_text()
    assert [told["regression", name] for name in ("mlp", "slow", "bad")] == [0, 1, 0]
    assert [told["failed", name] for name in ("mlp", "slow", "bad")] == [0, 0, 1]
    assert [told["improved", name] for name in ("mlp", "slow", "bad")] == [1, 0, 0]
    assert told["duration_seconds", "bad"] == 61.5
    assert told["exit_code", None] == 1
    assert told["last_run_timestamp_seconds", None] == 1767236460.0
    assert [each.name for each in tmp_path.iterdir()] == ["tritontune.prom"]
