"""The output of `tritontune run --json`: the result of a run for machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tuner.core.errors import TritontuneError
from tuner.jobs.progress import ModelOutcome
from tuner.results.result_files import BEST_CONFIG, FRONT, front_json
from tuner.study.run_folder import RunFolder


def run_json(
    folder: RunFolder,
    outcomes: Sequence[ModelOutcome],
    failures: Mapping[str, TritontuneError],
    report: Path | None,
    error: TritontuneError | None = None,
) -> dict[str, Any]:
    """The document, schema 1. `models` has the contents of `front.json` and the paths of each model.

    A model that failed after it had measured something is in both `models` and `failures`.

    Args:
        folder: The run folder.
        outcomes: Outcomes of the models whose tuning ended.
        failures: Errors of the models that failed, by name.
        report: Path of the report; None: it was not written.
        error: The error that ended the run early or made it fail; None: there is none.
    """
    return {
        "schema": 1,
        "run": str(folder.path),
        "report": report and str(report),
        "models": {outcome.model: _model_json(outcome) for outcome in outcomes},
        "failures": {
            model: {"error": str(failure), "exit_code": failure.exit_code} for model, failure in failures.items()
        },
        "error": error and str(error),
    }


def _model_json(outcome: ModelOutcome) -> dict[str, Any]:
    path = outcome.folder.model(outcome.model)
    return {
        "ended": outcome.ended,
        "front_json": str(path / FRONT),
        "best_config": str(path / BEST_CONFIG) if outcome.recommendation.best else None,
        "result": front_json(outcome.study, outcome.recommendation),
    }
