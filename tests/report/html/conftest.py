from __future__ import annotations

from pathlib import Path

import pytest
from support.studies import long_study

from tuner.report.html.page import write_report
from tuner.study.run_folder import RunFolder


@pytest.fixture(scope="session")
def long_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """150 trials that succeeded, and 20 that did not."""
    run = RunFolder(tmp_path_factory.mktemp("long"))
    long_study(run, 150, failing=20)
    return run


@pytest.fixture(scope="session")
def long_page(long_run: RunFolder) -> Path:
    """Its report."""
    return write_report(long_run)
