"""Everything that the page shows of one model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tuner.recommend.recommend import recommend
from tuner.report.html.cost_plots import memory_plot, time_plot
from tuner.report.html.front_plot import front_plot
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
        name: The model's.
        percentile: The latency that counts.
        ended: Why its run ended; None: it goes on, or was killed, or nobody says.
        known: Whether it would be said why.
        answer: What comes first.
        front: The plot that the page is about.
        load: Throughput and latency against load.
        time: Where a request's time goes.
        search: How it went, and what matters.
        memory: Of GPUs; None: there were none.
        candidates: All trials.
        table: The same as a table.
        measured: How it was measured.
        selected: The trial that is shown first; None: there is none.
    """

    name: str
    percentile: str
    ended: str | None
    known: bool
    answer: Summary
    front: Plot
    load: tuple[Plot, ...]
    time: Plot
    search: tuple[Plot, ...]
    memory: Plot | None
    candidates: tuple[TrialView, ...]
    table: TrialsTable
    measured: tuple[Detail, ...]
    selected: int | None

    @property
    def failed(self) -> tuple[TrialView, ...]:
        """The candidates that failed."""
        return tuple(each for each in self.candidates if each.trial.failure)

    @property
    def plots(self) -> tuple[Plot, ...]:
        """Those that there are."""
        every = (self.front, *self.load, self.time, *self.search, *([self.memory] if self.memory else []))
        return tuple(plot for plot in every if not plot.missing)

    @property
    def data(self) -> dict[str, Any]:
        """What the page's scripts need of it."""
        return {
            "percentile": self.percentile,
            "selected": self.selected,
            "plots": {plot.key: plot.figure for plot in self.plots},
            "candidates": [candidate.data for candidate in self.candidates],
        }


def model_view(run: RunFolder, study: Study) -> ModelView:
    """Look at a study."""
    found = recommend(study.trials, study.identity.slo, study.verified, study.identity.max_gpu_memory)
    every = trial_views(study, found)
    first = found.best.trial.number if found.best else 0
    return ModelView(
        name=study.identity.model,
        percentile=found.slo.percentile,
        ended=study.ended,
        known=bool(study.runs),
        answer=summary(run, study, found),
        front=front_plot(every, found),
        load=load_plots(every, found),
        time=time_plot(every, found),
        search=(progress_plot(study, every), importance_plot(study)),
        memory=memory_plot(every, found),
        candidates=every,
        table=trials_table(every, found),
        measured=how_it_was_measured(study),
        selected=first if every else None,
    )
