from __future__ import annotations

from pathlib import Path

import pytest
from support.builders import identity, point, space, trial

from tuner.core.loads import Concurrency
from tuner.recommend.verification import Verification
from tuner.stats.slo_verdict import SLOTest
from tuner.study.run_folder import RunFolder
from tuner.study.study import Study

CONFIG = """\
# Ours, since 2019.
backend: "python"   # numpy
max_batch_size: 32  # as the client asks
input [ { name: "X" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [ { name: "Y" data_type: TYPE_FP32 dims: [ 4 ] } ]
# One per socket.
instance_group [ { kind: KIND_CPU count: 1 } ]
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A model `mlp` with a version, a link, and what does not belong to it."""
    path = tmp_path / "models"
    version = path / "mlp/1"
    version.mkdir(parents=True)
    (path / "mlp/config.pbtxt").write_text(CONFIG)
    (path / "mlp/config.pbtxt.bak-20260101-000000").write_text("old")
    (tmp_path / "weights.bin").write_bytes(b"weights")
    (version / "weights.bin").symlink_to(tmp_path / "weights.bin")
    (version / "model.py").write_text("pass\n")
    (version / "__pycache__").mkdir()
    return path


@pytest.fixture
def study(repository: Path, tmp_path: Path) -> Study:
    """Its study under p99 <= 25 ms: the baseline, and a better one, both verified."""
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    built = space(config=CONFIG)
    study = Study.create_or_resume(run.database, identity(repository=str(repository), config=CONFIG))
    better = built.normalize({"dynamic_batching": "on", "instance_group.count": 2})
    study.add(trial(0, point(1, 100, 2), point(2, 110, 20), parameters=built.baseline, config=CONFIG), built)
    config = built.candidate(better).config.text
    study.add(
        trial(1, point(1, 90, 12), point(8, 400, 20), point(16, 500, 40), parameters=better, config=config), built
    )
    test = SLOTest(percentile="p99", limit_ms=25.0, requests=5_000, over=1, design_effect=2.0)
    for number, load, rate in ((0, 2, 100), (1, 8, 390)):
        rounds = tuple(point(load, rate + n, 20).model_copy(update={"limits": (test,)}) for n in range(3))
        study.add_verified([Verification(trial=number, load=Concurrency(load), rounds=rounds, numbers=(1, 2, 3))])
    return study
