"""`tritontune export --with-warmup`, from a study that needed no Triton."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuner.cli.export import export
from tuner.cli.export_target import Target
from tuner.config.config import ModelConfig
from tuner.config.warmup import WarmUpInput
from tuner.recommend.warm_up import FirstAnswer, WarmUp
from tuner.results.result_files import write_results
from tuner.results.warmed import warmed, why_not_warmed
from tuner.study.run_folder import RunFolder
from tuner.study.study import Study

SHAPE = (WarmUpInput(name="X", data_type="TYPE_FP32", dims=(4,)),)
COLD, WARM = FirstAnswer(launch_s=2.0, answer_s=3.1), FirstAnswer(launch_s=5.2, answer_s=0.012)
OFFER = WarmUp(trial=1, searched_s=3.0, shapes=(SHAPE,), without=COLD, warmed=WARM)
WORDS = "mlp: first answer 3.1 s; 12 ms with a model_warmup, where the launch takes 5.2 s, not 2 s"


@pytest.fixture
def run(study: Study, tmp_path: Path) -> Path:
    """The folder of the run, whose best config is that of trial 1."""
    write_results(RunFolder(tmp_path / "run"), study)
    return tmp_path / "run"


def best(run: Path) -> str:
    return (run / "mlp/best/config.pbtxt").read_text()


def test_it_is_an_offer(study: Study, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study.offer(OFFER)
    export(run, (), (), Target())
    told = capsys.readouterr()
    assert told.out == best(run)
    assert told.err.splitlines()[-1] == f"{WORDS} (export --with-warmup)"


def test_with_it_the_entries_are_added_to_the_best_config(
    study: Study, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study.offer(OFFER)
    export(run, (), (), Target(), with_warmup=True)
    told = capsys.readouterr()
    assert told.out.startswith(best(run))
    entries = ModelConfig.parse(told.out, "it").proto.model_warmup
    assert [entry.batch_size for entry in entries] == [1, 32]
    assert [list(entry.inputs["X"].dims) for entry in entries] == [[4], [4]]
    assert told.err.splitlines()[-1] == WORDS


def test_in_place_it_comes_and_goes(
    study: Study, run: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study.offer(OFFER)
    deployed = repository / "mlp/config.pbtxt"
    for with_warmup in (True, True, False):
        export(run, (), (), Target(in_place=True), with_warmup=with_warmup)
        assert ("model_warmup" in deployed.read_text()) == with_warmup
    assert "unchanged" in capsys.readouterr().err


def test_another_limit_has_another_best_config_and_the_same_requests(
    study: Study, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study.offer(OFFER)
    export(run, (), ("p99=5ms",), Target(), with_warmup=True)
    told = capsys.readouterr()
    # Without dynamic batching, only the batch of a request matters.
    assert [entry.batch_size for entry in ModelConfig.parse(told.out, "it").proto.model_warmup] == [1]
    assert told.err.splitlines()[-1].startswith("mlp: as measured for trial 1: first answer 3.1 s; 12 ms")


def test_where_there_is_nothing_to_save_it_says_so(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export(run, (), (), Target(), with_warmup=True)
    told = capsys.readouterr()
    assert told.out == best(run)
    assert told.err.splitlines()[-1] == "mlp: no model_warmup added: the first answer was not slow, it took 10 ms"


def test_why_the_run_made_no_offer_is_said(study: Study) -> None:
    slow = study.trials[1].model_copy(update={"first_answer_s": 3.0})
    study.offer(WarmUp(trial=1, searched_s=3.0, reason="no time left to measure one"))
    assert warmed(study, slow, slow.config) is None
    assert why_not_warmed(study, slow) == "no model_warmup added: no time left to measure one"
    other = slow.model_copy(update={"number": 2})
    assert "none was measured for this config" in why_not_warmed(study, other)
    with_own = slow.model_copy(update={"effective_config": f"{slow.config}model_warmup {{ batch_size: 1 }}"})
    assert why_not_warmed(study, with_own) == "no model_warmup added: it has a model_warmup of its own"
