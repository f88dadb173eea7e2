"""Launches configs of a model for a night's own measurements, apart from any study."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from tuner.config.repository import ModelFolder
from tuner.core import deadlines
from tuner.core.loads import Concurrency
from tuner.jobs.model_tuning import RunContext, trial_context_of
from tuner.measure.rules import LevelRules
from tuner.measure.trial import Limits, relaunch
from tuner.nightly.comparison import PairedLaunch

# Seconds of a measurement, as for the finalists of a run.
_RULES = LevelRules(min_s=1.5, max_s=3.0)
# A candidate gets more time if its requests are too few to show that it holds the SLO.
_CANDIDATE_RULES = LevelRules(min_s=1.5, max_s=6.0)


class Launches:
    """Launches one model repeatedly.

    Args:
        context: The context of the run.
        model: The model.
        folder: The folder for the logs of the servers.
    """

    def __init__(self, context: RunContext, model: ModelFolder, folder: Path) -> None:
        self._deployed, self._candidate = (
            trial_context_of(context, model.name, rules) for rules in (_RULES, _CANDIDATE_RULES)
        )
        self._folder = folder
        self._launch_s = context.job.launch_timeout or deadlines.first_launch_s(model.size_bytes())

    def launch(self, config: str, loads: Sequence[Concurrency], name: str, *, candidate: bool = False) -> PairedLaunch:
        """Launch a config once, and measure it under each load.

        Args:
            config: The text of the config; empty: the model has none.
            loads: The loads, in the order in which they are measured.
            name: The name of the folder for the server's log.
            candidate: Whether it is a candidate, which gets more time for the test of the SLO.

        Raises:
            ServerError: the server failed.
        """
        limits = Limits(launch_s=self._launch_s, first_answer_s=deadlines.FIRST_ANSWER_S, until=time.monotonic())
        trial_context = self._candidate if candidate else self._deployed
        with relaunch(trial_context, config, self._folder / name, limits=limits, candidate=candidate) as session:
            return PairedLaunch(points=tuple(session.measure(load) for load in loads))
