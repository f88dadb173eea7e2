from __future__ import annotations

from support.builders import point

from tuner.core.slo import SLO
from tuner.nightly.night_progress import NightProgress


def test_points_have_lines_where_a_model_is_only_measured() -> None:
    said: list[str] = []
    progress = NightProgress(said.append)
    progress.point_measured(point(2, 180, 12))
    progress.measurement_began("mlp", SLO({"p90": 20.0}))
    progress.point_measured(point(2, 180, 12))
    assert said == ["measuring mlp", "180 inferences/s, p90 9.6 ms at concurrency 2"]
