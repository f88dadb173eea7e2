"""Writes the night's metrics for Prometheus, for node_exporter's textfile collector."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

from tuner.nightly.outcome import EXIT_CODES, NightReport

_LABELS = ("repository", "model")


def write_metrics(report: NightReport, path: Path) -> None:
    """Write all metrics of a night's report to a file, atomically.

    Raises:
        OSError: the file cannot be written.
    """
    registry = CollectorRegistry()

    def gauge(name: str, what: str, *more: str) -> Gauge:
        return Gauge(f"tritontune_nightly_{name}", what, (*_LABELS, *more), registry=registry)

    gain = gauge("gain_ratio", "Gain of the candidate over the deployed config by the objective, in pairs of launches")
    low = gauge("gain_low_ratio", "Lower bound of the 95 % interval of the gain")
    throughput = gauge("throughput_inferences_per_second", "Throughput of the config that is deployed after the night")
    p99 = gauge("p99_seconds", "Latency of the config that is deployed after the night")
    limited = gauge("latency_seconds", "Latency of it at the highest percentile that the SLO limits", "percentile")
    regression = gauge("regression", "1 if the deployed config is slower than its own history")
    failed = gauge("failed", "1 if the night of this model failed")
    improved = gauge("improved", "1 if an improvement was proposed, applied, or given to the command")
    took = gauge("duration_seconds", "Duration of the model's part of the night")
    for job in report.jobs:
        labels = {"repository": job.repository, "model": job.model}
        if job.gain:
            gain.labels(**labels).set(job.gain.value)
            low.labels(**labels).set(job.gain.low)
        if serving := job.serving:
            throughput.labels(**labels).set(serving.throughput.value)
            p99.labels(**labels).set(serving.p99_ms.value / 1e3)
            limited.labels(**labels, percentile=serving.percentile).set(serving.latency.value / 1e3)
        regression.labels(**labels).set(job.regression)
        failed.labels(**labels).set(job.outcome == "failed")
        improved.labels(**labels).set(bool(job.action))
        took.labels(**labels).set(job.duration_s)
    whole = Gauge(
        "tritontune_nightly_exit_code",
        "Exit code of the night: 0 kept, 10 improved, 20 regression, 1 failed",
        registry=registry,
    )
    whole.set(EXIT_CODES[report.outcome])
    ended = Gauge(
        "tritontune_nightly_last_run_timestamp_seconds",
        "Unix time at which the night ended",
        registry=registry,
    )
    ended.set(datetime.fromisoformat(report.night).timestamp() + report.duration_s)
    write_to_textfile(str(path), registry)
