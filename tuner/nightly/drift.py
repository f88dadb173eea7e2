"""Detects whether the deployed config is slower than in its own history."""

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

# Priors of the standard deviation of logarithms between nights, and their weight in nights.
_THROUGHPUT_SPREAD, _LATENCY_SPREAD, _PRIOR_NIGHTS = 0.03, 0.12, 4
# A slowdown of the same files is reported this many nights; after that it counts as normal.
_REPORTED_NIGHTS = 3
# The latest nights that count as history.
_MOST_NIGHTS = 30
# If the machine is slower by more than this share, the correction for it is too uncertain to blame the config.
_MOST_CORRECTION = 0.1


@dataclass(frozen=True)
class PastMeasurement:
    """An earlier night's measurement under the same conditions.

    Attributes:
        night: When the night began, ISO 8601 in UTC.
        measured: The measurement.
        files: Fingerprint of the model's files that night.
        regression: Whether that night reported a regression.
    """

    night: str
    measured: Measured
    files: str
    regression: bool


class Drift(Record):
    """The comparison of the deployed config with its history.

    Attributes:
        regression: Whether it is slower by more than nights usually differ, and by more than `min_regression`.
        reason: The result in a sentence.
        nights: Number of earlier nights it was compared with.
        throughput: Ratio of throughput to those nights, with its prediction interval; None: no earlier night.
        latency: Ratio of latency at the SLO's percentile, likewise.
        machine: Ratio of the machine's own speed to those nights; None: unknown.
        files_changed: Whether the model's files have changed since the last of those nights.
        suspected: Whether the ratio exceeds `min_regression`, significant or not.
        inconclusive: Whether it looks like a regression, but other load or a slower machine may be the cause.
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
    """The nights that show the normal speed of the config, the oldest first.

    Args:
        past: All nights under the same conditions, the oldest first.
        files: Fingerprint of the model's files now.
    """
    reported = [night for night in past if night.regression and night.files == files]
    if len(reported) >= _REPORTED_NIGHTS:
        normal = [night for night in past if night.files == files]
    else:
        normal = [night for night in past if not night.regression]
    # Nights with quality warnings count only if there are no others.
    trusted = [night for night in normal if not night.measured.warnings]
    return (trusted or normal)[-_MOST_NIGHTS:]


def judge_drift(now: Measured, past: Sequence[PastMeasurement], *, files: str, min_regression: float) -> Drift:
    """Compare tonight's measurement with earlier ones under the same load.

    Throughput and latency at the SLO's percentile are compared with the 95 % prediction interval for another night. Its
    width comes from the spread of the nights so far, a prior while they are few, and the intervals of the measurements.
    It is a regression if tonight is outside the interval and slower by more than `min_regression`.

    If tonight's machine is slower, throughput is first corrected to the earlier speed. The correction applies to the
    share of time in which the server keeps a core busy.

    A remaining slowdown is inconclusive, not a regression, in two cases: other load took the CPU during the launches,
    or the machine was too slow for the correction.

    Args:
        now: Tonight's measurement.
        past: The normal nights, the oldest first; those under another load are ignored.
        files: Fingerprint of the model's files now.
        min_regression: The least slowdown to report, as a share.
    """
    same = [night for night in past if night.measured.load == now.load]
    if not same:
        return NO_HISTORY
    then = [night.measured for night in same]
    throughput = _against(now.throughput, [measured.throughput for measured in then], _THROUGHPUT_SPREAD)
    percentile, latencies = _latencies(now.percentile, then)
    tonight = now.latency_at(percentile) or now.p99_ms
    latency = _against(tonight, latencies, _LATENCY_SPREAD)
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
    """The ratio of tonight to the mean of earlier nights, with the 95 % prediction interval for one more night."""
    logs = [math.log(max(interval.value, 1e-12)) for interval in then]
    count, mean = len(logs), fmean(logs)
    freedom = count - 1 + _PRIOR_NIGHTS
    square = (sum((log - mean) ** 2 for log in logs) + _PRIOR_NIGHTS * typical**2) / freedom
    nights = student(freedom + 1) * math.sqrt(square * (1 + 1 / count))
    own = math.hypot(now.log_half_width, fmean(interval.log_half_width for interval in then) / math.sqrt(count))
    half, log = math.hypot(nights, own), math.log(max(now.value, 1e-12)) - mean
    return Interval.within_logs(math.exp(log), half)


def _inverse(ratio: Interval) -> Interval:
    return Interval(value=1 / ratio.value, low=1 / ratio.high, high=1 / ratio.low if ratio.low else math.inf)


def _is_less(ratio: Interval, share: float) -> bool:
    return ratio.high < 1 and ratio.value < 1 - share


def _machine(now: Measured, then: Sequence[Measured]) -> float | None:
    speeds = [measured.turns_per_us for measured in then if measured.turns_per_us]
    return now.turns_per_us / fmean(speeds) if now.turns_per_us and speeds else None


def _busy(now: Measured, machine: float | None, by_machine: float) -> str:
    """Why the machine was slower than usual, for the report; empty: it was not."""
    if now.is_busy:
        return "machine busy with other load"
    if machine is not None and by_machine < 1 - _MOST_CORRECTION:
        return f"machine {1 - machine:.0%} slower than then"
    return ""


def _of_machine(machine: float | None, cores: float | None) -> float:
    """The factor on throughput that a slower machine explains; 1 for a faster machine."""
    if machine is None or machine >= 1:
        return 1.0
    busy = min(1.0, 1.0 if cores is None else cores)
    return 1 - busy * (1 - machine)


def _latencies(percentile: Percentile, then: Sequence[Measured]) -> tuple[Percentile, list[Interval]]:
    """The latencies at a percentile if nights stored it; else at p99, which every night stored."""
    latencies = [latency for measured in then if (latency := measured.latency_at(percentile))]
    return (percentile, latencies) if latencies else ("p99", [measured.p99_ms for measured in then])


def _in_words(now: Measured, throughput: Interval, latency: str, nights: int) -> str:
    against = f"{nights} earlier night{'s' * (nights > 1)}"
    warnings = f" (quality warning: {', '.join(now.warnings)})" if now.warnings else ""
    return (
        f"{format_number(now.throughput.value)} inferences/s at {now.load}, "
        f"{throughput.value - 1:+.0%} ({throughput.low - 1:+.0%} to {throughput.high - 1:+.0%}), "
        f"{latency}, against {against}{warnings}"
    )
