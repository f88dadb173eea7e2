"""Explains a point, and the effect of each change of the best config, in plain English."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tuner.analysis.effects import FieldEffect
from tuner.core.errors import shortened
from tuner.core.objectives import THROUGHPUT, Objective
from tuner.core.record import Interval
from tuner.core.slo import SLO, Percentile
from tuner.recommend.front import TrialPoint
from tuner.recommend.utilisation import Limit, Utilisation, utilisation
from tuner.results.words import latency, missed_slo, point_in_words
from tuner.space.candidate import shown
from tuner.space.place import AS_IS
from tuner.space.spec import LadderValue

# An average batch of at most this many requests counts as no batching.
_ALONE = 1.05
_MORE_WAITS = "more load only makes the queue longer"


def why_in_words(trial_point: TrialPoint, most: int | None = None) -> str:
    """A sentence on the server's utilisation and the limit of a point; empty without the server's statistics.

    `batches of 14.0 on average; 38% of a request's time in the queue; both instances busy 96% of the time: more load
    only makes the queue longer`

    Args:
        trial_point: The point.
        most: Desired length of the sentence, in characters; the last facts are omitted to keep it.
    """
    usage = utilisation(trial_point)
    facts, limit = list(_facts(usage, trial_point.point.batch_size)), _limit_in_words(usage, trial_point)
    while True:
        sentence = ": ".join(part for part in ("; ".join(facts), limit) if part)
        if most is None or len(sentence) <= most or not facts:
            return sentence
        facts.pop()


def _facts(usage: Utilisation, batch_size: int) -> Iterator[str]:
    if usage.average_batch is not None:
        alone = usage.average_batch <= _ALONE * batch_size
        yield "each request executed by itself" if alone else f"batches of {usage.average_batch:.1f} on average"
    if usage.queue_share is not None:
        yield f"{usage.queue_share:.0%} of a request's time in the queue"
    if usage.instance_busy is not None:
        yield _busy(usage.instances, usage.instance_busy)
    if usage.gpu_utilisation is not None:
        yield f"GPU utilisation {usage.gpu_utilisation:.0%}"
    elif usage.cpu_cores is not None:
        yield f"{usage.cpu_cores:.1f} CPU cores taken"


def _busy(instances: int, share: float) -> str:
    who = {1: "the instance", 2: "both instances"}.get(instances, f"the {instances} instances")
    return f"{who} idle {1 - share:.0%} of the time" if share < 0.5 else f"{who} busy {share:.0%} of the time"


def _limit_in_words(usage: Utilisation, trial_point: TrialPoint) -> str:
    if usage.limit is Limit.CLIENT:
        client = trial_point.point.client
        what = "could not send in time" if client.held_up else "was the limit, not the server"
        return f"the load generator {what} ({client.bound})"
    if usage.limit is Limit.ELSEWHERE and usage.elsewhere_share is not None:
        return f"{usage.elsewhere_share:.0%} of latency is outside queue and model (network, frontend, client)"
    return _LIMITS[usage.limit] if usage.limit else ""


_LIMITS = {
    Limit.RATE: "the server does not keep up with this rate",
    Limit.BATCHES: "more load makes the batches larger",
    Limit.INSTANCES: _MORE_WAITS,
    Limit.GPU: f"the GPU is almost always busy, so {_MORE_WAITS}",
    Limit.QUEUE_DELAY: "requests wait up to the queue delay for others to share their batch",
    Limit.MODEL: "most of the latency is the model's own",
}


def effect_in_words(effect: FieldEffect, slo: SLO, objective: Objective = THROUGHPUT) -> str:
    """The effect of a changed field, in one line.

    `dynamic_batching on (was off): 2.90 x the throughput (2.70 to 3.10); without it 640 inferences/s, p99 12.3 ms at
    concurrency 8 (trial 4)`
    """
    return f"{_change(effect)}: {_effect(effect, slo, objective)}"


def effects_in_words(effects: Iterable[FieldEffect], slo: SLO, objective: Objective = THROUGHPUT) -> Iterator[str]:
    """A line for each change with a known effect, and one line for all other changes."""
    unknown = []
    for effect in effects:
        if is_known(effect):
            yield effect_in_words(effect, slo, objective)
        else:
            unknown.append(_values(effect))
    if unknown:
        which = "this" if len(unknown) == 1 else "one of these"
        yield f"effect not known: {', '.join(unknown)} (no trial differs in {which} alone; --explain measures it)"


def effects_in_short(effects: Iterable[FieldEffect]) -> str:
    """All effects in a few words: `dynamic_batching 2.90 x, count no effect; effect unknown without --explain: ...`."""
    phrases, unknown = [], []
    for effect in effects:
        name = effect.name.removeprefix("dynamic_batching.")
        if not is_known(effect):
            unknown.append(name)
        elif effect.gain is None:
            phrases.append(f"{name} {'follows from others' if effect.without is None else 'is needed'}")
        elif _is_noise(effect.gain):
            phrases.append(f"{name} no effect")
        else:
            phrases.append(f"{name} {effect.gain.value:.2f} x")
    not_known = f"effect unknown without --explain: {', '.join(unknown)}" if unknown else ""
    return "; ".join(part for part in (", ".join(phrases), not_known) if part)


def is_known(effect: FieldEffect) -> bool:
    """Whether the effect of a change is known."""
    return effect.without is None or effect.trial is not None


def _change(effect: FieldEffect) -> str:
    with_it = f", and with it {_list(effect.together)}" if effect.together else ""
    return f"{_values(effect)}{with_it}"


def _values(effect: FieldEffect) -> str:
    return f"{effect.name} {_shown(effect.value)} (was {_shown(effect.was)})"


def _effect(effect: FieldEffect, slo: SLO, objective: Objective) -> str:
    if effect.without is None:
        return "follows from the other changes"
    if effect.trial is None:
        return "effect not known: no trial differs in this alone; --explain measures it"
    trial = f"(trial {effect.trial.number})"
    if effect.point is None or effect.gain is None:
        if effect.trial.failure and effect.trial.number:
            return f"without it: {effect.trial.failure.cause.value}: {shortened(effect.trial.failure.message)} {trial}"
        measured = " at every measured load" if objective.rate is None else ""
        return f"without it the config {missed_slo(slo, objective)}{measured} {trial}"
    if _is_noise(effect.gain):
        noise = f"no effect on {objective.words} beyond noise {_range(effect.gain)}"
        return noise + (_on_latency(effect, slo.percentile) if objective.maximizes else "")
    without = "better without it:" if effect.gain.high < 1 else "without it"
    what = f"the {objective.words}" if objective.maximizes else f"as quick by {objective.words}"
    ratio = f"{effect.gain.value:.2f} x {what} {_range(effect.gain)}"
    trial = f"(trial {effect.trial.number}, {_known_by(effect)})"
    point = point_in_words(effect.point.point, objective.percentile_for(slo), objective)
    return f"{ratio}; {without} {point} {trial}"


def _known_by(effect: FieldEffect) -> str:
    """The basis of the comparison, in words."""
    if effect.pairs:
        return f"{effect.pairs} rounds side by side"
    return "verified" if effect.point and effect.point.verified else "launched once"


def _on_latency(effect: FieldEffect, percentile: Percentile) -> str:
    """The effect on latency, in words; empty if it is unknown or within noise."""
    if effect.latency is None or effect.point is None or _is_noise(effect.latency):
        return ""
    without = latency(effect.point.latency_ms(percentile))
    return f"; {percentile} {effect.latency.value:.2f} x {_range(effect.latency)}, without it {without}"


def _is_noise(effect: Interval) -> bool:
    return effect.low <= 1 <= effect.high


def _range(interval: Interval) -> str:
    return f"({interval.low:.2f} to {interval.high:.2f})"


def _shown(value: LadderValue) -> str:
    if value == AS_IS:
        return "of several values"
    return shown(value)


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(names[:-1]) + " and " * (len(names) > 1) + names[-1]
