"""Caches of engines, which launches share and stored configs do not name."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from support.effective import EFFECTIVE
from support.executors import run_trial

from tuner.config.config import ModelConfig
from tuner.config.patch import Patch
from tuner.config.repository import ModelRepository
from tuner.config.staging import stage
from tuner.core.errors import Cause, ServerError
from tuner.jobs.progress import Progress
from tuner.measure.rules import LevelRules
from tuner.measure.work import UNHEARD, Limits, Loads, TrialContext, TrialTerms, Work, carry_out
from tuner.options.groups import LoadOptions
from tuner.servers.docker.binds import Bind
from tuner.servers.docker.file_transfer import FileTransfer
from tuner.servers.protocols import Launch
from tuner.space.candidate import Candidate

ACCELERATED = (
    EFFECTIVE["onnxruntime gpu"]
    + 'optimization { execution_accelerators { gpu_execution_accelerator [ { name: "tensorrt" } ] } }\n'
)
LIMITS = Limits(launch_s=1.0, first_answer_s=1.0, total_s=0.0)


class Asked:
    """A launcher that remembers what it was asked for, and the config that the server would have read."""

    def __init__(self) -> None:
        self.launches: list[tuple[Launch, str]] = []

    def launch(self, request: Launch) -> None:
        self.launches.append((request, request.config))
        raise ServerError("that is all", cause=Cause.CRASHED)


@pytest.fixture
def context(tmp_path: Path) -> TrialContext:
    (tmp_path / "models" / "m" / "1").mkdir(parents=True)
    (tmp_path / "models" / "m" / "config.pbtxt").write_text(ACCELERATED)
    return TrialContext(
        launcher=Asked(),  # type: ignore[arg-type]  # all that is asked of it here
        repository=stage(ModelRepository.open(tmp_path / "models"), tmp_path / "staged"),
        terms=TrialTerms(model="m", options=LoadOptions(), rules=LevelRules(), max_concurrency=4),
        caches=tmp_path / "caches",
    )


def _asked(context: TrialContext) -> tuple[Launch, str]:
    launches: list[tuple[Launch, str]] = context.launcher.launches  # type: ignore[attr-defined]  # an `Asked`
    return launches[-1]


def test_trials_and_relaunches_share_a_folder_that_is_not_stored(context: TrialContext, tmp_path: Path) -> None:
    candidate = Candidate({}, ModelConfig.parse(ACCELERATED, "c"))
    result = run_trial(context, candidate, 1, tmp_path / "trial", limits=LIMITS, progress=Progress())
    launch, config = _asked(context)
    assert launch.caches == tmp_path / "caches"
    assert launch.caches.is_dir()
    assert f'value: "{tmp_path / "caches"}"' in config
    assert result.config == ACCELERATED
    assert (tmp_path / "trial" / "config.pbtxt").read_text() == ACCELERATED
    work = Work(context.terms, result.patch, Loads(()), LIMITS)
    assert carry_out(work, context, tmp_path / "again", UNHEARD).failure
    assert _asked(context)[1] == config


def test_a_candidate_without_engines_has_none(context: TrialContext, tmp_path: Path) -> None:
    work = Work(context.terms, Patch(config=EFFECTIVE["python"]), Loads(()), LIMITS)
    assert carry_out(work, context, tmp_path / "again", UNHEARD).failure
    launch, config = _asked(context)
    assert (launch.caches, config) == (None, EFFECTIVE["python"])
    assert not (tmp_path / "caches").exists()


def test_containers_that_see_our_files_see_the_folder() -> None:
    mounted = FileTransfer(
        Path("/run/r"), PurePosixPath("/run/r"), (Bind(Path("/run/r"), Path("/run/r")),), copied=False
    )
    folder = Path("/run/caches")
    assert mounted.also_with(folder).mounts[1:] == (Bind(folder, folder, writable=True),)
    copied = FileTransfer(Path("/run/r"), PurePosixPath("/tritontune/run/r"), (), copied=True)
    assert copied.also_with(folder) == copied
