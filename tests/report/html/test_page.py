"""What the page says, of what the study holds."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from support.builders import identity, point, space, trial

from tuner.core.errors import Cause, JobError
from tuner.core.loads import Concurrency, RequestRate
from tuner.measure.gpu_view import GpuUsage
from tuner.measure.points import OperatingPoint
from tuner.recommend.certified import CertifiedRate
from tuner.recommend.verification import Verification
from tuner.report.html import page as page_module
from tuner.report.html.model_view import ModelView, model_view
from tuner.report.html.page import json_script, report_html, write_report
from tuner.stats.slo_verdict import SLOTest
from tuner.study.provenance import Provenance
from tuner.study.run_folder import RunFolder
from tuner.study.study import Study

HOW = Provenance(
    began="2026-05-17T02:00:00Z",
    command="tritontune run models --slo p99=25ms",
    budget_s=60.0,
    tritontune="0.1.0",
    python="3.11.7",
    packages={"optuna": "5.0.0"},
    system="Debian GNU/Linux 12, Linux 6.1 x86_64",
    processor="Some Processor",
    memory_bytes=8 * 2**30,
    gpus=("NVIDIA H100",),
)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Plotly's megabytes, which say nothing of a study."""
    monkeypatch.setattr(page_module, "get_plotlyjs", lambda: "/* Plotly */")


def _view(run: RunFolder, study: Study) -> ModelView:
    return model_view(run, study)


def _facts(view: ModelView) -> dict[str, tuple[str, str, str | None]]:
    return {fact.term: (fact.value, fact.note, fact.tone) for fact in view.answer.facts}


def _details(view: ModelView) -> dict[str, str]:
    return {detail.term: detail.value for detail in view.measured}


def test_the_answer_of_what_was_not_verified(run: RunFolder, study: Study) -> None:
    view = _view(run, study)
    assert (view.answer.tone, view.answer.headline[:4]) == ("unsure", "3.63")
    assert view.answer.explanation == "the baseline's throughput; 95 % interval 2.91 to 4.81"
    facts = _facts(view)
    assert facts["SLO"][0] == "p99 ≤ 25 ms: held as measured"
    assert facts["SLO"][1] == "not verified: the best of 3 single measurements, likely too good"
    assert facts["Best, trial 1"][0] == "400 inferences/s, p99 20 ms at concurrency 8"
    assert facts["Baseline, trial 0"][0] == "110 inferences/s, p99 20 ms at concurrency 2"
    assert facts["Rate"][0] == "not certified: not tried"
    assert facts["Measured"][0] == "3 trials, 5 operating points, 3 launches in 18s"
    assert [(line.kind, line.text) for line in view.answer.diff if line.kind in {"added", "removed"}][:2] == [
        ("removed", "-max_batch_size: 32"),
        ("added", "+max_batch_size: 64"),
    ]
    assert view.answer.deploy == f"tritontune export {run.path} --model mlp --in-place"
    assert any("--explain measures it" in effect for effect in view.answer.effects)


def test_the_answer_of_what_was_verified_and_certified(run: RunFolder, verified: Study) -> None:
    verified.certify(CertifiedRate(trial=1, load=Concurrency(8), point=point(RequestRate(350), 350, 22, kept_up=True)))
    view = _view(run, verified)
    assert (view.answer.tone, view.answer.headline[:3]) == ("good", "3.8")
    facts = _facts(view)
    assert facts["SLO"] == (
        "p99 ≤ 25 ms: held",
        "held (99 % confidence): p99 20 ms (18.9 to 21.2); 3 launches, 1,500 requests",
        "good",
    )
    assert facts["Rate"] == ("certified 350 requests/s of Poisson arrivals within p99 ≤ 25 ms", "", "good")


def test_the_answer_says_what_is_not_sure(run: RunFolder, study: Study) -> None:
    few = SLOTest(percentile="p99", limit_ms=25.0, requests=50, over=0, design_effect=1.0)
    rounds = (point(8, 390, 20).model_copy(update={"limits": (few,)}),) * 3
    study.add_verified([Verification(trial=1, load=Concurrency(8), rounds=rounds, numbers=(1, 2, 3))])
    value, note, tone = _facts(_view(run, study))["SLO"]
    assert (value, tone) == ("p99 ≤ 25 ms: held as measured", "unsure")
    assert note.startswith("inconclusive: p99 20 ms (")


def test_the_answer_tells_of_what_looked_better(run: RunFolder, study: Study) -> None:
    enough = SLOTest(percentile="p99", limit_ms=25.0, requests=1_000, over=0, design_effect=1.0)
    rounds = (point(4, 300, 15).model_copy(update={"limits": (enough,)}),) * 3
    study.add_verified([Verification(trial=1, load=Concurrency(4), rounds=rounds, choosing=0)])
    value, _, tone = _facts(_view(run, study))["Not chosen"]
    assert value.startswith("trial 1 looked better (400 inferences/s, p99 20 ms at concurrency 8), but it was not ver")
    assert tone == "unsure"


def test_a_gain_that_may_be_noise_says_so(run: RunFolder) -> None:
    study, built = Study.create_or_resume(run.database, identity()), space()
    study.add(trial(0, point(1, 100, 10, share=0.3), parameters=built.baseline), built)
    better = built.normalize({"instance_group.count": 2})
    config = built.candidate(better).config.text
    study.add(trial(1, point(1, 110, 9, share=0.3), parameters=better, config=config), built)
    answer = _view(run, study).answer
    assert answer.tone == "unsure"
    assert "may be noise" in answer.explanation


def test_doubtful_points_are_counted(run: RunFolder) -> None:
    study, built = Study.create_or_resume(run.database, identity()), space()
    assert _facts(_view(run, study)) == {}
    study.add(trial(0, point(1, 100, 10), point(2, errors=3), point(4, errors=5), parameters=built.baseline), built)
    value, note, _ = _facts(_view(run, study))["Measured"]
    assert value == "1 trials, 3 operating points, 1 launches in 6s"
    assert note == "2 points with quality warnings: failed requests 2"


def test_without_an_slo_none_is_spoken_of(run: RunFolder) -> None:
    study, built = Study.create_or_resume(run.database, identity(slo={})), space()
    study.add(trial(0, point(1, 100, 10), parameters=built.baseline), built)
    view = _view(run, study)
    assert _facts(view)["SLO"][0] == "none"
    assert "shapes" not in view.front.layout
    assert view.candidates[0].outcome == "best"


def test_what_fails_has_its_cause(run: RunFolder, study: Study) -> None:
    (failed,) = _view(run, study).failed
    assert (failed.number, failed.outcome, failed.fared) == (2, "crashed", "failed")
    html = report_html(run)
    assert "it did not work" in html
    assert "E bad" in html


def test_the_table_leaves_out_empty_columns(run: RunFolder, study: Study) -> None:
    table = _view(run, study).table
    titles = [title for title, _ in table.columns]
    assert titles[:5] == ["outcome", "inferences/s", "p99, ms", "at load", "mean batch"]
    assert "GPU memory" not in titles
    best = dict(zip(titles, table.rows[1].cells, strict=True))
    assert (best["inferences/s"].text, best["inferences/s"].key, best["at load"].text) == ("400", 400.0, "8")
    assert (best["dynamic_batching"].text, best["dynamic_batching"].key) == ("on", -1.0)
    assert "host" not in titles
    failed = dict(zip(titles, table.rows[2].cells, strict=True))
    assert (failed["inferences/s"].key, failed["outcome"].text) == (None, "crashed")


def test_the_table_names_the_host_of_each_trial(run: RunFolder, study: Study) -> None:
    study.add(trial(3, point(1, 90, 10), parameters=space().baseline).model_copy(update={"host": "W2"}), space())
    table = _view(run, study).table
    assert table.columns[-1] == ("host", False)
    assert [(row.cells[-1].text, row.cells[-1].key) for row in table.rows] == [("", None)] * 3 + [("W2", "w2")]


def test_gpu_memory_has_a_plot_where_it_is_told(run: RunFolder, gpu_point: OperatingPoint) -> None:
    study, built = Study.create_or_resume(run.database, identity()), space()
    study.add(trial(0, gpu_point, parameters=built.baseline), built)
    view = _view(run, study)
    assert view.memory is not None
    (dots,) = view.memory.traces
    assert (dots["x"], dots["y"]) == ([5.0], [300])
    assert isinstance(gpu_point.gpu, GpuUsage)
    assert _details(view)["GPU"] == "GPU 0 (NVIDIA H100), GPU 1 (NVIDIA H100)"
    assert 'role="img" aria-label="Scatter plot of throughput against GPU memory of 1' in report_html(run)


def test_the_time_of_a_request_adds_up(run: RunFolder, study: Study) -> None:
    time = _view(run, study).time
    assert time.traces[0]["y"] == ["best, at concurrency 8", "baseline, at concurrency 2"]
    parts = [trace["x"][0] for trace in time.traces]
    best = study.trials[1].curve[1]
    assert parts[:4] == [0.1, 0.01, 1.0, 0.02]
    assert sum(parts) == pytest.approx(best.histogram.mean_ms)


def test_the_search_is_told_against_its_time(run: RunFolder, study: Study) -> None:
    (progress, importance) = _view(run, study).search
    assert progress.traces[0]["x"] == [6.0, 12.0, 18.0]
    assert progress.traces[0]["y"] == list(study.hypervolumes)
    assert "needs 10 trials" in importance.missing


def test_how_it_was_measured(run: RunFolder, study: Study) -> None:
    study.begin(HOW)
    study.begin(HOW.model_copy(update={"command": "tritontune run models --resume"}))
    study.end("the budget is spent")
    view = _view(run, study)
    details = _details(view)
    assert details["GPU"] == "NVIDIA H100"
    assert details["Where tritontune ran"] == ("Some Processor, 8 GiB of memory; Debian GNU/Linux 12, Linux 6.1 x86_64")
    assert details["Begun"] == details["Resumed"] == "2026-05-17T02:00:00Z, with a budget of 1m00s"
    assert [d.value for d in view.measured if d.term == "Command"] == [
        "tritontune run models --slo p99=25ms",
        "tritontune run models --resume",
    ]
    assert details["Seed"] == "0"
    assert view.ended == "the budget is spent"
    assert "Ended: the budget is spent." in report_html(run)


def test_what_an_older_run_did_not_store_is_said_to_be_unknown(run: RunFolder, study: Study) -> None:
    details = _details(_view(run, study))
    assert details["GPU"] == details["Where tritontune ran"] == "unknown"
    assert details["Versions, time and command"].startswith("unknown")
    assert "still under way" not in report_html(run)


def test_a_run_that_goes_on_says_so(run: RunFolder, study: Study) -> None:
    study.begin(HOW)
    assert "the run was still going on when this report was written, or it was killed" in report_html(run)


def test_what_may_be_secret_stays_out(run: RunFolder) -> None:
    secret = identity(
        server="Triton 2.51, --http-restricted-api=health:admin-key=hunter2",
        repository="grpcs://user:hunter2@triton:8001",
        requests={"request_parameter": {"key": "hunter2"}},
    )
    study, built = Study.create_or_resume(run.database, secret), space()
    study.add(trial(0, point(1, 100, 10), parameters=built.baseline), built)
    assert "hunter2" not in report_html(run)


def test_a_section_for_each_model(run: RunFolder, study: Study) -> None:
    other, built = Study.create_or_resume(run.database, identity(model="other")), space()
    other.add(trial(0, point(1, 100, 10), parameters=built.baseline), built)
    html = report_html(run)
    assert re.findall(r'<article class="model" id="([^"]+)"', html) == ["model-1", "model-2"]
    assert '<a href="#model-2"><bdi>other</bdi>' in html
    assert study.identity.model == "mlp"


@pytest.mark.parametrize("text", ["</script>", "<!--", "a & b", 'quote " \\ \u2028', "модель"])
def test_json_cannot_leave_its_script(text: str) -> None:
    script = str(json_script({"name": text}))
    assert not set(script) & set("<>&")
    assert json.loads(script) == {"name": text}


def test_scripts_that_may_run_are_named_by_their_hash(run: RunFolder, study: Study) -> None:
    html = report_html(run)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)
    assert policy is not None
    assert "default-src &#39;none&#39;" in policy[1] or "default-src 'none'" in policy[1]
    assert policy[1].count("sha256-") == html.count("<script>") == 4
    assert study.trials


def test_nothing_names_another_host(run: RunFolder, study: Study) -> None:
    html = report_html(run)
    assert re.findall(r"""(?:src|href)=["'](?!#|data:)[^"']*""", html) == []
    assert "@import" not in html
    assert study.trials


def test_a_report_elsewhere(run: RunFolder, study: Study, tmp_path: Path) -> None:
    assert study.trials
    assert write_report(run) == run.path / "report.html"
    path = write_report(run, tmp_path / "new/page.html")
    assert path.read_text() == (run.path / "report.html").read_text()
    assert sorted(each.name for each in path.parent.iterdir()) == ["page.html"]


def test_where_it_cannot_be_written(run: RunFolder, study: Study, tmp_path: Path) -> None:
    assert study.trials
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file/report.html"):
        with pytest.raises(JobError, match=f"{re.escape(str(path))}: cannot be written: "):
            write_report(run, path)


def test_what_is_no_study_is_one_line(run: RunFolder) -> None:
    run.database.write_bytes(b"garbage, and more of it" * 100)
    with pytest.raises(JobError, match="cannot be read as the study of a run: file is not a database"):
        write_report(run)
    run.database.write_bytes(b"")
    with pytest.raises(JobError, match="has no study yet"):
        write_report(run)


def test_while_a_run_is_on(run: RunFolder, study: Study) -> None:
    """Whoever writes the study is never in the way of who reads it, nor the other way round."""
    built, pages = space(), []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            pages.append(report_html(run))

    with run.opened(resume=True):
        reader = threading.Thread(target=read)
        reader.start()
        for number in range(3, 15):
            study.add(trial(number, point(1, 100 + number, 10), parameters=built.baseline), built)
        done.set()
        reader.join()
    assert pages
    assert all(re.search(r"<dd>[\d]+ trials, ", page) for page in pages)
    assert "15 trials, " in report_html(run)


def _data(html: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" class="data">(.*?)</script>', html)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_the_data_of_a_page_is_whole(run: RunFolder, study: Study) -> None:
    study.add(trial(3, failure=Cause.HUNG, parameters=space().baseline), space())
    data = _data(report_html(run))
    assert [c["trial"] for c in data["candidates"]] == [0, 1, 2, 3]
    assert data["candidates"][1]["points"][1]["throughput"] == [400.0, 392.0, 408.0]
    assert data["candidates"][0]["diff"] == []
    assert data["selected"] == 1
    assert set(data["plots"]) == {"front", "load-throughput", "load-latency", "time", "progress"}
