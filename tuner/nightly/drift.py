"""Whether the deployed config got slower than its own history."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from tuner.core.quantities import format_ms, format_number
from tuner.core.record import Interval, Record
from tuner.core.slo import Percentile
from tuner.nightly.measured import Measured
from tuner.stats.blocks import student

# What nights differ by as long as few of them tell: the standard deviation of the logarithm, worth so many nights.
_THROUGHPUT_SPREAD, _LATENCY_SPREAD, _PRIOR_NIGHTS = 0.03, 0.12, 4
# So many nights in a row a slowdown of the same files is told; from then on that is how fast they are.
_TOLD_SO_OFTEN = 3
_MOST_NIGHTS = 30
# What a machine that is slower by so much does to a server beyond that is not known well enough to blame the config.
_SLOWER = 0.1


@dataclass(frozen=True)
class PastMeasurement:
    """An earlier night's measurement under the same conditions.

    Attributes:
        night: When, as the history writes it.
        files: Fingerprint of the model's files then.
        regression: Whether that night found it slower than before.
    """

    night: str
    measured: Measured
    files: str
    regression: bool


class Drift(Record):
    """What became of the deployed config.

    Attributes:
        regression: Whether it got slower, beyond what nights differ by and the least that is worth telling.
        reason: In a sentence.
        nights: How many earlier ones it was compared with.
        throughput: Over that of those nights, with the interval of the prediction; None without any.
        latency: The same of latency, at the percentile that counts.
        machine: The machine's own speed over that of those nights; None where nobody says.
        files_changed: Whether the model's files are others than in the last of those nights.
        suspected: Whether it looks slower by more than the least that is worth telling, sure or not.
        inconclusive: Whether it would be a regression, had not others kept the machine busy, or slowed it down.
    """

    regression: bool
    reason: str
    nights: int
    throughput: Interval | None = None
    latency: Interval | None = None
    machine: float | None = None
    files_changed: bool = False
    suspected: bool = False
    inconclusive: bool = False


NO_HISTORY = Drift(regression=False, nights=0, reason="first measurement of this config under these conditions")


def normal_nights(past: Sequence[PastMeasurement], files: str) -> list[PastMeasurement]:
    """The nights that say how fast the config normally is, the oldest first.

    Args:
        past: All under the same conditions, the oldest first.
        files: Fingerprint of the model's files now.
    """
    told = [each for each in past if each.regression and each.files == files]
    if len(told) >= _TOLD_SO_OFTEN:
        normal = [each for each in past if each.files == files]
    else:
        normal = [each for each in past if not each.regression]
    # A night on which others were at work on the machine, and the like, says little where there are better ones.
    trusted = [each for each in normal if not each.measured.doubts]
    return (trusted or normal)[-_MOST_NIGHTS:]


def judge_drift(now: Measured, past: Sequence[PastMeasurement], *, files: str, min_regression: float) -> Drift:
    """Compare tonight's measurement with earlier ones under the same load.

    Throughput, and latency at the percentile that counts, of tonight are held against the interval in which those of
    another night are to be expected: by the spread of the nights so far, or what nights typically differ by while they
    are few, and by how sure each measurement is of itself. It is a regression when tonight lies outside, and more than
    `min_regression` off.

    A server that computes is no faster than its machine: where tonight's machine is slower, throughput is compared as
    it would be on a machine as fast as before, for the part of the time in which the server keeps a core busy.

    What remains is a regression only where nothing but the config can be the cause: where others took the CPU in the
    same launches, or the machine was slower by more than can be reckoned with, it is inconclusive.

    Args:
        now: Tonight's.
        past: The normal nights, the oldest first; those under another load do not count.
        files: Fingerprint of the model's files now.
        min_regression: As a share.
    """
    same = [each for each in past if each.measured.concurrency == now.concurrency]
    if not same:
        return NO_HISTORY
    then = [each.measured for each in same]
    throughput = _against(now.throughput, [each.throughput for each in then], _THROUGHPUT_SPREAD)
    percentile, known = _latencies(now.percentile, then)
    tonight = now.latency_at(percentile) or now.p99_ms
    latency = _against(tonight, known, _LATENCY_SPREAD)
    machine = _machine(now, then)
    slower = _is_less(throughput, min_regression)
    later = _is_less(_inverse(latency), min_regression)
    by_machine = _of_machine(machine, now.cpu_cores)
    changed = same[-1].files != files
    words = _in_words(now, throughput, f"{percentile} {format_ms(tonight.value)}, {latency.value - 1:+.0%}", len(same))
    if changed:
        words += "; the model's files have changed since, its config has not"
    fair, fair_latency = throughput.times(1 / by_machine), latency.times(by_machine)
    busy = _busy(now, machine, by_machine)
    seems = _is_less(fair, min_regression) or _is_less(_inverse(fair_latency), min_regression)
    regression, inconclusive = seems and not busy, bool(seems and busy)
    suspected = min(fair.value, 1 / fair_latency.value) < 1 - min_regression
    if machine is not None and (slower or later) and not seems:
        words += f"; the machine is {1 - machine:.0%} slower than then, which explains it"
    return Drift(
        regression=regression,
        reason=("slower: " if regression else f"inconclusive: {busy}: " if inconclusive else "") + words,
        nights=len(same),
        throughput=throughput,
        latency=latency,
        machine=machine,
        files_changed=changed,
        suspected=suspected,
        inconclusive=inconclusive,
    )


def _against(now: Interval, then: Sequence[Interval], typical: float) -> Interval:
    """Now over then, with the interval of a prediction for one more night."""
    logs = [math.log(max(each.value, 1e-12)) for each in then]
    count, mean = len(logs), fmean(logs)
    freedom = count - 1 + _PRIOR_NIGHTS
    square = (sum((log - mean) ** 2 for log in logs) + _PRIOR_NIGHTS * typical**2) / freedom
    nights = student(freedom + 1) * math.sqrt(square * (1 + 1 / count))
    own = math.hypot(now.log_half_width, fmean(each.log_half_width for each in then) / math.sqrt(count))
    half, log = math.hypot(nights, own), math.log(max(now.value, 1e-12)) - mean
    return Interval.within_logs(math.exp(log), half)


def _inverse(ratio: Interval) -> Interval:
    return Interval(value=1 / ratio.value, low=1 / ratio.high, high=1 / ratio.low if ratio.low else math.inf)


def _is_less(ratio: Interval, share: float) -> bool:
    return ratio.high < 1 and ratio.value < 1 - share


def _machine(now: Measured, then: Sequence[Measured]) -> float | None:
    speeds = [each.turns_per_us for each in then if each.turns_per_us]
    return now.turns_per_us / fmean(speeds) if now.turns_per_us and speeds else None


def _busy(now: Measured, machine: float | None, by_machine: float) -> str:
    """What kept the machine from its usual speed, in words; empty where nothing did."""
    if now.is_busy:
        return "machine busy with other load"
    if machine is not None and by_machine < 1 - _SLOWER:
        return f"machine {1 - machine:.0%} slower than then"
    return ""


def _of_machine(machine: float | None, cores: float | None) -> float:
    """What a slower machine leaves of throughput; a faster one is no excuse, and no merit either."""
    if machine is None or machine >= 1:
        return 1.0
    busy = min(1.0, 1.0 if cores is None else cores)
    return 1 - busy * (1 - machine)


def _latencies(percentile: Percentile, then: Sequence[Measured]) -> tuple[Percentile, list[Interval]]:
    """The latencies of the nights that stored the percentile, or else p99, which all have."""
    known = [latency for each in then if (latency := each.latency_at(percentile))]
    return (percentile, known) if known else ("p99", [each.p99_ms for each in then])


def _in_words(now: Measured, throughput: Interval, latency: str, nights: int) -> str:
    against = f"{nights} earlier night{'s' * (nights > 1)}"
    doubts = f" (doubtful: {', '.join(now.doubts)})" if now.doubts else ""
    return (
        f"{format_number(now.throughput.value)} inferences/s at concurrency {now.concurrency}, "
        f"{throughput.value - 1:+.0%} ({throughput.low - 1:+.0%} to {throughput.high - 1:+.0%}), "
        f"{latency}, against {against}{doubts}"
    )
