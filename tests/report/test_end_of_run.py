from __future__ import annotations

import io
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from support.builders import MLP, identity, point, space, trial
from support.studies import long_study

from tuner.core.errors import Cause, TuningError
from tuner.core.loads import Concurrency, RequestRate
from tuner.core.slo import SLO
from tuner.jobs.progress import ModelOutcome
from tuner.measure.points import OperatingPoint
from tuner.measure.quality_warnings import QualityCheck, QualityWarning
from tuner.recommend.certified import CertifiedRate
from tuner.recommend.verification import Verification
from tuner.report.console import ConsoleProgress
from tuner.report.end_of_run import MOST_LINES, MOST_POINTS, print_models, print_outcome
from tuner.results.result_files import write_results
from tuner.space.spec import LadderValue
from tuner.stats.slo_verdict import SLOTest
from tuner.study.run_folder import RunFolder
from tuner.study.study import Study

# A config of which a candidate changes many lines: one for each of its instance groups.
MANY_GROUPS = MLP.replace(
    "instance_group [ { kind: KIND_CPU count: 1 } ]",
    "instance_group [\n" + ",\n".join(f'  {{ name: "group{n}" kind: KIND_CPU count: 1 }}' for n in range(30)) + "\n]",
)
REMARK = "the values of output 'Y' are not compared: the baseline gives 1, and 1.02 to the same request"


def lines_of(text: str, width: int) -> int:
    """Number of lines that a text takes on a terminal."""
    return sum(max(1, math.ceil(len(line) / width)) for line in text.splitlines())


def outcome_of(run: RunFolder, study: Study) -> ModelOutcome:
    return ModelOutcome(run, study.identity.model, study, write_results(run, study), "the budget is spent")


def shown(outcome: ModelOutcome, width: int, *, verbose: bool = False) -> str:
    """What a run of one model prints at its end, with the path of the report and the line of an error."""
    text = io.StringIO()
    console = Console(file=text, width=width, color_system=None)
    with ConsoleProgress(Console(file=io.StringIO()), console, outcome.recommendation.slo, verbose=verbose) as progress:
        progress.model_ended(outcome)
        progress.reported(outcome.folder.report)
    return text.getvalue() + "tritontune: an error\n"


def diff_of(run: RunFolder) -> str:
    """The stored diff of the best config, without the two lines that name the files."""
    return (run.model("mlp") / "best/config.diff").read_text().split("\n", 2)[2]


def changed_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line[:1] in {"+", "-"}]


@pytest.fixture
def long(run: RunFolder) -> ModelOutcome:
    return long_outcome(run)


def long_outcome(run: RunFolder, config: str = MANY_GROUPS) -> ModelOutcome:
    """A large front, a long diff, many changes, quality warnings, notes, and a rate that was not certified."""
    built = space(config=config)
    study = Study.create_or_resume(run.database, identity(config=config, slo={"p99": "60ms"}))
    better: dict[str, LadderValue] = {
        "dynamic_batching": "on",
        "max_batch_size": 64,
        "dynamic_batching.preferred_batch_size": 8,
        "dynamic_batching.max_queue_delay_microseconds": 5000,
        "instance_group.count": 2,
    }
    assignment = built.normalize(better)
    better_config = built.candidate(assignment).config.text
    study.add(trial(0, point(1, 100, 10), point(2, 110, 20, errors=3), parameters=built.baseline, config=config), built)
    study.add(trial(1, *_rising(400), parameters=assignment, config=better_config), built)
    for number, seemed in enumerate((1.5, 1.4, 1.3), start=2):
        other = built.normalize({**better, "max_batch_size": 2**number})
        study.add(trial(number, *_rising(400 * seemed), parameters=other), built)
    test = SLOTest(percentile="p99", limit_ms=60.0, requests=50, over=0, design_effect=1.0)
    for number, load, rate in ((0, 1, 100), (1, 20, 700)):
        changes = {"limits": (test,), "warnings": (QualityWarning(check=QualityCheck.DRIFT, reason="drift: it did"),)}
        rounds = tuple(point(load, rate + n, 40).model_copy(update=changes) for n in range(3))
        study.add_verified(
            [Verification(trial=number, load=Concurrency(load), rounds=rounds, numbers=(1, 2, 3), choosing=1)]
        )
    study.certify(CertifiedRate(trial=1, load=Concurrency(20), reason="no rate tried (1,210 to 1,890) holds it"))
    for number in range(4):
        assert study.remark(f"{REMARK} [{number}]")
    return outcome_of(run, study)


def _rising(rate: float) -> Iterator[OperatingPoint]:
    for load in range(1, 41):
        yield point(load, rate * load / (load + 8), 5 + load)


@pytest.mark.parametrize("width", [80, 100])
def test_a_long_result_takes_few_lines(long: ModelOutcome, width: int) -> None:
    told = shown(long, width)
    assert lines_of(told, width) <= MOST_LINES
    assert lines_of(shown(long, width, verbose=True), width) > 2 * MOST_LINES
    for label in ("gain", "best", "baseline", "SLO", "rate", "changes", "why", "deploy", "report"):
        assert sum(line.startswith(f"{label}:") for line in told.splitlines()) == 1, label


@pytest.mark.parametrize("width", [80, 100])
def test_long_paths_take_lines_from_the_rest(tmp_path: Path, width: int) -> None:
    run = RunFolder(tmp_path / "/".join(["of-many-folders"] * 3))
    run.path.mkdir(parents=True)
    told = shown(long_outcome(run), width)
    assert max(map(len, told.splitlines())) > width
    assert lines_of(told, width) <= MOST_LINES
    assert "\nbest ?" in told
    assert "more changed lines: " in told


@pytest.mark.parametrize("width", [80, 100])
def test_the_answer_comes_first(long: ModelOutcome, width: int) -> None:
    labels = [line.partition(":")[0] for line in shown(long, width).splitlines()]
    assert labels[:6] == ["", "model", "gain", "best", "baseline", "SLO"]
    assert labels[-3:] == ["deploy", "report", "tritontune"]


def test_a_long_diff_says_how_much_more_there_is_and_where(long: ModelOutcome) -> None:
    told = shown(long, 100)
    changed = changed_lines(told)
    more = len(changed_lines(diff_of(long.folder))) - len(changed)
    assert len(changed) >= 2
    assert more > 20
    assert f"({more} more changed lines: {long.folder.model('mlp') / 'best/config.diff'})" in told.replace("\n", "")


def test_the_front_shows_the_points_that_matter(long: ModelOutcome) -> None:
    rows = [line.split() for line in shown(long, 100).splitlines() if line.count(" ms  ") == 2]
    assert len(rows) <= MOST_POINTS
    assert sum(row[0] == "best" for row in rows) == 1
    assert sum(row[0] == "baseline" for row in rows) == 1
    latencies = [float(row[-3]) for row in rows]
    assert latencies == sorted(latencies)


def test_effects_that_are_not_known_are_one_line(long: ModelOutcome) -> None:
    for verbose in (False, True):
        told = shown(long, 240, verbose=verbose).splitlines()
        (line,) = (line for line in told if "--explain" in line)
        assert all(name in line for name in ("dynamic_batching", "max_batch_size", "instance_group.count"))


def test_notes_that_have_no_room_are_counted(long: ModelOutcome) -> None:
    told = shown(long, 100)
    assert f"note:     {REMARK} [0]" in told.replace("\n", "")
    assert "notes:    " in told
    assert " more: see the report" in told
    assert f"note:     {REMARK} [3]" in shown(long, 240, verbose=True)


def test_a_diff_without_room_for_its_context_keeps_all_changes(run: RunFolder, study: Study) -> None:
    told = shown(outcome_of(run, study), 200)
    assert changed_lines(diff_of(run))
    assert changed_lines(told) == changed_lines(diff_of(run))
    assert diff_of(run).splitlines()[0] not in told.splitlines()


@pytest.mark.parametrize("width", [120, 200])
def test_a_short_diff_is_whole_beside_a_large_front_and_notes(run: RunFolder, width: int) -> None:
    told = shown(long_outcome(run, MLP), width)
    assert 4 < len(changed_lines(diff_of(run))) <= 8
    assert changed_lines(told) == changed_lines(diff_of(run))
    assert lines_of(told, width) <= MOST_LINES


def test_a_diff_with_room_for_its_context_keeps_it(run: RunFolder) -> None:
    config = 'backend: "python"\nmax_batch_size: 32\n'
    study, built = Study.create_or_resume(run.database, identity(config=config)), space(config=config)
    better = built.normalize({"max_batch_size": 64})
    study.add(trial(0, point(1, 100, 10), parameters=built.baseline, config=config), built)
    study.add(trial(1, point(1, 300, 10), parameters=better, config=built.candidate(better).config.text), built)
    told = shown(outcome_of(run, study), 200)
    assert (run.model("mlp") / "best/config.diff").read_text() in told


@pytest.mark.parametrize("width", [80, 100])
def test_no_candidate_holds_the_slo(run: RunFolder, width: int) -> None:
    study = long_study(run, 30, slo={"p99": "1ms"})
    told = shown(outcome_of(run, study), width)
    assert lines_of(told, width) <= MOST_LINES
    assert "result:   no candidate holds p99 <= 1 ms\n" in told
    assert "baseline: violates p99 <= 1 ms at every measured load\n" in told
    assert "deploy:" not in told
    assert "gain:" not in told
    assert 2 < sum(" ms  " in line for line in told.splitlines()) <= MOST_POINTS


@pytest.mark.parametrize("width", [80, 100])
def test_nothing_was_verified(run: RunFolder, width: int) -> None:
    study = long_study(run, 30, slo={"p99": "60ms"})
    told = shown(outcome_of(run, study), width)
    assert lines_of(told, width) <= MOST_LINES
    assert "SLO:      p99 <= 60 ms not verified: the best of 30 single measurements, likely too good" in told


def test_the_baseline_is_best(run: RunFolder) -> None:
    study, built = Study.create_or_resume(run.database, identity(slo={})), space()
    study.add(trial(0, point(), parameters=built.baseline), built)
    study.add(trial(1, failure=Cause.HUNG, parameters=built.normalize({"instance_group.count": 2})), built)
    told = shown(outcome_of(run, study), 100)
    assert "gain:     none: no candidate beats the baseline\n" in told
    assert "best:     the baseline\nbaseline: 100 inferences/s, p99 10 ms at concurrency 1\n" in told
    assert "SLO:      none; not verified: the best of 2 single measurements, likely too good\n" in told
    assert "changes:" not in told


def test_several_models_end_with_a_line_each(run: RunFolder, verified: Study) -> None:
    text = io.StringIO()
    with ConsoleProgress(Console(file=io.StringIO()), Console(file=text, width=100), SLO({"p99": 25.0})) as progress:
        progress.model_ended(outcome_of(run, verified))
        progress.model_failed("cnn", TuningError("model 'cnn': the baseline failed: no weights here"))
        before = text.getvalue()
        progress.reported(run.report)
    lines = [" ".join(line.split()) for line in text.getvalue()[len(before) :].splitlines()]
    assert lines == [
        "",
        "model gain best (inferences/s) SLO",
        "mlp 3.87 x (3.80 to 4.18) 391/s, p99 20 ms held",
        "cnn failed model 'cnn': the baseline failed: no weights here",
        f"report: {run.report}",
    ]


def test_a_line_of_a_model_says_what_there_is_no_number_for(tmp_path: Path) -> None:
    built, run = space(), RunFolder(tmp_path)
    none_holds = Study.create_or_resume(run.database, identity(model="none", slo={"p99": "1ms"}))
    none_holds.add(trial(0, point(), parameters=built.baseline), built)
    baseline_best = Study.create_or_resume(run.database, identity(model="same", slo={"p99": "1ms"}))
    baseline_best.add(trial(0, point(p99=0.5), parameters=built.baseline), built)
    text = io.StringIO()
    outcomes = [outcome_of(run, none_holds), outcome_of(run, baseline_best)]
    print_models(Console(file=text, width=100), outcomes, {}, verbose=False)
    assert [" ".join(line.split()) for line in text.getvalue().splitlines()][2:] == [
        "none none no candidate holds p99 <= 1 ms",
        "same none 100/s, p99 0.5 ms not verified",
    ]


def test_very_many_models_take_few_lines_too(run: RunFolder, verified: Study) -> None:
    text = io.StringIO()
    with ConsoleProgress(Console(file=io.StringIO()), Console(file=text, width=80), SLO({"p99": 25.0})) as progress:
        progress.model_ended(outcome_of(run, verified))
        for number in range(40):
            progress.model_failed(f"model{number}", TuningError("it failed: " + 20 * "for a long reason "))
        before = text.getvalue()
        progress.reported(run.report)
    told = text.getvalue()[len(before) :]
    assert lines_of(told, 80) < MOST_LINES
    assert "more models: see the report)" in told


def test_a_rate_that_was_certified_is_part_of_the_answer(run: RunFolder, verified: Study) -> None:
    rate = CertifiedRate(trial=1, load=Concurrency(8), point=point(RequestRate(2310), 2310, 22, kept_up=True))
    verified.certify(rate)
    text = io.StringIO()
    print_outcome(Console(file=text, width=100), outcome_of(run, verified))
    assert "rate:     certified 2,310 requests/s of Poisson arrivals within p99 <= 25 ms\n" in text.getvalue()
