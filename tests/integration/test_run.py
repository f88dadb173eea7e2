"""`tritontune run` from end to end, on a real Triton."""

from __future__ import annotations

import csv
import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from support.command_line import await_that, servers_of, start_tritontune, tritontune
from support.event_files import events_in, of, states_in
from tritonclient.grpc import model_config_pb2

from tuner.core.slo import SLO
from tuner.recommend.certify import is_certified
from tuner.report.end_of_run import MOST_LINES
from tuner.service.job_view import JobViews
from tuner.study.study import Study
from tuner.testing.repositories import ModelRepositoryFactory, config_text

pytestmark = pytest.mark.usefixtures("fake_on_path")

TWO_INSTANCES = """\
schema: 1
parameters:
  instance_group.count: {field: "instance_group[*].count", ladder: [1, 2]}
"""


def _front(run: Path, model: str = "slow") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / model / "front.json").read_text())
    return content


def _tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


class TestAFinishedRun:
    def test_it_finds_a_better_config(self, finished_run: Path) -> None:
        front = _front(finished_run)
        # One instance of 10 ms without batching answers 100 a second; batches and instances multiply that.
        assert 10 < front["baseline"][0]["throughput"]["value"] < 101
        assert front["best"]["gain"]["throughput"]["value"] > 2
        assert front["best"]["latency_ms"]["p90"]["value"] <= 400
        assert front["budget"]["launches"] >= 3

    def test_what_it_reports_comes_from_launches_after_the_choice(self, finished_run: Path) -> None:
        study = Study.load(finished_run / "study.db", "slow")
        best, baseline = study.recommendation.best, study.recommendation.baseline
        assert best is not None
        assert baseline is not None
        assert (best.verified, best.confirmed, baseline.verified) == (True, True, True)
        told = {(each.trial, each.load): each for each in study.verified}
        chosen = told[best.trial.number, best.point.load]
        assert chosen.confirming
        # The baseline ran beside it.
        assert set(chosen.numbers[chosen.choosing :]) & set(told[0, baseline.point.load].numbers)
        assert _front(finished_run)["best"]["verified"] is True
        logs = {path.parent.name for path in finished_run.glob("slow/verified/*/server.log")}
        name = f"{chosen.trial:03d}-{chosen.load.level:g}"
        assert {f"{name}-{number}" for number in chosen.numbers} <= logs

    def test_the_certified_rate_is_what_the_last_launch_showed(self, finished_run: Path) -> None:
        """On a machine that others use none may hold for sure; what a server of known truth gets, unit tests say."""
        best, stdout = _front(finished_run)["best"], (finished_run.parent / "stdout.txt").read_text()
        told = Study.load(finished_run / "study.db", "slow").certified
        assert told is not None
        assert (told.trial, told.load.level) == (best["trial"], best["load"]["concurrency"])
        assert told.launched is (finished_run / "slow/verified/certified/server.log").is_file()
        assert best["not_certified"] == told.reason
        if told.point:
            assert is_certified(told.point, SLO({"p90": 400.0}))
            assert best["certified_rate"]["request_rate"] == told.point.load.level
            # The first rate is nine tenths of the closed loop's, and none is higher than 1.1 times that.
            assert 0 < told.point.load.level <= 1.1 * best["throughput"]["value"]
            assert "requests/s of Poisson arrivals within p90 <= 400 ms" in stdout
        else:
            why = "no time left" if not told.launched else r"no rate tried \("
            assert re.match(why, told.reason or "")
            assert best["certified_rate"] is None
            assert f"not certified: {told.reason}" in stdout

    def test_the_front_holds_no_point_that_another_beats(self, finished_run: Path) -> None:
        points = [(p["latency_ms"]["p90"]["value"], p["throughput"]["value"]) for p in _front(finished_run)["front"]]
        assert len(points) >= 2
        assert points == sorted(points)
        assert [throughput for _, throughput in points] == sorted({throughput for _, throughput in points})

    def test_each_point_agrees_with_littles_law(self, finished_run: Path) -> None:
        for point in _front(finished_run)["front"]:
            under_way = point["throughput"]["value"] * point["latency_ms"]["p50"]["value"] / 1e3
            assert under_way == pytest.approx(point["load"]["concurrency"], rel=0.5)

    def test_the_best_config_holds_what_was_found(self, finished_run: Path) -> None:
        best = _front(finished_run)["best"]
        text = (finished_run / "slow" / best["config"]).read_text()
        config = text_format.Parse(text, model_config_pb2.ModelConfig())
        assert config.instance_group[0].count == best["parameters"]["instance_group.count"]
        assert config.parameters.keys() == set()
        assert text.startswith("# tritontune: ")

    def test_the_diff_is_what_changed(self, finished_run: Path) -> None:
        added = [line for line in (finished_run / "slow/best/config.diff").read_text().splitlines() if line[:1] == "+"]
        assert any("dynamic_batching" in line or "count" in line for line in added)

    def test_it_says_why(self, finished_run: Path) -> None:
        front = _front(finished_run)
        assert all("time in the queue" in point["why"] for point in front["front"])
        # With more clients than instances, these execute most of the time.
        assert any(" busy " in point["why"] for point in front["front"])
        fields = front["best"]["fields"]
        assert fields
        (batching,) = [each for each in fields if each["name"] == "dynamic_batching"]
        assert (batching["value"], batching["was"]) == ("on", "off")
        stdout = (finished_run.parent / "stdout.txt").read_text()
        assert all(point["why"] in stdout for point in front["front"])
        assert all(each["name"] in stdout for each in fields)
        assert all(each["why"] in stdout for each in fields if each["trial"] is not None)

    def test_every_trial_leaves_its_folder(self, finished_run: Path) -> None:
        for number in range(3):
            folder = finished_run / "slow" / "trials" / f"{number:03d}"
            assert {path.name for path in folder.iterdir()} == {"config.pbtxt", "command.txt", "server.log"}
            what_is_gone, command = (folder / "command.txt").read_text().splitlines()
            assert what_is_gone.startswith("# The repository and the tritontune-... folders named below were temporary")
            assert "tritonserver" in command
            assert "successfully loaded 'slow'" in (folder / "server.log").read_text()

    def test_the_baseline_is_the_config_as_it_is(self, finished_run: Path) -> None:
        given = finished_run.parent / "model_repository/slow/config.pbtxt"
        assert (finished_run / "slow/trials/000/config.pbtxt").read_bytes() == given.read_bytes()

    def test_trials_csv_has_every_operating_point(self, finished_run: Path) -> None:
        rows = list(csv.DictReader((finished_run / "slow/trials.csv").read_text().splitlines()))
        assert len(rows) == _front(finished_run)["budget"]["operating_points"]
        assert {row["trial"] for row in rows} == {"0", "1", "2"}

    def test_what_it_prints(self, finished_run: Path) -> None:
        stderr = (finished_run.parent / "stderr.txt").read_text()
        stdout = (finished_run.parent / "stdout.txt").read_text()
        assert "tuning slow: SLO p90 <= 400 ms, budget 9m00s" in stderr
        assert "trial 0: the baseline: " in stderr
        assert "slow: all 3 trials are done; " in stderr
        assert "new study" not in stderr
        assert "x the baseline's throughput" in stdout
        assert "+dynamic_batching" in stdout or "count" in stdout

    def test_nothing_is_left_behind(self, finished_run: Path) -> None:
        assert servers_of(finished_run) == []
        assert not (finished_run / ".work").exists()

    def test_the_users_repository_is_untouched(self, finished_run: Path) -> None:
        assert _tree(finished_run.parent / "model_repository") == {
            "slow",
            "slow/1",
            "slow/1/model.py",
            "slow/config.pbtxt",
        }

    def test_it_does_not_overwrite_what_is_there(self, finished_run: Path) -> None:
        again = tritontune("run", finished_run.parent / "model_repository", "--out", finished_run)
        assert again.returncode == 2
        assert "holds a study already; use --resume" in again.stderr


@pytest.mark.triton
@pytest.mark.timeout(300)
def test_a_real_triton_is_tuned(slow_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = ("--slo", "p99=2s", "--trials", 2, "--max-concurrency", 8, "--seed", 7, "--budget", "5m")
    done = tritontune("run", slow_model, *options, "--out", out)
    assert done.returncode == 0, done.stderr
    front = _front(out)
    # One instance of 10 ms without batching answers 100 a second; batches and instances multiply that.
    assert front["baseline"][0]["throughput"]["value"] < 101
    assert front["best"]["gain"]["throughput"]["value"] > 1
    assert front["best"]["verified"] is True
    assert "dynamic_batching" in (out / "slow" / "best" / "config.pbtxt").read_text()
    assert "pytriton" in Study.load(out / "study.db", "slow").identity.server
    assert servers_of(out) == []


@pytest.mark.triton
@pytest.mark.statistics
@pytest.mark.timeout(300)
def test_the_exported_config_measures_as_reported(slow_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = ("--slo", "p99=60ms", "--trials", 3, "--seed", 7, "--max-concurrency", 8, "--budget", "55s")
    done = tritontune("run", slow_model, *options, "--out", out)
    assert done.returncode == 0, done.stderr
    exported = tritontune("export", out, "--to", tmp_path / "deploy")
    assert exported.returncode == 0, exported.stderr
    best = _front(out)["best"]
    concurrency = best["load"]["concurrency"]
    measured = tritontune("measure", tmp_path / "deploy", "--concurrency", concurrency, "--time", "3s", "--json")
    assert measured.returncode == 0, measured.stderr
    (point,) = json.loads(measured.stdout)["points"]
    assert point["throughput"]["value"] == pytest.approx(best["throughput"]["value"], rel=0.15)


def test_every_model_is_tuned_in_turn(model_repository: ModelRepositoryFactory, tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(TWO_INSTANCES)
    model_repository.add("slow", name="a")
    model_repository.add("auto_complete", name="b", config="")
    model_repository.add("identity", name="ensemble", config='platform: "ensemble"\nensemble_scheduling { }\n')
    model_repository.add("refuses", name="r")
    out = tmp_path / "run"
    options = ("--space", space, "--trials", 2, "--max-concurrency", 1, "--no-verify")
    done = tritontune("run", model_repository.path, *options, "--out", out, "--json")
    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)
    assert {name: model["result"] for name, model in told["models"].items()} == {n: _front(out, n) for n in "ab"}
    assert list(told["failures"]) == ["r"]
    assert "no weights here" in told["failures"]["r"]["error"]
    assert told["report"] == str(out / "report.html")
    assert "skipped model ensemble: " in done.stderr
    assert "r: model 'r': the baseline failed: " in done.stderr
    events = events_in(out)
    results = [event["result"] for event in of(events, "model_ended")]
    assert [(each["model"], bool(each["failure"])) for each in results] == [("a", False), ("b", False), ("r", True)]
    assert states_in(events)[-1] == ("failed", 1, 1)
    assert events[-1]["reason"].startswith("r: model 'r': the baseline failed: ")
    assert "no weights here" in done.stderr
    assert _front(out, "a")["budget"]["launches"] >= 2
    # A model without a config.pbtxt gets one, of what the server made of it.
    assert 'name: "IN"' in (out / "b/best/config.pbtxt").read_text()


class TestFailingCandidates:
    """Each space is walked whole: the run must come to its end, and say what became of each candidate."""

    def _run(self, repository: ModelRepositoryFactory, tmp_path: Path, *options: object) -> tuple[dict[str, str], str]:
        space = tmp_path / "space.yaml"
        space.write_text(TWO_INSTANCES)
        out = tmp_path / "run"
        walked = ("--space", space, "--max-concurrency", 1, "--no-verify")
        done = tritontune("run", repository.path, *walked, "--out", out, *options)
        assert done.returncode == 0, done.stderr
        assert "every candidate has been measured; " in done.stderr
        (model,) = Study.models(out / "study.db")
        _, candidate = Study.load(out / "study.db", model).trials
        assert candidate.failure is not None
        assert servers_of(out) == []
        rows = list(csv.DictReader((out / model / "trials.csv").read_text().splitlines()))
        return rows[-1], candidate.failure.last_words

    def test_one_that_does_not_load(self, model_repository: ModelRepositoryFactory, tmp_path: Path) -> None:
        model_repository.add("refuses", config=config_text(out_of_memory_when_instances=2))
        row, last_words = self._run(model_repository, tmp_path)
        assert row["failure"] == "out_of_memory"
        assert "no room for another instance" in row["message"]
        assert "no room for another instance" in last_words

    def test_one_that_hangs(self, model_repository: ModelRepositoryFactory, tmp_path: Path) -> None:
        model_repository.add("hangs", config=config_text(hang_when_instances=2))
        row, _ = self._run(model_repository, tmp_path)
        assert row["failure"] == "hung"

    def test_one_that_hangs_while_it_loads(self, model_repository: ModelRepositoryFactory, tmp_path: Path) -> None:
        model_repository.add("hangs", config=config_text(hang_when_instances=2, hang_when_batch_exceeds="initialize"))
        row, _ = self._run(model_repository, tmp_path, "--launch-timeout", "5s")
        assert row["failure"] == "timed_out"

    def test_one_that_crashes_under_load(self, model_repository: ModelRepositoryFactory, tmp_path: Path) -> None:
        space = tmp_path / "space.yaml"
        space.write_text("schema: 1\nparameters: {dynamic_batching: {ladder: [off, on]}}\n")
        model_repository.add("crashes", config=config_text(crash_when_batch_exceeds=1))
        out = tmp_path / "run"
        # It would crash already where its outputs are compared.
        walked = ("--space", space, "--max-concurrency", 8, "--output-tolerance", "off", "--no-verify")
        done = tritontune("run", model_repository.path, *walked, "--out", out)
        assert done.returncode == 0, done.stderr
        baseline, candidate = Study.load(out / "study.db", "crashes").trials
        assert baseline.failure is None
        assert candidate.failure is not None
        assert candidate.failure.cause.value == "crashed"
        assert len(done.stdout.splitlines()) < MOST_LINES
        # What it measured before it crashed is kept.
        assert candidate.curve


def test_a_model_that_cannot_load_at_all(model_repository: ModelRepositoryFactory, tmp_path: Path) -> None:
    model_repository.add("refuses", config=config_text(message="the weights are gone"))
    done = tritontune("run", model_repository.path, "--out", tmp_path / "run")
    assert done.returncode == 1
    assert "model 'refuses': the baseline failed: " in done.stderr
    events = events_in(tmp_path / "run")
    assert states_in(events)[-1] == ("failed", 1, 1)
    assert "the weights are gone" in events[-1]["reason"]
    assert "the weights are gone" in done.stderr
    assert "Traceback" not in done.stderr.splitlines()[-1]
    assert not (tmp_path / "run/refuses/front.json").exists()


def test_no_candidate_holds_the_slo(slow_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = tritontune("run", slow_model, "--slo", "p99=5ms", "--trials", 2, "--out", out)
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1] == "tritontune: no candidate of slow holds p99 <= 5 ms"
    assert "result:   no candidate holds p99 <= 5 ms" in done.stdout
    assert len(done.stdout.splitlines()) < MOST_LINES
    assert _front(out)["best"] is None


@pytest.mark.faults
class TestInterruption:
    def _underway(self, repository: Path, out: Path, *more: object) -> Any:
        """A run that has finished its baseline and measures candidates; it stands still, so that it does not end."""
        rough = ("--max-concurrency", 2, "--precision", "20%,50%")
        run = start_tritontune("run", repository, "--trials", 99, *rough, "--out", out, *more)
        await_that(lambda: (out / "slow/trials/001/command.txt").exists() or run.poll() is not None, within_s=200)
        run.send_signal(signal.SIGSTOP)
        assert run.poll() is None, run.communicate()
        return run

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_its_folder_is_its_own_and_ctrl_c_and_sigterm_leave_a_report_and_no_process(
        self, slow_model: Path, tmp_path: Path, number: signal.Signals
    ) -> None:
        out = tmp_path / "run"
        run = self._underway(slow_model, out)
        second = tritontune("run", slow_model, "--out", out)
        assert second.returncode == 2
        assert "in use by another run" in second.stderr
        run.send_signal(number)
        run.send_signal(signal.SIGCONT)
        stdout, stderr = run.communicate(timeout=120)
        assert run.returncode == 130
        assert "baseline: " in stdout
        assert stderr.splitlines()[-1] == f"tritontune: interrupted; resume with: tritontune run --resume --out {out}"
        assert servers_of(out) == []
        assert _front(out)["budget"]["launches"] == len(Study.load(out / "study.db", "slow").trials) >= 1
        assert f"report:   {out / 'report.html'}" in stdout
        assert "Ended: interrupted." in (out / "report.html").read_text()
        assert states_in(events_in(out)) == [("starting", 1, None), ("running", 1, None), ("cancelled", 1, 130)]

    @pytest.mark.usefixtures("each_triton")
    def test_a_killed_run_takes_its_server_along_and_can_be_resumed(self, slow_model: Path, tmp_path: Path) -> None:
        out = tmp_path / "run"
        killed = self._underway(slow_model, out)
        killed.kill()
        killed.communicate(timeout=120)
        finished = Study.load(out / "study.db", "slow").trials
        assert finished
        # Its stubs may stay until somebody collects it; the next run ends them.
        await_that(lambda: not [process for process in servers_of(out) if process.name() == "tritonserver"])
        count = len(finished)
        options = ("--trials", count + 2, "--max-concurrency", 2, "--precision", "20%,50%", "--no-verify")
        done = tritontune("run", *options, "--out", out, "--resume")
        assert done.returncode == 0, done.stderr
        assert f"{count} trial{'s' * (count > 1)} done already" in done.stderr
        trials = Study.load(out / "study.db", "slow").trials
        assert trials[:count] == finished
        assert [trial.number for trial in trials] == list(range(count + 2))
        assert servers_of(out) == []
        assert not (out / ".work").exists()
        events = events_in(out)
        assert states_in(events) == [
            *[("starting", 1, None), ("running", 1, None)],
            *[("starting", 2, None), ("running", 2, None), ("succeeded", 2, 0)],
        ]
        assert [event["trial"] for event in of(events, "trial_ended")] == list(range(count + 2))
        front = {(point["trial"], point["load"]["concurrency"]) for point in _front(out)["front"]}
        view = JobViews(lambda _: out).of(1)
        assert {(point.trial, point.load["concurrency"]) for point in view.front().points if point.on_front} == front


def test_resume_refuses_another_job(finished_run: Path) -> None:
    repository = finished_run.parent / "model_repository"
    options = ("--slo", "p90=401ms", "--seed", 7, "--max-concurrency", 8)
    done = tritontune("run", repository, *options, "--out", finished_run, "--resume")
    assert done.returncode == 2
    assert done.stderr == (
        "tritontune: --slo: this run uses p90 <= 400 ms, not p90 <= 401 ms; omit the option or choose another --out\n"
    )
