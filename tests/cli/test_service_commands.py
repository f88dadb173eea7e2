"""The commands that talk to the service, against a service of tests."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command_line import await_that, start_tritontune, tritontune
from support.service_peer import NOW, TOKEN, ServicePeer, interval, proposal, states

from tuner.client import client as module
from tuner.client import connection
from tuner.client.event_lines import EventLines, load_in_words, result_in_words
from tuner.client.resources import Job, JobHost, JobSlot
from tuner.jobs.events import (
    BestChanged,
    Event,
    ModelBegan,
    ModelEnded,
    ModelResult,
    NightEnded,
    Noted,
    PhaseBegan,
    PointMeasured,
    PointVerified,
    StateChanged,
    TrialBegan,
    TrialEnded,
)

_POINT = {
    "load": {"concurrency": 16},
    "throughput": interval(1234.0).model_dump(),
    "latency_ms": {"p95": interval(12.3).model_dump()},
}
_RESULT = ModelResult(
    model="mlp",
    trial=3,
    load={"concurrency": 16},
    throughput=interval(1234.0),
    latency_ms=interval(12.3),
    percentile="p95",
    gain=interval(1.5),
    verified=True,
    ended="budget spent",
)


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Iterator[ServicePeer]:
    monkeypatch.setattr(module, "_FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(connection, "_PAUSE_S", 0.001)
    with ServicePeer() as peer:
        monkeypatch.setenv("TRITONTUNE_SERVER", peer.address)
        monkeypatch.setenv("TRITONTUNE_TOKEN", TOKEN)
        yield peer


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    file = tmp_path / "job.yaml"
    file.write_text(
        "repository: model_repository\nslo: {p99: 40ms}\nspace: latency\ninput_data: data.json\nenv: {KEY: '${KEY}'}\n"
    )
    return file


def _ends(peer: ServicePeer, state: str, exit_code: int | None, reason: str = "", **fields: object) -> None:
    """Every job that is submitted ends thus."""

    def end(job: Job) -> list[Event]:
        peer.jobs[job.id] = job.model_copy(update=fields)
        last = {"reason": reason, "exit_code": exit_code}
        return states("queued", "starting", "running", state, **last)  # type: ignore[arg-type]

    peer.on_submit = end


def test_a_job_is_submitted(peer: ServicePeer, job_file: Path, tmp_path: Path) -> None:
    done = tritontune("submit", job_file, "--priority", 5, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"job 1: queued\ndashboard: {peer.address}/jobs/1\n"
    assert peer.jobs[1].job == {
        "repository": str(tmp_path / "model_repository"),
        "slo": {"p99": "40ms"},
        "space": "latency",
        "input_data": str(tmp_path / "data.json"),
        "env": {"KEY": "${KEY}"},
    }, "paths are from the root, words and references stay"


def test_a_job_of_a_target_needs_no_file(peer: ServicePeer) -> None:
    assert tritontune("submit", "--target", "mlp", "--kind", "nightly").returncode == 0
    assert (peer.jobs[1].target, peer.jobs[1].kind, peer.jobs[1].job) == ("mlp", "nightly", {})


def test_waiting_prints_what_happens(peer: ServicePeer, job_file: Path) -> None:
    _ends(peer, "succeeded", 0, results=(_RESULT,))
    peer.hang_up_after = 2  # a lost connection is taken up again
    done = tritontune("submit", job_file, "--wait")
    assert done.returncode == 0
    assert done.stderr.splitlines() == ["job 1: queued", "job 1: starting", "job 1: running", "job 1: succeeded"]
    assert done.stdout.splitlines() == [
        "job 1: succeeded",
        "mlp: gain 1.50 x the baseline (1.42 to 1.58)",
        "mlp: best 1,234 inferences/s, p95 12.3 ms at concurrency 16 (trial 3)",
        f"dashboard: {peer.address}/jobs/1",
    ]


@pytest.mark.parametrize(
    ("state", "code", "reason"),
    [
        ("failed", 1, "no Triton"),
        ("failed", 2, "no model 'x'"),
        ("succeeded", 3, "no candidate of mlp holds p99 <= 1 ms"),
        ("cancelled", 130, "by admin"),
        ("lost", None, "its process was lost"),
        ("succeeded", 10, ""),
    ],
)
def test_waiting_exits_as_run_does(
    peer: ServicePeer, job_file: Path, state: str, code: int | None, reason: str
) -> None:
    _ends(peer, state, code, reason)
    for words in (("submit", str(job_file), "--wait"), ("jobs", "1", "--watch")):
        done = tritontune(*words, "--json")
        assert done.returncode == (code or 1)
        line = f"tritontune: job 1: {state}: {reason}" if reason else "job 1: succeeded"
        assert done.stderr.splitlines()[-1] == line
        printed = json.loads(done.stdout)
        assert (printed["state"], printed["page"]) == (state, f"{peer.address}/jobs/{printed['id']}")


def test_ctrl_c_leaves_the_job_running(peer: ServicePeer, job_file: Path) -> None:
    peer.on_submit = lambda _: states("queued", "running")
    with start_tritontune("submit", job_file, "--wait", "--json", "--server", peer.address) as waiting:
        await_that(lambda: any("/events" in line for line in peer.asked))
        waiting.send_signal(signal.SIGINT)
        document, printed = waiting.communicate(timeout=60)
    assert json.loads(document)["id"] == 1
    assert waiting.returncode == 130
    assert peer.jobs[1].state == "running"
    assert printed.splitlines()[-1] == (
        f"tritontune: stopped waiting; job 1 goes on. To follow it: tritontune jobs 1 --watch --server {peer.address}. "
        f"To cancel it: tritontune cancel 1 --server {peer.address}"
    )


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("submit",), "submit needs a job file or a target: tritontune submit JOB.yaml, or --target NAME"),
        (("submit", "none.yaml"), "none.yaml: cannot be read: No such file or directory"),
        (("submit", "--target", "../x"), "--target: '../x' is not a name; use 1 to 100 letters, digits"),
        (("submit", "--priority", "101", "--target", "x"), "--priority: 101 is not in the range -100<=x<=100"),
        (("submit", "--kind", "run", "--target", "x"), "--kind: 'run' is not one of 'tune', 'nightly', 'measure'"),
        (("jobs", "x"), "ID: must be a whole number >= 1, got 'x'"),
        (("jobs", "7"), "there is no 7"),
        (("jobs", "--state", "slow"), "--state: 'slow' is not one of 'queued', "),
        (
            ("jobs", "--server", "localhost:8100"),
            "--server: 'localhost:8100' is not an address; write http://HOST:PORT",
        ),
        (("cancel",), "ID is missing; see tritontune cancel --help"),
        (("cancel", "0"), "ID: must be a whole number >= 1, got '0'"),
        (("retry", "9"), "there is no 9"),
        (("proposals", "--approve", "1", "--diff", "1"), "--approve and --diff cannot be used together"),
        (("proposals", "--reason", "x"), "--reason needs --approve or --reject"),
        (("proposals", "--approve", "5"), "there is no 5"),
        (("jobs", "--data", "/nowhere"), "/nowhere/admin.token: no such file; name the data folder"),
        (("jobs", "--tls-ca", "/nowhere"), "--tls-ca: /nowhere: no such file"),
    ],
)
@pytest.mark.usefixtures("peer")
def test_bad_input(words: tuple[str, ...], line: str, tmp_path: Path) -> None:
    done = tritontune(*words, cwd=tmp_path)
    assert done.stderr.startswith(f"tritontune: {line}"), done.stderr
    assert (done.returncode, done.stderr.count("\n"), done.stdout) == (2, 1, "")


def test_what_the_service_refuses(peer: ServicePeer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "job.yaml").write_text("slow: 1\n")
    done = tritontune("submit", tmp_path / "job.yaml")
    assert (done.returncode, done.stderr) == (
        2,
        "tritontune: the job is wrong; slow: unknown option; did you mean 'slo'?\n",
    )
    monkeypatch.setenv("TRITONTUNE_TOKEN", "old")
    assert tritontune("jobs").stderr == "tritontune: the token is unknown\n"
    peer.stop()
    done = tritontune("jobs")
    assert done.returncode == 1
    assert done.stderr.startswith(f"tritontune: {peer.address}: cannot be reached: Connection refused; is `tritontune ")


def test_a_list_of_jobs(peer: ServicePeer) -> None:
    assert tritontune("jobs").stdout == "no jobs yet\n"
    peer.add(models=("mlp",), slo="p99 <= 40 ms", reason="GPU 0 is held by job [2]")
    peer.add(state="succeeded", target="search", results=(_RESULT,), started_at=NOW, ended_at=NOW.replace(minute=10))
    lines = [line.rstrip() for line in tritontune("jobs").stdout.splitlines()]
    assert lines[0].split() == ["id", "kind", "state", "models", "SLO", "gain", "took", "why"]
    assert lines[1].split() == ["2", "tune", "succeeded", "search:", "mlp", "1.50", "10m00s"]
    assert lines[2].split() == [
        "1",
        "tune",
        "queued",
        "mlp",
        "p99",
        "<=",
        "40",
        "ms",
        "GPU",
        "0",
        "is",
        "held",
        "by",
        "job",
        "[2]",
    ]
    assert len(tritontune("jobs", "--last", 1).stdout.splitlines()) == 2
    assert tritontune("jobs", "--state", "failed", "--state", "lost").stdout == "no jobs are failed or lost\n"
    printed = json.loads(tritontune("jobs", "--json").stdout)
    assert (printed["schema"], [job["id"] for job in printed["jobs"]]) == (1, [2, 1])


def test_one_job(peer: ServicePeer) -> None:
    peer.add(models=("mlp",), slo="p99 <= 40 ms", reason="GPU 0 is held by job 9", submitted_by="ci", priority=3)
    assert tritontune("jobs", 1).stdout.splitlines() == [
        "job 1: queued: GPU 0 is held by job 9",
        f"dashboard: {peer.address}/jobs/1",
        "kind: tune",
        "models: mlp",
        "SLO: p99 <= 40 ms",
        "progress: 0 trials, 0 failed; 0 operating points",
        "priority: 3",
        "submitted: 2026-01-01 00:00 UTC by ci",
    ]


def test_one_job_on_several_hosts(peer: ServicePeer) -> None:
    peer.hosts = [
        JobHost(
            name="w1", state="admitted", slots=(JobSlot(name="w1/gpu:0", work="trial 1"), JobSlot(name="w1/gpu:1"))
        ),
        JobHost(name="w2", state="left_out", reason="another GPU: A100"),
    ]
    peer.add(job={"executor": "ray", "ray_address": "head:6379"})
    assert tritontune("jobs", 1).stdout.splitlines()[-2:] == [
        "host w1: 2 slots, 1 busy",
        "host w2: left out: another GPU: A100",
    ]
    peer.add()
    assert "host w1" not in tritontune("jobs", 2).stdout


def test_a_list_is_watched(peer: ServicePeer, monkeypatch: pytest.MonkeyPatch) -> None:
    peer.add()
    changes = [
        lambda: peer.tell(1, *states("running")),
        lambda: setattr(peer, "ill", [(503, {"retry-after": "0"})] * 4),  # as while it restarts
        lambda: peer.tell(1, *states("succeeded")),
    ]

    def pause(seconds: float) -> None:
        if seconds < 1:  # between tries
            return
        if not changes:
            raise KeyboardInterrupt
        changes.pop(0)()

    monkeypatch.setattr(time, "sleep", pause)
    done = tritontune("jobs", "--watch")
    assert done.stdout == "job 1: queued\njob 1: running\njob 1: succeeded\n"
    assert (done.returncode, done.stderr) == (130, "tritontune: stopped watching; the jobs go on\n")


def test_cancelling(peer: ServicePeer, job_file: Path) -> None:
    tritontune("submit", job_file)
    done = tritontune("cancel", 1, "--wait")
    assert done.stderr.splitlines() == ["job 1: cancelling", "job 1: cancelled"]
    assert done.stdout.startswith("job 1: cancelled\n")
    assert done.returncode == 0
    done = tritontune("cancel", 1)
    assert (done.returncode, done.stderr) == (2, "tritontune: job 1 has ended: cancelled\n")
    assert tritontune("retry", 1).stdout.startswith("job 2: queued\n")
    assert peer.jobs[2].retry_of == 1


def test_proposals(peer: ServicePeer) -> None:
    assert tritontune("proposals").stdout == "no open proposals\n"
    assert tritontune("proposals", "--state", "all").stdout == "no proposals\n"
    peer.proposals = {1: proposal(), 2: proposal(2, model="cnn", target="search")}
    lines = tritontune("proposals").stdout.splitlines()
    assert [line.split()[:3] for line in lines[1:3]] == [["1", "open", "mlp"], ["2", "open", "cnn"]]
    assert "1.50 x the baseline (1.42 to 1.58)" in lines[1]
    assert lines[-1] == f"dashboard: {peer.address}/proposals"
    assert tritontune("proposals", "--job", 2).stdout == "no open proposals\n"
    assert tritontune("proposals", "--diff", 1).stdout == peer.proposals[1].diff
    to_set = {"to_set": ("start tritonserver with --pinned-memory-pool-byte-size=0",)}
    peer.proposals[1] = peer.proposals[1].model_copy(update=to_set)
    assert tritontune("proposals", "--diff", 1).stderr == f"to set by hand: {to_set['to_set'][0]}\n"
    done = tritontune("proposals", "--approve", 1)
    assert (done.stdout, done.stderr) == ("proposal 1: approved\n", f"to set by hand: {to_set['to_set'][0]}\n")
    done = tritontune("proposals", "--reject", 2, "--reason", "after the sale")
    assert done.stdout == "proposal 2: rejected: after the sale\n"
    done = tritontune("proposals", "--approve", 1)
    assert (done.returncode, done.stderr) == (2, "tritontune: proposal 1 was approved by peer\n")
    printed = json.loads(tritontune("proposals", "--state", "all", "--json").stdout)
    assert [each["state"] for each in printed["proposals"]] == ["approved", "rejected"]


_TRIAL = {"seq": 1, "at": NOW, "model": "mlp", "trial": 3}


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (StateChanged(seq=1, at=NOW, state="queued", reason="GPU 0 is held"), "job 5: queued: GPU 0 is held"),
        (StateChanged(seq=1, at=NOW, state="cancelled", reason="cancelled; kept"), "job 5: cancelled: kept"),
        (PhaseBegan(seq=1, at=NOW, phase="search", model="mlp"), ""),
        (PhaseBegan(seq=1, at=NOW, phase="verification", model="mlp"), "phase: verification"),
        (Noted(seq=1, at=NOW, text="two\nlines"), "two lines"),
        (TrialBegan(**_TRIAL, candidate="x"), ""),
        (PointMeasured(**_TRIAL, point=_POINT), ""),
        (PointMeasured(**{**_TRIAL, "trial": None}, point=_POINT), "1,234 inferences/s, p95 12.3 ms at concurrency 16"),
        (
            TrialEnded(**_TRIAL, candidate="count 2", parameters={}, points=(_POINT,), wall_s=7.1),
            "trial 3: count 2: up to 1,234 inferences/s, p95 12.3 ms at concurrency 16 (7.1s)",
        ),
        (PointVerified(**_TRIAL, load={"concurrency": 16}, rounds=2, point=_POINT), ""),
        (
            BestChanged(seq=1, at=NOW, model="mlp", best=_RESULT),
            "best so far: 1,234/s, p95 12.3 ms, 1.50 x (trial 3)",
        ),
        (ModelEnded(seq=1, at=NOW, model="mlp", result=_RESULT), "mlp: budget spent"),
        (
            NightEnded(seq=1, at=NOW, model="mlp", night={"outcome": "kept", "reason": "none is better"}),
            "mlp: kept: none is better",
        ),
    ],
)
def test_events_are_lines(event: Event, line: str) -> None:
    lines = EventLines(5)
    began = ModelBegan(
        seq=1, at=NOW, model="mlp", slo="p95 <= 40 ms", percentile="p95", objective="throughput", budget_s=600
    )
    assert lines.of(began) == "tuning mlp: throughput, SLO p95 <= 40 ms, budget 10m00s"
    assert lines.of(event) == line


def test_the_best_is_told_when_it_changes() -> None:
    lines = EventLines(5)
    best = BestChanged(seq=1, at=NOW, model="mlp", best=_RESULT)
    assert lines.of(best)
    assert lines.of(best) == ""


def test_loads_in_words() -> None:
    assert load_in_words({"request_rate": 1500.0}) == " at 1,500 requests/s"
    assert load_in_words({"request_rate": [10.0, 20.0]}) == " at 10 to 20 requests/s"
    assert load_in_words({"replay": "day.txt"}) == " at replay day.txt"
    assert load_in_words(None) == ""


def test_results_in_words() -> None:
    failed = ModelResult(model="a", trial=None, failure="does not load")
    none = ModelResult(model="b", trial=None, ended="budget spent")
    assert [*result_in_words(failed), *result_in_words(none)] == [
        "a: failed: does not load",
        "b: no candidate holds the SLO",
    ]
    assert list(result_in_words(ModelResult(model="c", trial=None))) == ["c: no result"]
    baseline = _RESULT.model_copy(update={"trial": 0, "gain": interval(1.0)})
    (line,) = result_in_words(baseline)
    assert line.startswith("mlp: no config is better than the baseline: 1,234 inferences/s, p95 12.3 ms")
    unverified = _RESULT.model_copy(update={"verified": False})
    assert next(result_in_words(unverified)) == "mlp: gain 1.50 x the baseline (1.42 to 1.58), not verified"
