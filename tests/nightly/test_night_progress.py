from __future__ import annotations

from support.builders import point, trial

from tuner.core.slo import SLO
from tuner.nightly.night_progress import NightProgress
from tuner.recommend.recommend import recommend


def test_points_have_lines_where_a_model_is_only_measured() -> None:
    said: list[str] = []
    progress = NightProgress(said.append)
    progress.point_measured(point(2, 180, 12))
    progress.measurement_began("mlp", SLO({"p90": 20.0}))
    progress.point_measured(point(2, 180, 12))
    assert said == ["measuring mlp", "180 inferences/s, p90 9.6 ms at concurrency 2"]


def test_trials_on_several_slots_keep_their_own_words() -> None:
    said: list[str] = []
    progress = NightProgress(said.append)
    progress.trial_began(1, "count 1", "w1/gpu:0")
    progress.trial_began(2, "count 2", "w2/gpu:0")
    for result in (trial(2, point(2, 180, 12)), trial(1, point(2, 150, 12))):
        progress.trial_ended(result, recommend((result,), SLO({"p99": 25.0})))
    progress.trial_dropped(3, "lost twice")
    assert said == [
        "trial 2 on w2/gpu:0: count 2: 180 inferences/s, p99 12 ms at concurrency 2 (6s)",
        "trial 1 on w1/gpu:0: count 1: 150 inferences/s, p99 12 ms at concurrency 2 (6s)",
        "trial 3 does not count: lost twice",
    ]
