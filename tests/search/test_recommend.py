from __future__ import annotations

import math

import pytest
from support.builders import interval, point, trial
from support.nvml import GIB

from tuner.errors import Cause
from tuner.load.loads import Concurrency
from tuner.measure.gpu_view import GpuMemory
from tuner.search.recommend import ratio, recommend
from tuner.slo import SLO
from tuner.trial import TrialResult

LIMIT = SLO.parse(["p99=25ms"])


def test_the_best_has_the_highest_throughput_that_holds_the_slo() -> None:
    found = recommend(
        [trial(0, point(1, 100, 10)), trial(1, point(1, 90, 5), point(8, 300, 24), point(16, 400, 26))], LIMIT
    )
    assert found.best is not None
    assert (found.best.trial.number, found.best.point.load) == (1, Concurrency(8))
    assert found.gain is not None
    assert found.gain.value == pytest.approx(3.0)


def test_points_whose_intervals_overlap_go_by_latency() -> None:
    found = recommend([trial(0, point(16, 300, 10), point(32, 305, 20), point(64, 330, 24.9))], SLO())
    assert found.best is not None
    assert found.best.point.load == Concurrency(64)
    wide = recommend([trial(0, point(16, 300, 10, share=0.1), point(32, 305, 20, share=0.1))], SLO())
    assert wide.best is not None
    assert wide.best.point.load == Concurrency(16)


def test_a_baseline_that_holds_the_slo_at_no_load_gives_no_gain() -> None:
    found = recommend([trial(0, point(1, 100, 50)), trial(1, point(1, 90, 5))], LIMIT)
    assert found.baseline is None
    assert found.gain is None
    assert found.best is not None
    assert found.best.trial.number == 1


def test_what_failed_is_not_recommended_but_a_baseline_is_still_compared_with() -> None:
    baseline = trial(0, point(1, 100, 5), failure=Cause.CRASHED)
    crashed = trial(1, point(1, 900, 5), failure=Cause.HUNG)
    found = recommend([baseline, crashed, trial(2, point(1, 200, 5))], SLO())
    assert found.best is not None
    assert found.best.trial.number == 2
    assert found.gain is not None
    assert found.gain.value == pytest.approx(2.0)


def test_no_best_when_none_holds() -> None:
    found = recommend([trial(0, point(1, 100, 50))], LIMIT)
    assert found.best is None
    assert len(found.front) == 1


def test_the_baseline_can_be_the_best() -> None:
    found = recommend([trial(0, point(1, 100, 5)), trial(1, point(1, 50, 5))], SLO())
    assert found.best == found.baseline
    assert found.gain is not None
    assert found.gain.value == 1.0


def test_what_is_surely_slower_than_the_baseline_is_not_the_best_for_its_latency() -> None:
    """Their intervals overlap, and yet they are surely not the same: 0.91 x, 0.98 at the most."""
    found = recommend([trial(0, point(16, 100, 20, share=0.05)), trial(1, point(8, 91, 10, share=0.055))], SLO())
    assert found.best == found.baseline
    assert found.gain is not None
    assert found.gain.value == 1.0


def test_a_ratios_interval_holds_both_uncertainties() -> None:
    gain = ratio(interval(300, 0.03), interval(100, 0.04))
    assert gain.value == pytest.approx(3.0)
    assert math.log(gain.high / gain.value) == pytest.approx(0.05)
    assert gain.low < gain.value < gain.high


def test_what_takes_too_much_memory_of_a_gpu_is_neither_best_nor_on_the_front() -> None:
    def taking(number: int, rate: float, taken: int) -> TrialResult:
        memory = GpuMemory(gpu="GPU 0", peak_bytes=taken * GIB)
        return trial(number, point(8, rate, 5)).model_copy(update={"gpu_memory": memory})

    trials = [taking(0, 100, 2), taking(1, 400, 9), taking(2, 200, 8)]
    found = recommend(trials, SLO(), (), 8 * GIB)
    assert found.best is not None
    assert found.best.trial.number == 2
    assert [each.trial.number for each in found.front] == [2]
    unlimited = recommend(trials, SLO())
    assert unlimited.best is not None
    assert unlimited.best.trial.number == 1
    # The gain is against the config as it is, whatever that takes.
    over = recommend([taking(0, 100, 9), taking(1, 400, 2)], SLO(), (), 8 * GIB)
    assert over.gain is not None
    assert over.gain.value == pytest.approx(4)
