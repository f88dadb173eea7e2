"""What `tritontune run --json` prints: the result of a run for machines."""

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
    """The document, schema 1: `models` holds for each model the contents of its `front.json`, and paths.

    A model that failed after it had measured something is in both `models` and `failures`.

    Args:
        folder: Of the run.
        outcomes: Of the models whose tuning ended.
        failures: Why models failed, by name.
        report: Path of the report; None: it was not written.
        error: What ended the run early, or why it did not succeed.
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
