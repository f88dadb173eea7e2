from __future__ import annotations

import io
import re

import pytest
from rich.console import Console
from support.builders import identity, point, space, trial

from tuner.cluster.host_changes import HostChange
from tuner.core.errors import Cause
from tuner.core.loads import Concurrency, RequestRate
from tuner.core.slo import SLO
from tuner.jobs.progress import ModelOutcome
from tuner.measure.gpu_view import GpuMemory
from tuner.recommend.certified import CertifiedRate
from tuner.recommend.recommend import recommend
from tuner.recommend.verification import Verification
from tuner.report.console import ConsoleProgress
from tuner.report.html.page import write_report
from tuner.report.slot_lines import SlotLines
from tuner.results.result_files import front_json, write_results
from tuner.stats.slo_verdict import SLOTest
from tuner.study.run_folder import RunFolder
from tuner.study.study import Study


class Screen:
    """Two consoles that write into memory."""

    def __init__(self, *, terminal: bool) -> None:
        self._happening, self._found = io.StringIO(), io.StringIO()
        self.console = Console(file=self._happening, force_terminal=terminal, width=200, color_system=None)
        self.results = Console(file=self._found, width=160, color_system=None)

    @property
    def happening(self) -> str:
        return self._happening.getvalue()

    @property
    def found(self) -> str:
        return self._found.getvalue()


def _play(screen: Screen, run: RunFolder, study: Study, *, verbose: bool = True) -> None:
    """Show a whole run again."""
    slo = study.identity.slo
    with ConsoleProgress(screen.console, screen.results, slo, verbose=verbose) as progress:
        progress.note("a note [with brackets]")
        progress.model_began("mlp", study=study, budget_s=90.0)
        for result in study.trials:
            progress.trial_began(result.number, "candidate")
            progress.note("a note in the middle of a trial")
            progress.level_began(Concurrency(8))
            for each in result.curve:
                progress.point_measured(each)
            progress.trial_ended(result, recommend(study.trials, slo))
        outcome = ModelOutcome(run, "mlp", study, write_results(run, study), "the budget is spent")
        progress.model_ended(outcome)


@pytest.mark.parametrize("terminal", [False, True])
def test_one_line_a_trial_and_then_the_outcome(run: RunFolder, study: Study, *, terminal: bool) -> None:
    screen = Screen(terminal=terminal)
    _play(screen, run, study)
    for line in (
        "a note [with brackets]",
        "tuning mlp: SLO p99 <= 25 ms, budget 1m30s, 3 trials done already",
        "trial 0: candidate: 110 inferences/s, p99 20 ms at concurrency 2 (6s)",
        "trial 1: candidate: 400 inferences/s, p99 20 ms at concurrency 8 (6s)",
        "trial 2: candidate: crashed: it did not work (6s)",
        "mlp: the budget is spent; 3 launches",
    ):
        assert line in screen.happening
    for line in (
        "best:     400 inferences/s, p99 20 ms at concurrency 8 (trial 1)",
        "gain:     3.63 x the baseline's throughput (2.91 to 4.81)",
        "trial 1: dynamic_batching, max_batch_size 64, instance_group.count 2",
        "trial 1 at concurrency 8: batches of 2.0 on average; 9% of a request's time in the queue: ",
        "instance_group.count 2 (was 1) (no trial differs in one of these alone; --explain measures it)",
        "+max_batch_size: 64",
        "deploy:   ",
    ):
        assert line in screen.found


def test_only_a_terminal_sees_what_is_happening_now(run: RunFolder, study: Study) -> None:
    plain, live = Screen(terminal=False), Screen(terminal=True)
    for screen in (plain, live):
        _play(screen, run, study)
    assert "left" in live.happening
    assert "\x1b" in live.happening
    assert "left" not in plain.happening
    assert "\x1b" not in plain.happening


def test_what_is_less_sure_than_it_could_be_says_so(run: RunFolder, study: Study) -> None:
    screen = Screen(terminal=False)
    _play(screen, run, study)
    assert "SLO:      p99 <= 25 ms not verified: the best of 3 single measurements, likely too good\n" in screen.found
    assert "rate:" not in screen.found
    few = SLOTest(percentile="p99", limit_ms=25.0, requests=50, over=0, design_effect=1.0)
    rounds = (point(8, 390, 24).model_copy(update={"limits": (few,)}),) * 3
    study.add_verified([Verification(trial=1, load=Concurrency(8), rounds=rounds, numbers=(1, 2, 3))])
    study.certify(CertifiedRate(trial=1, load=Concurrency(8), reason="no time left", launched=False))
    screen = Screen(terminal=False)
    _play(screen, run, study)
    assert "SLO:      p99 <= 25 ms inconclusive: 3 launches, p99 24 ms (22.7 to 25.4)\n" in screen.found
    assert "rate:     not certified: no time left" in screen.found


def test_what_is_sure_says_no_more(run: RunFolder, verified: Study) -> None:
    rate = CertifiedRate(trial=1, load=Concurrency(8), point=point(RequestRate(2310), 2310, 22, kept_up=True))
    verified.certify(rate)
    screen = Screen(terminal=False)
    _play(screen, run, verified)
    assert "best:     391 inferences/s, p99 20 ms at concurrency 8 (trial 1)\n" in screen.found
    assert "SLO:      p99 <= 25 ms held (99 % confidence): 3 launches, p99 20 ms (18.9 to 21.2)\n" in screen.found
    assert "rate:     certified 2,310 requests/s of Poisson arrivals within p99 <= 25 ms\n" in screen.found


def test_what_looked_better_and_was_not_verified_says_so(run: RunFolder, verified: Study) -> None:
    built = space()
    better = built.normalize({"dynamic_batching": "on", "max_batch_size": 128})
    verified.add(trial(3, point(8, 600, 21), parameters=better), built)
    screen = Screen(terminal=False)
    _play(screen, run, verified)
    assert "note:     trial 3 looked better (600 inferences/s, p99 21 ms at concurrency 8), but it was" in screen.found


def test_it_says_when_nothing_holds(run: RunFolder) -> None:
    study = Study.create_or_resume(run.database, identity(slo={"p99": "1ms"}))
    built = space()
    study.add(trial(0, point(), parameters=built.baseline), built)
    screen = Screen(terminal=False)
    _play(screen, run, study)
    assert "trial 0: candidate: violates p99 <= 1 ms at every load" in screen.happening
    assert ", 1 trial done already\n" in screen.happening
    assert "; 1 launch\n" in screen.happening
    assert "baseline: violates p99 <= 1 ms at every measured load" in screen.found
    assert "no candidate holds p99 <= 1 ms" in screen.found


def test_a_trial_that_fails_some_requests_says_so(run: RunFolder) -> None:
    study = Study.create_or_resume(run.database, identity())
    built = space()
    study.add(trial(0, point(1, 100, 10), parameters=built.baseline), built)
    study.add(trial(1, point(1, 90, 12, errors=3), point(2, 95, 14, errors=5), parameters=built.baseline), built)
    screen = Screen(terminal=False)
    _play(screen, run, study)
    assert "trial 1: candidate: some requests fail at every load: UNAVAILABLE: gone (6s)" in screen.happening


def test_it_says_when_the_config_as_it_is_is_best(run: RunFolder) -> None:
    study = Study.create_or_resume(run.database, identity())
    built = space()
    study.add(trial(0, point(), parameters=built.baseline), built)
    study.add(trial(1, failure=Cause.HUNG, parameters=built.normalize({"instance_group.count": 2})), built)
    screen = Screen(terminal=False)
    _play(screen, run, study)
    assert "gain:     none: no candidate beats the baseline\n" in screen.found


def test_a_trial_that_takes_too_much_memory_of_a_gpu_says_so(run: RunFolder) -> None:
    built = space()
    study = Study.create_or_resume(run.database, identity(max_gpu_memory=8 * 2**30))
    memory = GpuMemory(gpu="GPU 0", peak_bytes=int(9.25 * 2**30))
    for number, more in ((0, {}), (1, {"gpu_memory": memory})):
        study.add(trial(number, point(1, 100, 10), parameters=built.baseline).model_copy(update=more), built)
    screen = Screen(terminal=False)
    _play(screen, run, study)
    assert "trial 1: candidate: took 9.25 GiB of GPU memory, above the limit (6s)" in screen.happening


def test_what_else_is_to_be_known_is_said_at_the_end(run: RunFolder, study: Study) -> None:
    remark = "the values of output 'y' are not compared [1]: give real inputs with --input-data"
    assert study.remark(remark)
    assert not study.remark(remark)
    assert Study.load(run.database, "mlp").remarks == (remark,)
    screen = Screen(terminal=False)
    _play(screen, run, study)
    assert f"note:     {remark}\n" in screen.found
    assert remark in write_report(run).read_text(encoding="utf-8").replace("&#39;", "'")


def test_the_figures_of_a_gain_are_told_where_they_are_not_those_of_the_two_points(
    run: RunFolder, study: Study
) -> None:
    built = space()
    better = built.normalize({"instance_group.count": 3})
    study.add(trial(3, point(1, 300, 4), point(2, 420, 6), point(4, 950, 9), parameters=better), built)
    screen = Screen(terminal=False)
    _play(screen, run, study)
    (gain,) = (line for line in screen.found.splitlines() if line.startswith("gain:"))
    assert gain.endswith(" inferences/s, from curves through all points")
    above, below = gain.split("), ")[1].split(" inferences/s")[0].split(" over ")
    assert float(above) / float(below) == pytest.approx(float(gain.split()[1]), abs=0.02)
    of = front_json(study, study.recommendation)["best"]["gain"]["of"]
    assert (f"{of['best']:.0f}", f"{of['baseline']:.0f}") == (above, below)


def test_the_gain_of_pairs_is_of_the_rounds_side_by_side(run: RunFolder, verified: Study) -> None:
    screen = Screen(terminal=False)
    _play(screen, run, verified)
    assert ", 3 rounds side by side" in screen.found
    found = verified.recommendation
    assert found.gain is not None
    assert found.merits is not None
    assert found.gain.value == pytest.approx(found.merits[0] / found.merits[1])


def test_where_only_the_config_as_it_is_was_measured_no_gain_is_told(run: RunFolder) -> None:
    study, built = Study.create_or_resume(run.database, identity()), space()
    study.add(trial(0, point(1, 100, 10), parameters=built.baseline), built)
    study.end("the budget is spent")
    screen = Screen(terminal=False)
    _play(screen, run, study)
    why = "only the baseline was measured (the budget is spent)"
    assert f"gain:     none: {why}; to try candidates, use --resume with a longer --budget\n" in screen.found
    assert "best of" not in screen.found
    assert "1.00 x" not in screen.found
    assert "no candidate beats" not in screen.found
    assert "1.00 x" not in (run.model("mlp") / "best/config.pbtxt").read_text()


def test_what_is_happening_now_takes_two_lines_however_long_it_is(study: Study) -> None:
    screen = Screen(terminal=True)
    words = f"first of {'very ' * 50}many words, and the last"
    with ConsoleProgress(screen.console, screen.results, SLO()) as progress:
        progress.model_began("mlp", study=study, budget_s=90.0)
        progress.trial_began(0, words)
    assert "mlp, trial 0: first of very very" in screen.happening
    assert "and the last" not in screen.happening


def test_each_busy_slot_has_a_line(study: Study) -> None:
    screen = Screen(terminal=True)
    with ConsoleProgress(screen.console, screen.results, SLO({"p99": 25.0})) as progress:
        progress.model_began("mlp", study=study, budget_s=90.0)
        for number in (3, 4):
            progress.trial_began(number, f"count {number}", f"w{number}/gpu:0")
        progress.launch_began("w10/gpu:0", "round 2 of trial 1")
        progress.level_began(Concurrency(8), trial=4)
        progress.point_measured(point(2, 180, 12), trial=3)
        assert _shown(progress) == [
            "⠋ mlp, 3 launches",
            "  w3/gpu:0   trial 3: 180 inferences/s, p99 12 ms at concurrency 2; count 3",
            "  w4/gpu:0   trial 4: measuring at concurrency 8; count 4",
            "  w10/gpu:0  round 2 of trial 1",
            "  best so far: 400/s, p99 20 ms, 3.63 x (trial 1); 1m12s left",
        ]
        progress.requeued("trial 4", "w4/gpu:0", "its node died", trial=4)
        progress.host_changed(HostChange("w4", "lost", "its node died"))
        progress.trial_began(4, "count 4", "w3/gpu:1")
        progress.launch_ended("w10/gpu:0")
        result = trial(3, point(2, 180, 12))
        progress.trial_ended(result, recommend((*study.trials, result), SLO({"p99": 25.0})))
        assert _shown(progress)[:-1] == ["⠋ mlp, 1 launch", "  w3/gpu:1  trial 4: launching; count 4"]
        progress.trial_dropped(4, "lost twice")
        assert len(_shown(progress)) == 2
    for line in (
        "trial 3 on w3/gpu:0: count 3: 180 inferences/s, p99 12 ms at concurrency 2 (6s)",
        "trial 4 starts again on another host: w4/gpu:0 was lost (its node died)",
        "host w4 was lost: its node died",
        "trial 4 does not count: lost twice",
    ):
        assert line in screen.happening


def _shown(progress: ConsoleProgress) -> list[str]:
    """The live part as it is now."""
    file = io.StringIO()
    Console(file=file, width=120).print(progress._now())
    return [re.sub(r"^. mlp", "⠋ mlp", line.rstrip()) for line in file.getvalue().splitlines()]


def test_more_slots_than_the_terminal_has_lines_are_counted() -> None:
    slots = SlotLines()
    for number in range(20):
        slots.began(f"w/gpu:{number}", "a round")
    assert [line.plain for line in slots.lines(3)] == [
        "  w/gpu:0   a round",
        "  w/gpu:1   a round",
        "  and 18 more slots",
    ]
    assert len(slots.lines(20)) == 20
    slots.end_host("w")
    assert not slots
    assert slots.lines(20) == []
