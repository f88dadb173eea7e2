"""The end of a run on the terminal: at most 25 lines with the answer first; with `-v`, everything."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from tuner.analysis.effects import field_effects
from tuner.config.diff import name_lines
from tuner.core.errors import TritontuneError, shortened
from tuner.core.objectives import THROUGHPUT
from tuner.core.quantities import format_duration
from tuner.core.slo import SLO
from tuner.jobs.progress import ModelOutcome
from tuner.recommend.front import TrialPoint
from tuner.recommend.recommend import is_certain
from tuner.report.front_table import WARNED, front_legend, front_points, front_reasons, front_table, points_that_matter
from tuner.results.picked import not_chosen_in_words
from tuner.results.result_files import BEST_CONFIG, BEST_DIFF, best_diff
from tuner.results.why import effects_in_short, effects_in_words, why_in_words
from tuner.results.words import (
    certified_in_words,
    gain_in_words,
    gain_rests_on,
    latency,
    launches_and_hosts_of,
    missed_slo,
    no_candidate_in_words,
    point_in_words,
    rate,
    slo_in_words,
    slo_verdict_in_words,
    warm_up_in_words,
    when_missed,
)

MOST_LINES = 25
"""Most lines on the terminal at the end of a run: from the empty line before the answer to the report's path, and the
line of an error after it."""
MOST_POINTS = 8
"""Most rows of the front among these lines."""

# If there is not enough room: the fewest lines of the front, and the most lines of notes. A diff of up to
# `_WHOLE_CHANGES` changed lines is shown whole, a longer one with at least `_FEWEST_CHANGES`.
_FEWEST_POINTS, _FEWEST_CHANGES, _WHOLE_CHANGES, _MOST_NOTES = 2, 4, 8, 3
# Parts that the summary shortens to one line.
_CROPPED = ("baseline:", "rate:")
_LABEL_WIDTH = 10


def print_outcome(console: Console, outcome: ModelOutcome, *, verbose: bool = False) -> None:
    """Print the outcome of a model's tuning.

    Args:
        console: The console.
        outcome: The outcome.
        verbose: Print all points, effects and notes, and the whole diff, without a limit on lines.
    """
    console.print()
    for line in _everything(outcome) if verbose else _summary(outcome, console.width):
        _print(console, line)


def _print(console: Console, line: RenderableType) -> None:
    if isinstance(line, Text) and line.no_wrap:
        # `print` ignores `no_wrap` and `overflow` of a `Text` itself.
        console.print(line, highlight=False, no_wrap=True, overflow="ellipsis")
    else:
        console.print(line, highlight=False, soft_wrap=isinstance(line, Text))


def print_models(
    console: Console, outcomes: Sequence[ModelOutcome], failures: Mapping[str, TritontuneError], *, verbose: bool
) -> None:
    """Print the result of a run of several models, one line each.

    Args:
        console: Where to print.
        outcomes: Outcomes of the models that were tuned.
        failures: Errors of the models that could not be tuned, by name.
        verbose: Print all models, without a limit on lines.
    """
    rows = [_model_row(outcome) for outcome in outcomes]
    rows += [(name, "failed", shortened(str(error)), "") for name, error in failures.items()]
    # Other lines: the empty line, the titles, the number of omitted rows, two lines for the report, and an error.
    most = len(rows) if verbose else MOST_LINES - 6
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("model", "gain", "best (inferences/s)", "SLO"):
        table.add_column(title, no_wrap=True)
    for row in rows[:most]:
        table.add_row(*map(Text, row))
    console.print()
    console.print(table)
    if len(rows) > most:
        console.print(f"({_count(len(rows) - most, 'more model')}: see the report)", highlight=False)


def _model_row(outcome: ModelOutcome) -> tuple[str, str, str, str]:
    recommendation = outcome.recommendation
    slo, best, gain = recommendation.slo, recommendation.best, recommendation.gain
    if best is None:
        return outcome.model, "none", f"no candidate {slo_in_words(slo, recommendation.objective)}", ""
    text = f"{gain.value:.2f} x ({gain.low:.2f} to {gain.high:.2f})" if gain else "unknown"
    percentile = recommendation.percentile
    at = f"{rate(best.point.throughput.value)}/s, {percentile} {latency(best.latency_ms(percentile))}"
    return outcome.model, text if best.trial.number else "none", at, _verdict(best, slo)


def _verdict(best: TrialPoint, slo: SLO) -> str:
    if not best.verified:
        return "not verified"
    if not slo.root:
        return "none"
    return "held" if is_certain(best, slo) else "inconclusive"


def _everything(outcome: ModelOutcome) -> Iterator[RenderableType]:
    study, recommendation = outcome.study, outcome.recommendation
    yield from _answer(outcome)
    yield from _notes(outcome)
    if recommendation.best and (effects := field_effects(study, recommendation.best)):
        lines = (f"  {line}" for line in effects_in_words(effects, recommendation.slo, recommendation.objective))
        yield Text("\n".join(("changes:", *lines)))
    if recommendation.best and (diff := best_diff(study, recommendation.best)):
        yield Syntax(diff.rstrip("\n"), "diff", theme="ansi_dark", background_color="default")
    yield Text()
    yield front_table(recommendation)
    for block in (front_legend(recommendation, study.trials[0].parameters), front_reasons(recommendation)):
        if block:
            yield Text(f"\n{block}")
    yield Text()
    yield from _where(outcome)


def _summary(outcome: ModelOutcome, width: int) -> Iterator[RenderableType]:
    """The outcome in at most `MOST_LINES`, less the lines that come after it.

    Args:
        outcome: The outcome.
        width: Width of the terminal, in columns.
    """
    recommendation, path = outcome.recommendation, str(outcome.folder.model(outcome.model) / BEST_DIFF)
    answer = [_cropped(line) if line.plain.startswith(_CROPPED) else line for line in _answer(outcome)]
    changes, why, where = list(_changes_in_short(outcome)), list(_why(outcome, width)), list(_where(outcome))
    diff = best_diff(outcome.study, recommendation.best).splitlines() if recommendation.best else []
    warned = any(point.point.warnings for point in points_that_matter(recommendation, MOST_POINTS))
    # Further lines: the empty line before, the titles of the front, the warning below it, and an error.
    others = [*answer, *changes, *why, *where, _line("report", str(outcome.folder.report))]
    room = MOST_LINES - 3 - warned - _height(others, width)
    rows, changed_lines = len(front_points(recommendation)), len(_changes_of(diff))
    fewest_changes = changed_lines if changed_lines <= _WHOLE_CHANGES else _FEWEST_CHANGES
    notes = list(_few_notes(list(_notes(outcome)), room - min(rows, _FEWEST_POINTS) - fewest_changes, width))
    room -= _height(notes, width)
    rows = min(rows, MOST_POINTS, max(_FEWEST_POINTS, room - fewest_changes))
    changed = list(_changed(diff, path, room - rows, width))
    spare = room - rows - _height(changed, width)
    front = [front_table(recommendation, rows)] if rows else []
    if any(point.point.warnings for point in points_that_matter(recommendation, rows)):
        why.insert(0, Text(f"{WARNED}: with quality warnings, which the report explains", "dim"))
    yield from (*answer, *notes, *changes)
    for block in (changed, front, [*why, *where]):
        if block and spare > 0:
            spare -= 1
            yield Text()
        yield from block


def _changes_in_short(outcome: ModelOutcome) -> Iterator[Text]:
    best = outcome.recommendation.best
    if best and (effects := field_effects(outcome.study, best)):
        yield _cropped(_line("changes", effects_in_short(effects)))


def _why(outcome: ModelOutcome, width: int) -> Iterator[Text]:
    best = outcome.recommendation.best
    if best and (why := why_in_words(best, width - _LABEL_WIDTH)):
        yield _cropped(_line("why", why))


def _answer(outcome: ModelOutcome) -> Iterator[Text]:
    """Gain, best, baseline, and the verdict on the SLO."""
    study, recommendation = outcome.study, outcome.recommendation
    slo, best, objective = recommendation.slo, recommendation.best, recommendation.objective
    took = format_duration(max(study.took_s, 1e-3))
    counts = f"{_count(len(study.trials), 'trial')}, {_count(study.launches, 'launch', 'launches')} in {took}"
    yield _line("model", f"{outcome.model} ({counts})", "bold")
    if objective != THROUGHPUT:
        yield _line("goal", str(objective))
    if best is None:
        yield _line("result", f"no candidate {slo_in_words(slo, objective)}", "red")
    elif alone := no_candidate_in_words(study):
        yield _line("gain", alone, "yellow")
    elif best.trial.number == 0:
        yield _line("gain", "none: no candidate beats the baseline")
    elif recommendation.gain:
        rests_on = gain_rests_on(recommendation, verified=bool(study.verified))
        text = f"{gain_in_words(recommendation.gain, objective)}{rests_on}"
        yield _line("gain", text, "bold green" if recommendation.gain.low > 1 else "yellow")
    if best:
        point = point_in_words(best.point, recommendation.percentile, objective)
        text = f"{point} (trial {best.trial.number})"
        yield _line("best", text if best != recommendation.baseline else "the baseline")
    yield _baseline(outcome)
    if best:
        launches, hosts = launches_and_hosts_of(study, best)
        sure = slo_verdict_in_words(best, slo, of=len(study.trials), launches=launches, hosts=hosts)
        is_sure = best.verified and (not slo.root or is_certain(best, slo))
        yield _line("SLO", f"{slo} {sure}" if slo.root else f"none; {sure}", "" if is_sure else "yellow")
    if certified := study.certified:
        yield _line("rate", certified_in_words(certified, slo, study.hosts))
    if warm_up := study.warm_up:
        yield _line("warm-up", warm_up_in_words(warm_up))


def _baseline(outcome: ModelOutcome) -> Text:
    study, recommendation = outcome.study, outcome.recommendation
    objective = recommendation.objective
    if recommendation.baseline is None:
        when = when_missed(study.trials[0], recommendation.slo, study.verified, objective)
        return _line("baseline", f"{missed_slo(recommendation.slo, objective)} {when}")
    text = point_in_words(recommendation.baseline.point, recommendation.percentile, objective)
    if failure := recommendation.baseline.trial.failure:
        return _line("baseline", f"{text} (not recommended: {failure.cause.value} at another load)", "yellow")
    once = study.verified and not recommendation.baseline.verified
    return _line("baseline", f"{text} (launched once)" if once else text)


def _notes(outcome: ModelOutcome) -> Iterator[Text]:
    for remark in outcome.study.remarks:
        yield _line("note", remark, "yellow")
    for better in outcome.study.not_chosen:
        found = outcome.recommendation
        yield _line("note", not_chosen_in_words(better, found.percentile, found.objective), "yellow")


def _few_notes(notes: Sequence[Text], room: int, width: int) -> Iterator[Text]:
    """The first notes, in at most `room` lines and `_MOST_NOTES`, and the number of omitted notes."""
    room = min(room, _MOST_NOTES)
    for number, note in enumerate(notes):
        height, is_last = _height([note], width), number == len(notes) - 1
        if height + (not is_last) > room:
            yield _line("notes", f"{len(notes) - number}{' more' if number else ''}: see the report", "yellow")
            return
        yield note
        room -= height


def _changed(diff: Sequence[str], path: str, room: int, width: int) -> Iterator[Text]:
    """A diff in at most `room` lines: whole, without context, or the first changes and the number of omitted ones."""
    shown = diff if len(diff) <= room else _changes_of(diff)
    fit = len(shown)
    if fit > room:
        fit = max(0, room - _height([_more_changes(fit, path)], width))
    for line in shown[:fit]:
        yield _cropped(Text(line, {"+": "green", "-": "red"}.get(line[:1], "")))
    if fit < len(shown):
        yield _more_changes(len(shown) - fit, path)


def _changes_of(diff: Sequence[str]) -> list[str]:
    """The changed lines of a diff, without those that name files."""
    names = name_lines(diff)
    return [line for at, line in enumerate(diff) if line[:1] in {"+", "-", "#"} and at not in names]


def _more_changes(count: int, path: str) -> Text:
    return Text(f"({_count(count, 'more changed line')}: {path})", "dim")


def _where(outcome: ModelOutcome) -> Iterator[Text]:
    if outcome.recommendation.best:
        yield _line("deploy", str(outcome.folder.model(outcome.model) / BEST_CONFIG))


def _line(label: str, text: str, style: str = "") -> Text:
    return Text(f"{label + ':':<{_LABEL_WIDTH}}{text}", style)


def _cropped(text: Text) -> Text:
    """A text that is cut to one line."""
    text.no_wrap = True
    return text


def _height(texts: Iterable[Text], width: int) -> int:
    """Number of lines that texts take on the terminal."""
    return sum(1 if text.no_wrap else max(1, math.ceil(cell_len(text.plain) / width)) for text in texts)


def _count(number: int, one: str, more: str = "") -> str:
    return f"{number:,} {one if number == 1 else more or one + 's'}"
