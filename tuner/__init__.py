"""Finds the config.pbtxt with which Triton serves a model best.

Python can call the tuning of the command line:

    from tuner import TuneJob, tune

    result = tune(TuneJob(repository="model_repository", slo={"p99": "25ms"}))
    print(result.outcomes[0].recommendation.best)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuner.api import tune
    from tuner.jobs.tuning import RunResult
    from tuner.options.tune_job import TuneJob
    from tuner.report.html.page import write_report

__all__ = ["RunResult", "TuneJob", "tune", "write_report"]

_HOMES = {
    "TuneJob": "tuner.options.tune_job",
    "RunResult": "tuner.jobs.tuning",
    "tune": "tuner.api",
    "write_report": "tuner.report.html.page",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that `tritontune --help` does not wait for Optuna."""
    if name not in _HOMES:
        raise AttributeError(f"module 'tuner' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
