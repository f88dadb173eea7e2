"""Shows a run on the terminal: a line for each trial, a live part on a real terminal, and the result at the end."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.spinner import Spinner
from rich.text import Text
from typing_extensions import Self

from tuner.cluster.host_changes import HostChange
from tuner.core.errors import TritontuneError, shortened
from tuner.core.loads import Load
from tuner.core.objectives import THROUGHPUT
from tuner.core.quantities import format_duration, format_size
from tuner.core.slo import SLO
from tuner.jobs.progress import ModelOutcome, Progress
from tuner.measure.points import OperatingPoint
from tuner.measure.trial import TrialResult
from tuner.recommend.front import excess_memory
from tuner.recommend.recommend import Recommendation, recommend
from tuner.report.end_of_run import print_models, print_outcome
from tuner.report.pull_bar import PullBar
from tuner.report.slot_lines import SlotLines
from tuner.results.words import latency, missed_everywhere, point_in_words, rate
from tuner.servers.docker.pull import Pull
from tuner.study.study import Study

# Lines of the terminal that the lines of slots leave free: the first and the last one, and room for what was before.
_MARGIN_LINES = 4


class ConsoleProgress(Progress):
    """Shows a run on a console. Use it as a context manager, which restores the terminal.

    Args:
        console: For progress; plain lines when it is no terminal.
        results: For the result.
        slo: The SLO of the job.
        verbose: Print the whole result, not only its most important lines.

    Attributes:
        outcomes: Outcomes of the models whose tuning ended, in order.
        failures: Errors of the models that failed, by name.
        report: Path of the report; None: it was not written.
    """

    def __init__(self, console: Console, results: Console, slo: SLO, *, verbose: bool = False) -> None:
        self.outcomes: list[ModelOutcome] = []
        self.failures: dict[str, TritontuneError] = {}
        self.report: Path | None = None
        self._console = console
        self._results = results
        self._slo = slo
        self._verbose = verbose
        self._max_gpu_memory: int | None = None
        self._objective = THROUGHPUT
        self._pull_bar = PullBar(console)
        self._spinner = Spinner("dots")
        self._model = ""
        self._ends = 0.0
        self._doing = self._last_point = ""
        self._trials: dict[int, str] = {}
        self._slots = SlotLines()
        self._best = ""
        self._live = Live(get_renderable=self._now, console=console, transient=True, refresh_per_second=4)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pull_bar.stop()
        self._live.stop()

    def note(self, text: str) -> None:
        """See `Progress`."""
        self._line(f"[dim]{escape(shortened(text))}[/]")
        self._doing, self._last_point = text, ""

    def pulling(self, pull: Pull) -> None:
        """See `Progress`."""
        self._pull_bar.see(pull)

    def model_began(self, model: str, *, study: Study, budget_s: float) -> None:
        """See `Progress`."""
        self._model, self._best = model, ""
        self._slots.clear()
        self._max_gpu_memory, self._objective = study.identity.max_gpu_memory, study.identity.objective
        self._ends = time.monotonic() + budget_s - study.spent_s
        limit = f"SLO {self._slo}" if self._slo.root else "no SLO"
        aim = "" if self._objective == THROUGHPUT else f"{self._objective}, "
        done = f", {_count(len(study.trials), 'trial')} done already" if study.trials else ""
        self._line(f"tuning [bold]{escape(model)}[/]: {aim}{limit}, budget {format_duration(budget_s)}{done}")
        if study.trials:
            self._stand(study.recommendation)
        if self._console.is_terminal:
            self._live.start()

    def trial_began(self, number: int, words: str, slot: str = "") -> None:
        """See `Progress`."""
        self._trials[number] = f"trial {number}{f' on {slot}' if slot else ''}: {words}"
        if slot:
            self._slots.began_trial(slot, number, words)
        else:
            self._doing, self._last_point = self._trials[number], "launching"

    def level_began(self, load: Load, *, trial: int | None = None) -> None:
        """See `Progress`."""
        self._now_of(trial, f"measuring at {load}")

    def point_measured(self, point: OperatingPoint, *, trial: int | None = None) -> None:
        """See `Progress`."""
        percentile = self._objective.percentile_for(self._slo)
        self._now_of(trial, point_in_words(point, percentile, self._objective))

    def _now_of(self, trial: int | None, text: str) -> None:
        if not self._slots.tell(trial, text):
            self._last_point = text

    def trial_dropped(self, number: int, reason: str) -> None:
        """See `Progress`."""
        self._slots.end_trial(number)
        self._trials.pop(number, None)
        super().trial_dropped(number, reason)

    def launch_began(self, slot: str, words: str) -> None:
        """See `Progress`."""
        self._slots.began(slot, words)

    def launch_ended(self, slot: str) -> None:
        """See `Progress`."""
        self._slots.end(slot)

    def requeued(self, work: str, slot: str, reason: str, *, trial: int | None = None) -> None:
        """See `Progress`."""
        self._slots.end(slot)
        super().requeued(work, slot, reason, trial=trial)

    def host_changed(self, change: HostChange) -> None:
        """See `Progress`."""
        if change.event == "lost":
            self._slots.end_host(change.host)
        self._line(f"[dim]{escape(shortened(str(change)))}[/]")

    def trial_ended(self, result: TrialResult, recommendation: Recommendation) -> None:
        """See `Progress`."""
        self._slots.end_trial(result.number)
        own = recommend((result,), self._slo, objective=self._objective).best
        if result.failure:
            text = f"[red]{result.failure.cause.value}[/]: {escape(shortened(result.failure.message))}"
        elif result.gpu_memory and excess_memory(result, self._max_gpu_memory) > 0:
            text = f"[red]took {format_size(result.gpu_memory.peak_bytes)} of GPU memory[/], above the limit"
        elif own:
            text = point_in_words(own.point, recommendation.percentile, self._objective)
        elif result.curve and all(point.errors for point in result.curve):
            text = f"[red]some requests fail at every load[/]: {escape(shortened(result.curve[0].error or ''))}"
        else:
            text = missed_everywhere(self._slo, self._objective)
        trial = self._trials.pop(result.number, f"trial {result.number}")
        self._line(f"{escape(trial)}: {text} [dim]({format_duration(result.wall_s)})[/]")
        self._stand(recommendation)

    def model_ended(self, outcome: ModelOutcome) -> None:
        """See `Progress`."""
        self._live.stop()
        launches = _count(outcome.study.launches, "launch", "launches")
        self._line(f"{escape(outcome.model)}: {outcome.ended}; {launches}")
        self.outcomes.append(outcome)
        print_outcome(self._results, outcome, verbose=self._verbose)

    def model_failed(self, model: str, error: TritontuneError) -> None:
        """See `Progress`."""
        self.failures[model] = error

    def reported(self, path: Path) -> None:
        """See `Progress`."""
        self.report = path
        tuned = [outcome for outcome in self.outcomes if outcome.model not in self.failures]
        if len(tuned) + len(self.failures) > 1:
            print_models(self._results, tuned, self.failures, verbose=self._verbose)
        self._results.print(f"report:   {path}", highlight=False, markup=False, soft_wrap=True)

    def _stand(self, recommendation: Recommendation) -> None:
        if recommendation.best:
            point = recommendation.best.point
            percentile = recommendation.percentile
            at = latency(recommendation.best.latency_ms(percentile))
            gain = f", {recommendation.gain.value:.2f} x" if recommendation.gain else ""
            trial = recommendation.best.trial.number
            self._best = f"best so far: {rate(point.throughput.value)}/s, {percentile} {at}{gain} (trial {trial})"

    def _line(self, markup: str) -> None:
        self._console.print(markup, soft_wrap=True, highlight=False)

    def _now(self) -> Group:
        left = format_duration(max(1.0, self._ends - time.monotonic()))
        slots = self._slots.lines(self._console.height - _MARGIN_LINES)
        now = _count(len(self._slots), "launch", "launches") if slots else self._doing
        doing = Text(f"{self._model}, {now}" if now else self._model)
        # The spinner takes two columns, and wraps a text that is too long for the rest.
        doing.truncate(self._console.width - 2, overflow="ellipsis")
        self._spinner.update(text=doing)
        last = "" if slots else self._last_point
        below = "; ".join(part for part in (last, self._best, f"{left} left") if part)
        return Group(self._spinner, *slots, Text(f"  {below}", style="dim", overflow="ellipsis", no_wrap=True))


def _count(number: int, one: str, more: str = "") -> str:
    return f"{number} {one if number == 1 else more or one + 's'}"
