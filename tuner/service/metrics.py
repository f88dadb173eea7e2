"""Metrics of the service, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from tuner.client.resources import FINAL
from tuner.service.auth import Principal
from tuner.service.operations import Service

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_MOST_TARGETS = 500


class Requests:
    """Counts the requests, by route."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ("method", "route", "status")
        self._total = Counter("tritontune_requests", "Requests, by route.", labels, registry=self.registry)
        self._took = Histogram(
            "tritontune_request_seconds",
            "Time to answer, by route; of a stream, its length.",
            labels[:2],
            buckets=_BUCKETS,
            registry=self.registry,
        )

    def count(self, method: str, route: str, status: int, took_s: float) -> None:
        """Count a request."""
        known = method if method in {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"} else "other"
        self._total.labels(known, route, str(status)).inc()
        self._took.labels(known, route).observe(took_s)


def exposition(service: Service, who: Principal, requests: Requests, streams: int) -> bytes:
    """All metrics, in Prometheus' text format.

    Args:
        service: The service.
        who: Who asks; needs the role read.
        requests: The counted requests.
        streams: Number of open event streams.
    """
    registry = CollectorRegistry()
    registry.register(_State(service, who, streams))
    return generate_latest(requests.registry) + generate_latest(registry)


class _State:
    """What the service knows now."""

    def __init__(self, service: Service, who: Principal, streams: int) -> None:
        self._service = service
        self._who = who
        self._streams = streams

    def collect(self) -> Iterator[Metric]:
        """See `prometheus_client.registry.Collector`."""
        yield from self._jobs()
        yield from self._slots()
        yield GaugeMetricFamily("tritontune_event_streams", "Open event streams.", value=self._streams)
        yield from self._targets()

    def _jobs(self) -> Iterator[Metric]:
        # Those of states that do not change any more only grow, until the jobs are removed.
        counts = self._service.count_jobs(self._who)
        jobs = GaugeMetricFamily("tritontune_jobs", "Jobs, by state.", labels=["state"])
        for state, count in counts.items():
            jobs.add_metric([state], count)
        yield jobs
        ended = sum(count for state, count in counts.items() if state in FINAL)
        yield GaugeMetricFamily("tritontune_jobs_ended", "Jobs that have ended.", value=ended)
        queue = self._service.queue(self._who)
        yield GaugeMetricFamily("tritontune_queue_length", "Queued jobs.", value=len(queue))
        now = self._service.clock()
        waits = [(now - job.created_at).total_seconds() for job in queue]
        yield GaugeMetricFamily(
            "tritontune_queue_oldest_wait_seconds",
            "How long the oldest queued job has waited; 0: the queue is empty.",
            value=max(waits, default=0.0),
        )

    def _slots(self) -> Iterator[Metric]:
        slots = GaugeMetricFamily("tritontune_slots", "Slots, by host and use.", labels=["host", "use"])
        for host in self._service.hosts(self._who).items:
            held = sum(slot.job is not None for slot in host.slots)
            slots.add_metric([host.name, "held"], held)
            slots.add_metric([host.name, "free"], len(host.slots) - held)
        yield slots

    def _targets(self) -> Iterator[Metric]:
        labels = ["target", "model"]
        holds = GaugeMetricFamily(
            "tritontune_slo_holds", "Whether the deployed configuration held its SLO when last measured.", labels=labels
        )
        speed = GaugeMetricFamily(
            "tritontune_deployed_throughput", "Inferences/s of the deployed configuration.", labels=labels
        )
        gains = GaugeMetricFamily(
            "tritontune_gain_on_offer", "Gain of the open proposal, as a ratio of throughputs.", labels=labels
        )
        for target in self._service.targets(self._who, limit=_MOST_TARGETS).items:
            for point in target.deployed:
                place = [target.name, point.model]
                if point.holds_slo is not None:
                    holds.add_metric(place, float(point.holds_slo))
                if point.throughput is not None:
                    speed.add_metric(place, point.throughput.value)
                if point.gain_on_offer is not None:
                    gains.add_metric(place, point.gain_on_offer.value)
        yield from (holds, speed, gains)
