from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from jsonschema import Draft202012Validator
from support.builders import MLP, identity, point, space, trial
from support.pages import ROOT
from tritonclient.grpc import model_config_pb2

from tuner.core.loads import Concurrency, RequestRate
from tuner.measure.gpu_view import GpuMemory
from tuner.measure.points import OperatingPoint
from tuner.recommend.certified import CertifiedRate
from tuner.recommend.host_effects import HostRecord
from tuner.recommend.verification import Verification
from tuner.results import result_files as files
from tuner.results.points_csv import MACHINE_COLUMNS, points_csv
from tuner.results.result_files import front_json, trials_csv, write_results
from tuner.study.run_folder import RunFolder
from tuner.study.study import Study


@pytest.fixture
def front(run: RunFolder, study: Study) -> dict[str, Any]:
    write_results(run, study)
    content: dict[str, Any] = json.loads((run.model("mlp") / "front.json").read_text())
    return content


def test_front_json_keeps_its_contract(front: dict[str, Any]) -> None:
    assert list(front) == ["schema", "model", "slo", "objective", "baseline", "front", "best", "not_chosen", "budget"]
    assert (front["schema"], front["model"], front["slo"]) == (1, "mlp", {"p99_ms": 25.0})
    assert [p["trial"] for p in front["baseline"]] == [0, 0]
    assert front["budget"] == {"wall_s": 18.0, "launches": 3, "operating_points": 5}
    assert front["objective"] == {
        "metric": "throughput",
        "direction": "maximize",
        "unit": "inferences/s",
        "request_rate": None,
    }


def test_verification_is_part_of_what_a_run_took(run: RunFolder, study: Study) -> None:
    study.add_verifying_s(2.5)
    study.add_verifying_s(1.0)
    again = Study.load(run.database, "mlp")
    assert (again.spent_s, again.took_s) == (18.0, 21.5)
    assert front_json(again, again.recommendation)["budget"]["wall_s"] == 21.5


def test_a_point_of_front_json(front: dict[str, Any]) -> None:
    best = front["best"]
    assert (best["trial"], best["load"], best["verified"]) == (1, {"concurrency": 8}, False)
    assert best["parameters"]["instance_group.count"] == 2
    assert best["throughput"] == {"value": 400.0, "low": 392.0, "high": 408.0}
    assert set(best) == {
        "trial",
        "parameters",
        "load",
        "throughput",
        "latency_ms",
        "average_batch_size",
        "requests",
        "errors",
        "verified",
        "server_resources",
        "gpu",
        "objective_value",
        "why",
        "doubts",
        "discarded",
        "config",
        "files",
        "server_args",
        "env",
        "gain",
        "fields",
        "slo_certain",
        "certified_rate",
        "not_certified",
        "warm_up",
    }
    assert list(best["latency_ms"]) == ["p50", "p90", "p95", "p99"]
    assert (best["average_batch_size"], best["requests"], best["errors"]) == (2.0, 500, 0)
    assert best["config"] == "best/config.pbtxt"
    assert best["gain"]["throughput"]["value"] == pytest.approx(400 / 110, rel=0.01)
    assert best["gain"]["ratio"] == best["gain"]["throughput"]
    assert best["objective_value"] == best["throughput"]


def test_what_was_verified_and_certified_is_told(run: RunFolder, verified: Study) -> None:
    verified.certify(CertifiedRate(trial=1, load=Concurrency(8), point=point(RequestRate(350), 350, 22, kept_up=True)))
    write_results(run, verified)
    best = json.loads((run.model("mlp") / "front.json").read_text())["best"]
    assert (best["verified"], best["slo_certain"]) == (True, True)
    assert best["gain"]["throughput"]["value"] == pytest.approx(
        (390 * 391 * 392 / (100 * 101 * 102)) ** (1 / 3), rel=1e-3
    )
    assert best["gain"]["pairs"] == 3
    rate = best["certified_rate"]
    assert (rate["request_rate"], rate["requests"], rate["latency_ms"]["p99"]["value"]) == (350, 500, 22)
    assert best["not_certified"] is None
    text = (run.model("mlp") / "best/config.pbtxt").read_text()
    assert "# tritontune: certified 350 requests/s of Poisson arrivals within p99 <= 25 ms\n" in text


def test_a_rate_certified_on_a_host_says_so(run: RunFolder, verified: Study) -> None:
    at = point(RequestRate(350), 350, 22, kept_up=True)
    for name, host_class in (("w0", ""), ("w1", "old")):
        verified.add_host_record(HostRecord(name=name, host_class=host_class))
    verified.certify(CertifiedRate(trial=1, load=Concurrency(8), point=at, host="w1", host_class="old"))
    write_results(run, verified)
    front = json.loads((run.model("mlp") / "front.json").read_text())
    schema = json.loads((ROOT / "docs/reference/front.schema.json").read_text("utf-8"))
    Draft202012Validator(schema).validate(front)
    assert (front["best"]["certified_rate"]["host"], front["best"]["certified_rate"]["host_class"]) == ("w1", "old")
    text = (run.model("mlp") / "best/config.pbtxt").read_text()
    assert "certified 350 requests/s of Poisson arrivals within p99 <= 25 ms on hosts like w1\n" in text


def test_what_is_not_certified_has_a_reason(run: RunFolder, verified: Study) -> None:
    reason = "no time left"
    verified.certify(CertifiedRate(trial=1, load=Concurrency(8), reason=reason, launched=False))
    write_results(run, verified)
    best = json.loads((run.model("mlp") / "front.json").read_text())["best"]
    assert (best["certified_rate"], best["not_certified"]) == (None, reason)
    assert "certified" not in (run.model("mlp") / "best/config.pbtxt").read_text()


def test_what_looked_better_is_told_with_the_reason(run: RunFolder, verified: Study) -> None:
    built = space()
    better = built.normalize({"dynamic_batching": "on", "max_batch_size": 128})
    verified.add(trial(3, point(8, 600, 21), parameters=better), built)
    write_results(run, verified)
    (told,) = json.loads((run.model("mlp") / "front.json").read_text())["not_chosen"]
    assert (told["trial"], told["load"], told["reason"]) == (3, {"concurrency": 8}, "no_time")
    assert told["why"] == (
        "trial 3 looked better (600 inferences/s, p99 21 ms at concurrency 8), but it was not verified in time; "
        "to verify it, use --resume with a longer --budget"
    )


def test_the_front_is_in_order_of_latency(front: dict[str, Any]) -> None:
    assert [p["latency_ms"]["p99"]["value"] for p in front["front"]] == [10, 20, 40]


def test_front_json_says_why(front: dict[str, Any]) -> None:
    assert front["best"]["why"] == (
        "batches of 2.0 on average; 9% of a request's time in the queue: "
        "91% of latency is outside queue and model (network, frontend, client)"
    )
    assert all("why" in point for point in front["front"])
    assert [(f["name"], f["value"], f["was"], f["effect"], f["trial"]) for f in front["best"]["fields"]] == [
        ("dynamic_batching", "on", "off", None, None),
        ("max_batch_size", 64, 32, None, None),
        ("instance_group.count", 2, 1, None, None),
    ]
    assert front["best"]["fields"][0]["together"] == ["max_batch_size"]
    assert "--explain measures it" in front["best"]["fields"][0]["why"]


def test_no_best_and_no_gain_when_none_holds(run: RunFolder) -> None:
    study = Study.create_or_resume(run.database, identity(slo={"p99": "1ms"}))
    built = space()
    study.add(trial(0, point(1, 100, 10), parameters=built.baseline), built)
    assert write_results(run, study).best is None
    front = json.loads((run.model("mlp") / "front.json").read_text())
    assert front["best"] is None
    assert not (run.model("mlp") / "best").exists()


def test_trials_csv_has_a_row_for_each_point_and_each_failure(run: RunFolder, study: Study) -> None:
    write_results(run, study)
    rows = list(csv.DictReader((run.model("mlp") / "trials.csv").read_text().splitlines()))
    assert [(row["trial"], row["concurrency"]) for row in rows] == [
        ("0", "1"),
        ("0", "2"),
        ("1", "1"),
        ("1", "8"),
        ("1", "16"),
        ("2", ""),
    ]
    assert {row["request_rate"] for row in rows} == {""}
    assert rows[3]["throughput"] == "400.00"
    assert rows[3]["instance_group.count"] == "2"
    assert (rows[5]["failure"], rows[5]["message"]) == ("crashed", "it did not work")


def test_the_host_of_a_trial_is_told(study: Study) -> None:
    study.add(trial(3, point(1, 900, 10), parameters=space().baseline).model_copy(update={"host": "w2"}), space())
    rows = list(csv.DictReader(trials_csv(study).splitlines()))
    assert [row["host"] for row in rows] == [""] * 6 + ["w2"]
    front = front_json(study, study.recommendation)
    assert {each["trial"]: each["host"] for each in front["front"]} == {3: "w2"}
    assert not any("host" in each for each in front["baseline"])
    assert front["best"]["host"] == "w2"


def test_what_has_no_bound_is_an_empty_cell(run: RunFolder) -> None:
    built, study = space(), Study.create_or_resume(run.database, identity())
    failing = point(1, 100, math.inf, errors=5)
    study.add(trial(0, failing, point(2, 100, 10), parameters=built.baseline), built)
    row = next(csv.DictReader(trials_csv(study).splitlines()))
    assert (row["p99_ms"], row["throughput"]) == ("", "100.00")
    assert ",inf," not in trials_csv(study)
    assert next(csv.DictReader(points_csv([failing]).splitlines()))["p99_ms"] == ""


def test_open_loops_are_in_trials_csv_by_their_rate(run: RunFolder, study: Study) -> None:
    built = space()
    study.add(trial(3, point(RequestRate(250), 250, 9, kept_up=True), parameters=built.baseline), built)
    write_results(run, study)
    row = list(csv.DictReader((run.model("mlp") / "trials.csv").read_text().splitlines()))[-1]
    assert (row["concurrency"], row["request_rate"], row["throughput"]) == ("", "250", "250.00")
    front = json.loads((run.model("mlp") / "front.json").read_text())["front"]
    assert {"request_rate": 250.0} in [each["load"] for each in front]


def test_the_best_config_says_where_it_comes_from(run: RunFolder, study: Study) -> None:
    write_results(run, study)
    text = (run.model("mlp") / "best/config.pbtxt").read_text()
    assert text.startswith("# tritontune: trial 1 of 3 for model mlp\n")
    assert "# tritontune: gain 3.63 x the baseline's throughput" in text
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert config.max_batch_size == 64
    assert config.instance_group[0].count == 2


def test_an_older_provenance_makes_way(run: RunFolder, study: Study) -> None:
    built = space(config="# tritontune: trial 9 of 12 for model mlp\n" + MLP)
    study.add(trial(3, point(1, 900, 5), parameters=built.baseline, config=built.base.text), built)
    write_results(run, study)
    text = (run.model("mlp") / "best/config.pbtxt").read_text()
    assert "trial 3 of 4" in text
    assert "trial 9" not in text


def test_the_diff_is_against_the_users_file(run: RunFolder, study: Study) -> None:
    write_results(run, study)
    changed = (run.model("mlp") / "best/config.diff").read_text().splitlines()
    assert "-max_batch_size: 32" in changed
    assert "+max_batch_size: 64" in changed
    assert not any("tritontune" in line for line in changed)


def test_nothing_half_written_stays(run: RunFolder, study: Study) -> None:
    write_results(run, study)
    write_results(run, study)
    assert sorted(path.name for path in run.model("mlp").rglob("*") if path.is_file()) == [
        "config.diff",
        "config.pbtxt",
        "front.json",
        "trials.csv",
    ]


def test_trials_csv_tells_what_a_trial_cost_the_machine(run: RunFolder, gpu_point: OperatingPoint) -> None:
    built = space()
    study = Study.create_or_resume(run.database, identity())
    memory = GpuMemory(gpu="GPU 0", peak_bytes=5 * 2**30)
    costly = trial(0, gpu_point, parameters=built.baseline).model_copy(update={"gpu_memory": memory})
    study.add(costly, built)
    study.add(trial(1, point(), parameters=built.baseline), built)
    row, without = csv.DictReader(trials_csv(study).splitlines())
    assert (row["server_cpu_cores"], row["gpu_power_w"], row["gpu_memory_taken_bytes"]) == (
        "1.5",
        "412.35",
        str(5 * 2**30),
    )
    assert {without[name] for name in (*MACHINE_COLUMNS, "gpu_memory_taken_bytes")} == {""}


def test_trials_csv_tells_what_is_doubtful(run: RunFolder) -> None:
    built = space()
    study = Study.create_or_resume(run.database, identity())
    study.add(trial(0, point(1), point(2, errors=3), parameters=built.baseline), built)
    sound, doubtful = csv.DictReader(trials_csv(study).splitlines())
    assert (sound["doubts"], doubtful["doubts"]) == (
        "",
        "failures: 3 of 503 requests failed, most often with UNAVAILABLE: gone",
    )


@pytest.fixture
def broken(study: Study) -> Study:
    """The study once no point holds the SLO any more: both candidates broke it when they were measured again."""
    for number, load in ((0, 1), (0, 2), (1, 1), (1, 8), (1, 16)):
        rounds = tuple(point(load, 100, 900) for _ in range(3))
        study.add_verified([Verification(trial=number, load=Concurrency(load), rounds=rounds, numbers=(1, 2, 3))])
    return study


def test_the_best_goes_with_its_fact(run: RunFolder, study: Study, request: pytest.FixtureRequest) -> None:
    write_results(run, study)
    assert (run.model("mlp") / "best/config.pbtxt").exists()
    write_results(run, request.getfixturevalue("broken"))
    assert json.loads((run.model("mlp") / "front.json").read_text())["best"] is None
    assert not (run.model("mlp") / "best").exists()


def test_what_a_user_put_beside_the_best_stays(run: RunFolder, study: Study, request: pytest.FixtureRequest) -> None:
    write_results(run, study)
    (run.model("mlp") / "best/notes.txt").write_text("mine")
    write_results(run, request.getfixturevalue("broken"))
    assert [file.name for file in (run.model("mlp") / "best").iterdir()] == ["notes.txt"]


class _KilledError(BaseException):
    """Stands for SIGKILL."""


@pytest.fixture(params=range(5))
def dying(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Lets so many files be written from when it is called; the next one is the end."""
    left = request.param

    def write_or_die(path: Path, text: str) -> None:
        nonlocal left
        if not left:
            raise _KilledError
        left -= 1
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    return lambda: monkeypatch.setattr(files, "write_atomically", write_or_die)


@pytest.mark.parametrize("then", ["verified", "broken"])
def test_a_kill_leaves_no_two_files_that_contradict_each_other(
    run: RunFolder, study: Study, request: pytest.FixtureRequest, dying: Callable[[], None], then: str
) -> None:
    write_results(run, study)
    changed = request.getfixturevalue(then)
    dying()
    with suppress(_KilledError):
        write_results(run, changed)
    folder = run.model("mlp")
    best = json.loads((folder / "front.json").read_text())["best"]
    config, diff = folder / "best/config.pbtxt", folder / "best/config.diff"
    if best is None:
        assert not config.exists()
        assert not diff.exists()
    elif config.exists():
        assert f"trial {best['trial']} of" in config.read_text()
        assert ("verified" in config.read_text()) == best["verified"]
        assert diff.exists()
