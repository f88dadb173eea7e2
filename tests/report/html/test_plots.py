"""Figures, as Plotly itself checks them, and the parts that they are made of."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects
import pytest
from support.builders import identity, point, space, trial

from tuner.core.loads import RequestRate
from tuner.measure.gpu_view import GpuUsage, GpuView
from tuner.measure.points import OperatingPoint
from tuner.report.html.front_plot import front_plot
from tuner.report.html.load_plots import finalists, load_plots
from tuner.report.html.model_view import ModelView, model_view
from tuner.report.html.plots import axis, doubling_axis, hover
from tuner.report.html.trial_views import trial_views
from tuner.study.run_folder import RunFolder
from tuner.study.study import Study


@pytest.fixture(scope="session")
def view(long_run: RunFolder) -> ModelView:
    """Of a long study."""
    return model_view(long_run, Study.load(long_run.database, "mlp"))


def _painted(node: Any) -> Any:
    """With a colour in the place of each of the page's names."""
    if isinstance(node, dict):
        return {key: _painted(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_painted(each) for each in node]
    return "#123456" if isinstance(node, str) and node.startswith("@") else node


@pytest.mark.slow
def test_plotly_takes_every_figure(view: ModelView) -> None:
    assert len(view.plots) == 6
    for plot in view.plots:
        figure = plotly.graph_objects.Figure(
            data=_painted(plot.figure["traces"]), layout=_painted(plot.figure["layout"])
        )
        assert len(figure.data) == len(plot.traces)


def test_a_gap_ends_each_curve(view: ModelView) -> None:
    others = next(trace for trace in view.front.traces if trace["name"] == "candidates")
    assert others["x"].count(None) == others["y"].count(None) == 149
    assert len(others["x"]) == len(others["text"]) == len(others["customdata"])


def test_the_importance_of_parameters_adds_up(view: ModelView) -> None:
    _, importance = view.search
    assert sum(importance.traces[0]["x"]) == pytest.approx(1)
    assert "over 150 trials" in importance.note


def test_finalists_are_the_baseline_the_best_and_the_front(study: Study) -> None:
    found = study.recommendation
    assert [each.number for each in finalists(trial_views(study, found), found)] == [0, 1]


def test_the_limit_is_where_it_is_on_either_axis(run: RunFolder) -> None:
    built = space()
    for slowest, log in ((30, False), (500, True)):
        study = Study.create_or_resume(run.database, identity(model=f"m{slowest}"))
        study.add(trial(0, point(1, 100, 10), point(2, 110, slowest), parameters=built.baseline), built)
        layout = front_plot(trial_views(study, study.recommendation), study.recommendation).layout
        assert (layout["xaxis"].get("type") == "log") is log
        assert layout["shapes"][0]["x0"] == 25
        assert layout["annotations"][0]["x"] == pytest.approx(1.39794 if log else 25)


def test_open_loops_have_no_place_on_an_axis_of_concurrency(run: RunFolder) -> None:
    study, built = Study.create_or_resume(run.database, identity()), space()
    study.add(trial(0, point(RequestRate(250), 250, 9, kept_up=True), parameters=built.baseline), built)
    found = study.recommendation
    for plot in load_plots(trial_views(study, found), found):
        assert plot.missing == "no closed-loop load was measured"


def test_points_under_which_requests_failed_are_marked(run: RunFolder) -> None:
    study, built = Study.create_or_resume(run.database, identity()), space()
    study.add(trial(0, point(1, 100, 10), point(2, 110, 20, errors=3), parameters=built.baseline), built)
    traces = {trace["name"]: trace for trace in model_view(run, study).front.traces}
    assert traces["some requests failed"]["y"] == [110]
    assert "3 requests failed: UNAVAILABLE: gone" in traces["some requests failed"]["text"][0]


def test_a_pointer_is_told_text_and_no_html() -> None:
    told = hover("trial 1", "a <b>bold</b> & <br> name", "", "word " * 30)
    assert told.startswith("<b>trial 1</b><br>a &lt;b&gt;bold&lt;/b&gt; &amp; &lt;br&gt; name<br>word word")
    assert max(map(len, told.split("<br>"))) < 80


def test_warnings_are_told_where_a_pointer_is(run: RunFolder, open_point: OperatingPoint) -> None:
    study, built = Study.create_or_resume(run.database, identity()), space()
    doubtful = open_point.model_copy(update={"errors": 0, "error": None, "kept_up": True})
    study.add(trial(0, doubtful, parameters=built.baseline), built)
    (baseline,) = [t for t in model_view(run, study).front.traces if t["name"] == "baseline"]
    assert "quality warnings: " in baseline["text"][0]


@pytest.mark.parametrize(
    ("values", "kind", "ticks"),
    [([1, 2], None, None), ([], None, None), ([0, 0], None, None), ([3, 90], "log", "1 2 5 10 20 50 100 200 500")],
)
def test_an_axis_is_logarithmic_where_much_lies_on_it(values: list[float], kind: str | None, ticks: str | None) -> None:
    made = axis("ms", values)
    assert made.get("type") == kind
    assert (" ".join(made["ticktext"]) if kind else None) == ticks


def test_loads_double() -> None:
    assert doubling_axis("concurrency", [1, 3, 100])["tickvals"] == [1, 2, 4, 8, 16, 32, 64, 128]
    assert len(doubling_axis("concurrency", [1, 65536])["tickvals"]) <= 9


def test_at_a_fixed_rate_what_did_not_keep_up_is_marked(run: RunFolder) -> None:
    quick = {"metric": "latency", "percentile": "p95", "rate": 500.0}
    study, built = Study.create_or_resume(run.database, identity(objective=quick, slo={})), space()
    study.add(trial(0, point(RequestRate(500), 500, 20, kept_up=True), parameters=built.baseline), built)
    other = built.normalize({"instance_group.count": 2})
    study.add(trial(1, point(RequestRate(500), 400, 900, kept_up=False), parameters=other), built)
    view = model_view(run, study)
    assert view.percentile == "p95"
    assert view.front.title == "Throughput against p95 latency"
    assert view.front.note.startswith("To the left is better.")
    (late,) = [trace for trace in view.front.traces if trace["name"] == "did not keep up"]
    assert (late["x"], late["y"]) == ([810.0], [400.0])
    assert "the server did not keep up" in late["text"][0]
    assert view.candidates[1].outcome == "does not keep up"
    assert [fact.value for fact in view.answer.facts if fact.term == "Objective"] == [
        "minimize p95 latency at 500 requests/s"
    ]


def test_the_plot_goes_up_with_the_objective(run: RunFolder) -> None:
    study, built = Study.create_or_resume(run.database, identity(objective={"metric": "inferences_per_joule"})), space()
    view = GpuView(gpu="GPU 0", uuid="GPU-0", power_w=50.0)
    on_gpu = point(8, 300, 20).model_copy(update={"gpu": GpuUsage(gpus=(view,))})
    study.add(trial(0, on_gpu, parameters=built.baseline), built)
    shown = model_view(run, study)
    (baseline,) = [trace for trace in shown.front.traces if trace["name"] == "baseline"]
    assert baseline["y"][0] == 6.0
    assert "6 inferences/J" in baseline["text"][0]
    assert shown.candidates[0].data["points"][0]["upward"] == [6.0, 5.88, 6.12]
    assert "per joule" in [title for title, _ in shown.table.columns]
