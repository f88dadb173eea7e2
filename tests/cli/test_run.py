from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.builders import identity, point, space, trial

import tuner.api
from tuner.cli.run import run
from tuner.core.errors import InterruptedRunError, SLOError, TritontuneError, TuningError
from tuner.jobs.progress import ModelOutcome, Progress
from tuner.jobs.tuning import RunResult
from tuner.options.tune_job import TuneJob
from tuner.results.result_files import write_results
from tuner.study.run_folder import RunFolder
from tuner.study.study import Study

Tune = Callable[[RunFolder, Progress], RunResult]


def _tuned(out: RunFolder, progress: Progress, model: str, p99: float = 10.0) -> ModelOutcome:
    """Tune a model to its end: the baseline, with that p99 in ms, and a candidate of three times its throughput."""
    out.path.mkdir(exist_ok=True)
    built = space()
    study = Study.create_or_resume(out.database, identity(model=model, slo={"p99": "25ms"}))
    progress.model_began(model, study=study, budget_s=60.0)
    study.add(trial(0, point(1, 100, p99), parameters=built.baseline), built)
    better = built.normalize({"instance_group.count": 2})
    study.add(trial(1, point(2, 300, p99), parameters=better, config=built.candidate(better).config.text), built)
    outcome = ModelOutcome(out, model, study, write_results(out, study), "the budget is spent")
    progress.model_ended(outcome)
    return outcome


def _all(out: RunFolder, progress: Progress) -> RunResult:
    outcomes = (_tuned(out, progress, "mlp"), _tuned(out, progress, "cnn"))
    progress.reported(out.report)
    return RunResult(out, outcomes, {})


def _one_fails(out: RunFolder, progress: Progress) -> RunResult:
    outcome, error = _tuned(out, progress, "mlp"), TuningError("model 'cnn': no weights here")
    progress.model_failed("cnn", error)
    progress.reported(out.report)
    return RunResult(out, (outcome,), {"cnn": error})


def _the_only_one_fails(out: RunFolder, progress: Progress) -> RunResult:
    del out
    error = TuningError("model 'mlp': no weights here")
    progress.model_failed("mlp", error)
    raise error


def _none_holds(out: RunFolder, progress: Progress) -> RunResult:
    outcome = _tuned(out, progress, "mlp", p99=30.0)
    progress.reported(out.report)
    return RunResult(out, (outcome,), {})


def _interrupted(out: RunFolder, progress: Progress) -> RunResult:
    _tuned(out, progress, "mlp")
    progress.reported(out.report)
    raise InterruptedRunError("interrupted")


def _never_began(out: RunFolder, progress: Progress) -> RunResult:
    del out, progress
    raise TuningError("no Triton works here")


@pytest.fixture
def run_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs the command with some way to tune; gives its exit code, its stdout, and its stderr."""
    repository = tmp_path / "models"
    (repository / "mlp/1").mkdir(parents=True)

    def run_with(how: Tune, **options: Any) -> tuple[int, str, str]:
        def tune(job: TuneJob, *, out: RunFolder, resume: bool, progress: Progress) -> RunResult:
            del job, resume
            return how(out, progress)

        monkeypatch.setattr(tuner.api, "tune", tune)
        code = 0
        try:
            run(None, {"repository": str(repository), "slo": ("p99=25ms",)}, tmp_path / "run", resume=False, **options)
        except TritontuneError as error:
            code = error.exit_code
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return run_with


def test_json_is_all_of_stdout(run_with: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    code, stdout, stderr = run_with(_all, as_json=True)
    told, out = json.loads(stdout), tmp_path / "run"
    assert code == 0
    assert (told["schema"], told["run"], told["report"]) == (1, str(out), str(out / "report.html"))
    assert (told["failures"], told["error"]) == ({}, None)
    assert list(told["models"]) == ["mlp", "cnn"]
    for name, model in told["models"].items():
        assert model["result"] == json.loads(Path(model["front_json"]).read_text())
        assert model["front_json"] == str(out / name / "front.json")
        assert model["best_config"] == str(out / name / "best/config.pbtxt")
        assert Path(model["best_config"]).is_file()
        assert model["ended"] == "the budget is spent"
    assert "tuning mlp: " in stderr
    assert "gain: " in stderr


def test_json_names_the_models_that_failed(run_with: Callable[..., tuple[int, str, str]]) -> None:
    code, stdout, _ = run_with(_one_fails, as_json=True)
    told = json.loads(stdout)
    assert code == TuningError.exit_code
    assert list(told["models"]) == ["mlp"]
    assert told["failures"] == {"cnn": {"error": "model 'cnn': no weights here", "exit_code": 1}}


def test_json_of_a_run_whose_only_model_failed(run_with: Callable[..., tuple[int, str, str]]) -> None:
    code, stdout, _ = run_with(_the_only_one_fails, as_json=True)
    told = json.loads(stdout)
    assert code == TuningError.exit_code
    assert (told["models"], told["report"]) == ({}, None)
    assert told["failures"]["mlp"]["error"] == told["error"] == "model 'mlp': no weights here"


def test_json_of_a_run_without_a_best(run_with: Callable[..., tuple[int, str, str]]) -> None:
    code, stdout, _ = run_with(_none_holds, as_json=True)
    told = json.loads(stdout)
    assert code == SLOError.exit_code
    assert (told["models"]["mlp"]["best_config"], told["models"]["mlp"]["result"]["best"]) == (None, None)
    assert told["error"] == "no candidate of mlp holds p99 <= 25 ms"


def test_json_of_a_run_that_was_interrupted(run_with: Callable[..., tuple[int, str, str]]) -> None:
    code, stdout, _ = run_with(_interrupted, as_json=True)
    told = json.loads(stdout)
    assert code == InterruptedRunError.exit_code
    assert told["error"] == "interrupted"
    assert told["models"]["mlp"]["result"]["best"]["trial"] == 1


def test_json_of_a_run_that_never_began_is_none(run_with: Callable[..., tuple[int, str, str]]) -> None:
    assert run_with(_never_began, as_json=True)[:2] == (TuningError.exit_code, "")


def test_without_json_the_result_is_on_stdout(run_with: Callable[..., tuple[int, str, str]]) -> None:
    code, stdout, stderr = run_with(_none_holds)
    assert code == SLOError.exit_code
    assert "no candidate holds p99 <= 25 ms" in stdout
    assert "tuning mlp: " in stderr


def test_verbose_prints_the_rest(run_with: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    brief = run_with(_all)[1]
    (tmp_path / "run/study.db").unlink()
    assert "trial 1 at concurrency 2: batches of 2.0 on average" not in brief
    assert "trial 1 at concurrency 2: batches of 2.0 on average" in run_with(_all, verbose=True)[1]
