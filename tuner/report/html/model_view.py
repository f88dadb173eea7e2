"""The data of one model's part of the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tuner.report.html.cost_plots import memory_plot, time_plot
from tuner.report.html.front_plot import front_plot
from tuner.report.html.hosts_table import HostRow, hosts_table
from tuner.report.html.load_plots import load_plots
from tuner.report.html.method import Detail, how_it_was_measured
from tuner.report.html.plots import Plot
from tuner.report.html.search_plots import importance_plot, progress_plot
from tuner.report.html.summary import Summary, summary
from tuner.report.html.trial_views import TrialView, trial_views
from tuner.report.html.trials_table import TrialsTable, trials_table
from tuner.study.run_folder import RunFolder
from tuner.study.study import Study


@dataclass(frozen=True)
class ModelView:
    """One model's part of the page.

    Attributes:
        name: Name of the model.
        percentile: The SLO's latency percentile.
        ended: Why its run ended; None: it is running, was killed, or an early version did not store it.
        stores_end: Whether the study's version of tritontune stores why a run ended.
        answer: The summary on top.
        front: The main plot.
        load: Plots of throughput and latency against the load.
        time: Plot of the parts of a request's time.
        search: Plots of the search's progress and of parameter importance.
        memory: Plot of GPU memory; None: no GPU was in use.
        candidates: All trials.
        table: The table of all trials.
        hosts: The hosts; empty: the run had only one.
        measured: The section on how it was measured.
        selected: The trial selected at first; None: there is no trial.
    """

    name: str
    percentile: str
    ended: str | None
    stores_end: bool
    answer: Summary
    front: Plot
    load: tuple[Plot, ...]
    time: Plot
    search: tuple[Plot, ...]
    memory: Plot | None
    candidates: tuple[TrialView, ...]
    table: TrialsTable
    hosts: tuple[HostRow, ...]
    measured: tuple[Detail, ...]
    selected: int | None

    @property
    def failed(self) -> tuple[TrialView, ...]:
        """The failed trials."""
        return tuple(view for view in self.candidates if view.trial.failure)

    @property
    def plots(self) -> tuple[Plot, ...]:
        """All plots with data."""
        every = (self.front, *self.load, self.time, *self.search, *([self.memory] if self.memory else []))
        return tuple(plot for plot in every if not plot.missing)

    @property
    def data(self) -> dict[str, Any]:
        """The data for the page's scripts."""
        return {
            "percentile": self.percentile,
            "selected": self.selected,
            "plots": {plot.key: plot.figure for plot in self.plots},
            "candidates": [candidate.data for candidate in self.candidates],
        }


def model_view(run: RunFolder, study: Study) -> ModelView:
    """Make the view of a study."""
    recommendation = study.recommendation
    every = trial_views(study, recommendation)
    first = recommendation.best.trial.number if recommendation.best else 0
    return ModelView(
        name=study.identity.model,
        percentile=recommendation.percentile,
        ended=study.ended,
        stores_end=bool(study.runs),
        answer=summary(run, study, recommendation),
        front=front_plot(every, recommendation),
        load=load_plots(every, recommendation),
        time=time_plot(every, recommendation),
        search=(progress_plot(study, every), importance_plot(study)),
        memory=memory_plot(every, recommendation),
        candidates=every,
        table=trials_table(every, recommendation),
        hosts=hosts_table(study),
        measured=how_it_was_measured(study),
        selected=first if every else None,
    )
