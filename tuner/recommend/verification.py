"""Verified points: configs that were relaunched after the search.

The best of many noisy numbers is too good. So the reported numbers of a finalist come from rounds that had no part in
choosing it. The rounds are spread over time, so that their spread includes what a shared machine does over time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean, geometric_mean, median, variance

from tuner.core.loads import Load
from tuner.core.record import Interval, Record
from tuner.core.slo import PERCENTILES, Percentile
from tuner.measure.client_view import ClientView
from tuner.measure.gpu_view import usage_together
from tuner.measure.machine_load import loads_together
from tuner.measure.machine_speed import speeds_together
from tuner.measure.points import OperatingPoint, ServerBreakdown
from tuner.measure.quality_warnings import warnings_together
from tuner.measure.responses import ResponseTimes
from tuner.measure.server_resources import resources_together
from tuner.recommend.between_launches import half_width
from tuner.stats.histogram import Histogram
from tuner.stats.limit_test import LimitTest


class Verification(Record):
    """A config under one load, relaunched in rounds.

    Attributes:
        trial: The number of the trial of the config.
        load: The load.
        rounds: One point for each launch, in order of time; empty when it failed at once.
        numbers: The number of the round of each point. Points of the same round ran side by side.
        choosing: The number of rounds, the first ones, that had a part in choosing the best.
        failure: Why it failed, in one line; None: it did not.
    """

    trial: int
    load: Load
    rounds: tuple[OperatingPoint, ...] = ()
    numbers: tuple[int, ...] = ()
    choosing: int = 0
    failure: str | None = None

    @property
    def confirming(self) -> tuple[OperatingPoint, ...]:
        """The rounds after it was chosen."""
        return self.rounds[self.choosing :]

    @property
    def throughput(self) -> float:
        """Geometric mean of all rounds, in inferences/s; at least one round is needed."""
        return geometric_mean(point.throughput.value for point in self.rounds)

    def latency_ms(self, percentile: Percentile) -> float:
        """Median of all rounds, in ms, robust against a disturbed launch; at least one round is needed."""
        return math.exp(median(math.log(point.latency_ms[percentile].value) for point in self.rounds))

    @property
    def limits(self) -> tuple[LimitTest, ...]:
        """The pooled tests of all rounds; all rounds tested the same limits."""
        return limits_together(self.rounds)

    @property
    def confirms(self) -> bool:
        """Whether there are confirming rounds."""
        return bool(self.confirming)

    @property
    def point(self) -> OperatingPoint | None:
        """The confirming rounds as one point, or all rounds if there are none; None when it failed.

        The tests of limits use all rounds: they are valid at any time, so the choice does not bias them.
        """
        if self.failure or not self.rounds:
            return None
        return rounds_together(self.confirming or self.rounds).model_copy(update={"limits": self.limits})


def rounds_together(rounds: Sequence[OperatingPoint]) -> OperatingPoint:
    """Several measurements of one config under one load as one point, without the tests of limits."""
    return OperatingPoint(
        load=rounds[0].load,
        throughput=_mean([point.throughput for point in rounds]),
        latency_ms={p: _mean([point.latency_ms[p] for point in rounds]) for p in PERCENTILES},
        requests=sum(point.requests for point in rounds),
        errors=sum(point.errors for point in rounds),
        error=next((point.error for point in rounds if point.error), None),
        window_s=sum(point.window_s for point in rounds),
        batch_size=rounds[0].batch_size,
        received_bytes_per_s=fmean(point.received_bytes_per_s for point in rounds),
        histogram=Histogram.together(point.histogram for point in rounds),
        client=_all_clients([point.client for point in rounds]),
        kept_up=None if rounds[0].kept_up is None else all(point.kept_up for point in rounds),
        server=_all_servers([point.server for point in rounds if point.server]),
        responses=_all_responses([point.responses for point in rounds if point.responses]),
        server_resources=resources_together(point.server_resources for point in rounds),
        gpu=usage_together(point.gpu for point in rounds),
        machine=loads_together(point.machine for point in rounds),
        machine_speed=speeds_together(point.machine_speed for point in rounds),
        doubts=warnings_together([point.doubts for point in rounds]),
        discarded=warnings_together([point.discarded for point in rounds]),
    )


def limits_together(rounds: Sequence[OperatingPoint]) -> tuple[LimitTest, ...]:
    """The pooled tests of several launches, which tested the same limits."""
    return tuple(LimitTest.pooled(tests) for tests in zip(*(point.limits for point in rounds), strict=True))


def _mean(intervals: Sequence[Interval]) -> Interval:
    """The mean over rounds, with its t-interval or the mean of the rounds' own intervals, whichever is wider.

    Rates and times differ by factors from launch to launch, so the interval is computed on logarithms.
    """
    count, values = len(intervals), [interval.value for interval in intervals]
    value = fmean(values)
    if min(values) <= 0:
        return Interval(value=value, low=0.0, high=max(interval.high for interval in intervals))
    half = fmean(interval.log_half_width for interval in intervals) / math.sqrt(count)
    if count > 1:
        half = max(half, half_width(variance(map(math.log, values)), count - 1) / math.sqrt(count))
    return Interval.within_logs(value, half)


def _all_clients(clients: Sequence[ClientView]) -> ClientView:
    """The client's view of all rounds: means, and what limited the client in any of them."""
    lags = [client.send_lag_ms for client in clients if client.send_lag_ms]
    return ClientView(
        cpu=fmean(client.cpu for client in clients),
        processes=max(client.processes for client in clients),
        send_lag_ms={name: fmean(lag[name] for lag in lags) for name in lags[0]} if lags else None,
        bound=next((client.bound for client in clients if client.bound), None),
    )


def _all_responses(rounds: Sequence[ResponseTimes]) -> ResponseTimes | None:
    """The response times of all rounds, with equal weights."""
    if not rounds:
        return None
    firsts = [responses.time_to_first_ms for responses in rounds if responses.time_to_first_ms]
    gaps = [responses.inter_response_ms for responses in rounds if responses.inter_response_ms]
    return ResponseTimes(
        time_to_first_ms={p: _mean([first[p] for first in firsts]) for p in PERCENTILES if firsts},
        inter_response_ms={p: fmean(gap[p] for gap in gaps) for p in PERCENTILES if gaps},
        per_request=fmean(responses.per_request for responses in rounds),
        per_s=fmean(responses.per_s for responses in rounds),
    )


def _all_servers(servers: Sequence[ServerBreakdown]) -> ServerBreakdown | None:
    """The server's view of all rounds: counts add up, means are weighted by them."""
    if not servers:
        return None
    inferences = sum(server.inferences for server in servers)

    def mean(pick: Callable[[ServerBreakdown], float]) -> float:
        # Without inferences, where the response cache answered all requests, the mean is 0.
        return sum(pick(server) * server.inferences for server in servers) / max(1, inferences)

    batches: dict[int, tuple[int, float]] = {}
    for size, (executions, service_ms) in (item for server in servers for item in server.batches.items()):
        before, before_ms = batches.get(size, (0, 0.0))
        total = before + executions
        batches[size] = (total, (before * before_ms + executions * service_ms) / total)
    return ServerBreakdown(
        inferences=inferences,
        executions=sum(server.executions for server in servers),
        queue_ms=mean(lambda server: server.queue_ms),
        compute_input_ms=mean(lambda server: server.compute_input_ms),
        compute_infer_ms=mean(lambda server: server.compute_infer_ms),
        compute_output_ms=mean(lambda server: server.compute_output_ms),
        batches=dict(sorted(batches.items())),
        wall_s=_sum(server.wall_s for server in servers),
        requests=sum(server.requests for server in servers),
        cache_hits=sum(server.cache_hits for server in servers),
    )


def _sum(seconds: Iterable[float | None]) -> float | None:
    """The sum; None when one of the values is unknown."""
    values = list(seconds)
    return None if None in values else sum(value for value in values if value is not None)
