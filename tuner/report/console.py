"""A run on the terminal: one line a trial, and below them, on a real terminal, what is happening now."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.spinner import Spinner
from rich.syntax import Syntax
from rich.text import Text
from typing_extensions import Self

from tuner.analysis.effects import field_effects
from tuner.core.errors import shortened
from tuner.core.loads import Load
from tuner.core.quantities import format_duration, format_size
from tuner.core.slo import SLO
from tuner.jobs.progress import ModelOutcome, Progress
from tuner.measure.points import OperatingPoint
from tuner.measure.trial import TrialResult
from tuner.recommend.front import TrialPoint, excess_memory
from tuner.recommend.recommend import Recommendation, is_certain, recommend
from tuner.report.front_table import front_legend, front_reasons, front_table
from tuner.report.pull_bar import PullBar
from tuner.results.files import BEST_CONFIG, config_diff
from tuner.results.picked import not_chosen_in_words
from tuner.results.why import effect_in_words
from tuner.results.words import (
    certified_in_words,
    gain_in_words,
    gain_rests_on,
    how_sure,
    latency,
    no_candidate_in_words,
    point_in_words,
    rate,
    what_is_asked,
    what_is_missed,
    when_missed,
)
from tuner.servers.docker.pull import Pull
from tuner.study.study import Study


class ConsoleProgress(Progress):
    """Shows a run on a console. Use it as a context manager, so that the terminal is given back as it was.

    Args:
        console: For what happens; plain lines when it is no terminal.
        results: For what was found.
        slo: Of the job.
    """

    def __init__(self, console: Console, results: Console, slo: SLO) -> None:
        self._console = console
        self._results = results
        self._slo = slo
        self._max_gpu_memory: int | None = None
        self._pull_bar = PullBar(console)
        self._spinner = Spinner("dots")
        self._model = ""
        self._ends = 0.0
        self._doing = self._trial = ""
        self._last_point = ""
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
        self._max_gpu_memory = study.identity.max_gpu_memory
        self._ends = time.monotonic() + budget_s - study.spent_s
        limit = f"SLO {self._slo}" if self._slo.root else "no SLO"
        done = f", {_count(len(study.trials), 'trial')} done already" if study.trials else ""
        self._line(f"tuning [bold]{escape(model)}[/]: {limit}, budget {format_duration(budget_s)}{done}")
        if study.trials:
            self._stand(study.recommendation)
        if self._console.is_terminal:
            self._live.start()

    def trial_began(self, number: int, words: str) -> None:
        """See `Progress`."""
        self._doing = self._trial = f"trial {number}: {words}"
        self._last_point = "launching"

    def level_began(self, load: Load) -> None:
        """See `Progress`."""
        self._last_point = f"measuring at {load}"

    def point_measured(self, point: OperatingPoint) -> None:
        """See `Progress`."""
        self._last_point = point_in_words(point, self._slo.percentile)

    def trial_ended(self, result: TrialResult, standing: Recommendation) -> None:
        """See `Progress`."""
        own = recommend((result,), self._slo).best
        if result.failure:
            told = f"[red]{result.failure.cause.value}[/]: {escape(shortened(result.failure.message))}"
        elif result.gpu_memory and excess_memory(result, self._max_gpu_memory) > 0:
            told = f"[red]took {format_size(result.gpu_memory.peak_bytes)} of GPU memory[/], above the limit"
        elif own:
            told = point_in_words(own.point, self._slo.percentile)
        elif result.curve and all(point.errors for point in result.curve):
            told = f"[red]some requests fail at every load[/]: {escape(shortened(result.curve[0].error or ''))}"
        else:
            told = f"{what_is_missed(self._slo)} at every load"
        self._line(f"{escape(self._trial)}: {told} [dim]({format_duration(result.wall_s)})[/]")
        self._stand(standing)

    def model_ended(self, outcome: ModelOutcome) -> None:
        """See `Progress`."""
        self._live.stop()
        launches = _count(outcome.study.launches, "launch", "launches")
        self._line(f"{escape(outcome.model)}: {outcome.ended}; {launches}")
        print_outcome(self._results, outcome)

    def reported(self, path: Path) -> None:
        """See `Progress`."""
        self._results.print(f"report:   {path}", highlight=False, markup=False, soft_wrap=True)

    def _stand(self, standing: Recommendation) -> None:
        if standing.best:
            point = standing.best.point
            at = latency(standing.best.latency_ms(self._slo.percentile))
            gain = f", {standing.gain.value:.2f} x" if standing.gain else ""
            trial = standing.best.trial.number
            self._best = (
                f"best so far: {rate(point.throughput.value)}/s, {self._slo.percentile} {at}{gain} (trial {trial})"
            )

    def _line(self, markup: str) -> None:
        self._console.print(markup, soft_wrap=True, highlight=False)

    def _now(self) -> Group:
        left = format_duration(max(1.0, self._ends - time.monotonic()))
        self._spinner.update(text=Text(f"{self._model}, {self._doing}", overflow="ellipsis", no_wrap=True))
        below = "; ".join(part for part in (self._last_point, self._best, f"{left} left") if part)
        return Group(self._spinner, Text(f"  {below}", style="dim", overflow="ellipsis", no_wrap=True))


def print_outcome(console: Console, outcome: ModelOutcome) -> None:
    """What the tuning of a model found: the front, the gain, the diff, and where all of it lies."""
    found, slo = outcome.recommendation, outcome.recommendation.slo
    front = f"front of {slo.percentile} latency against throughput"
    console.print(f"\n[bold]{escape(outcome.model)}[/]: {front}", highlight=False)
    console.print(front_table(found))
    for block in (front_legend(found, outcome.study.trials[0].parameters), front_reasons(found)):
        if block:
            console.print(block, end="\n\n", highlight=False, markup=False, soft_wrap=True)
    if found.baseline:
        baseline = f"baseline: {point_in_words(found.baseline.point, slo.percentile)}"
        once = " [yellow](launched once)[/]" if outcome.study.verified and not found.baseline.verified else ""
        console.print(f"{baseline}{once}", highlight=False, soft_wrap=True)
        if failure := found.baseline.trial.failure:
            console.print(
                f"          not recommended: it failed at another load ({failure.cause.value})", highlight=False
            )
    else:
        when = when_missed(outcome.study.trials[0], slo, outcome.study.verified)
        console.print(f"baseline: {what_is_missed(slo)} {when}", highlight=False, soft_wrap=True)
    _print_remarks(console, outcome.study)
    if not found.best:
        console.print(f"[red]no candidate {what_is_asked(slo)}[/]", highlight=False)
        return
    best = f"best:     {point_in_words(found.best.point, slo.percentile)}"
    console.print(f"{best}{_caveat(found.best, slo, outcome.study)}", highlight=False, soft_wrap=True)
    _print_gain(console, outcome.study, found)
    _print_not_chosen(console, outcome.study)
    if effects := field_effects(outcome.study, found.best):
        lines = [f"  {effect_in_words(effect, slo)}" for effect in effects]
        console.print("changes:", *lines, sep="\n", highlight=False, markup=False, soft_wrap=True)
    if certified := outcome.study.certified:
        console.print(f"rate:     {escape(certified_in_words(certified, slo))}", highlight=False, soft_wrap=True)
    if diff := config_diff(outcome.study, found.best):
        console.print(Syntax(diff, "diff", theme="ansi_dark", background_color="default"))
    elif not no_candidate_in_words(outcome.study):
        console.print("No candidate beats the config as it is.")
    deploy = outcome.folder.model(outcome.model) / BEST_CONFIG
    console.print(f"deploy:   {deploy}", highlight=False, soft_wrap=True)


def _print_gain(console: Console, study: Study, found: Recommendation) -> None:
    if alone := no_candidate_in_words(study):
        console.print(f"gain:     {escape(alone)}", highlight=False, soft_wrap=True, style="yellow")
    elif found.gain and found.best != found.baseline:
        rests_on = gain_rests_on(found, verified=bool(study.verified))
        told = f"gain:     [bold green]{gain_in_words(found.gain)}[/]{rests_on}"
        console.print(told, highlight=False, soft_wrap=True)


def _print_remarks(console: Console, study: Study) -> None:
    for remark in study.remarks:
        console.print(f"note:     {remark}", highlight=False, markup=False, soft_wrap=True, style="yellow")


def _print_not_chosen(console: Console, study: Study) -> None:
    for each in study.not_chosen:
        told = f"but:      {not_chosen_in_words(each, study.identity.slo.percentile)}"
        console.print(told, highlight=False, markup=False, soft_wrap=True, style="yellow")


def _caveat(best: TrialPoint, slo: SLO, study: Study) -> str:
    """What is to be known of a number that is not as sure as it could be."""
    if best.verified and (not slo.root or is_certain(best, slo)):
        return ""
    return f" [yellow]({how_sure(best, slo, of=len(study.trials))})[/]"


def _count(number: int, one: str, more: str = "") -> str:
    return f"{number} {one if number == 1 else more or one + 's'}"
