"""A live line with results of the current load."""

from __future__ import annotations

from types import TracebackType

import numpy as np
from rich.console import Console
from rich.markup import escape
from typing_extensions import Self

from tuner.core.loads import Load
from tuner.core.slo import Percentile, share_of
from tuner.load.protocols import Samples
from tuner.report.pull_bar import PullBar
from tuner.results.words import latency, rate
from tuner.servers.docker.pull import Pull

# Number of latest requests shown: enough for a p99, and quick to sort.
_LATEST = 5_000


class LiveLine:
    """Shows the latest throughput and latency on a terminal, and nothing elsewhere. Use it as a context manager.

    Args:
        console: Where to show it.
        batch_size: Inferences in each request.
        percentile: Latency percentile to show beside the median.
    """

    def __init__(self, console: Console, batch_size: int, percentile: Percentile = "p99") -> None:
        self._status = console.status("preparing")
        self._batch_size = batch_size
        self._percentile = percentile
        self._pull_bar = PullBar(console)

    def pulling(self, pull: Pull) -> None:
        """Show the progress of an image pull instead."""
        self._status.stop()
        self._pull_bar.see(pull)
        if pull.ended:
            self._status.start()

    def see(self, load: Load, samples: Samples) -> None:
        """Show the latest throughput and latency of the samples."""
        self._status.update(escape(live_words(load, samples, self._batch_size, self._percentile)))

    def __enter__(self) -> Self:
        self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pull_bar.stop()
        self._status.stop()


def live_words(load: Load, samples: Samples, batch_size: int, percentile: Percentile = "p99") -> str:
    """The latest requests: `concurrency 8, 2.1 s: 12,345 inferences/s, p50 0.61 ms, p99 2.3 ms, 3 errors`."""
    begin = f"{load}, {samples.wall_s:.1f} s"
    latest = slice(max(0, len(samples) - _LATEST), None)
    ok = samples.ok[latest]
    if not ok.any():
        return f"{begin}: no answers yet{_errors(samples)}"
    done_ns, sent_ns = samples.done_ns[latest][ok], samples.sent_ns[latest][ok]
    span_s = max(1, int(done_ns[-1] - sent_ns.min())) / 1e9
    names = dict.fromkeys(("p50", percentile))
    latencies_ms = np.quantile(done_ns - sent_ns, [share_of(name) for name in names]) / 1e6
    quantiles = [f"{name} {latency(value_ms)}" for name, value_ms in zip(names, latencies_ms, strict=True)]
    per_s = rate(len(done_ns) / span_s * batch_size)
    return f"{begin}: {per_s} inferences/s, {', '.join(quantiles)}{_errors(samples)}"


def _errors(samples: Samples) -> str:
    count = sum(samples.errors.values())
    return f", {count:,} error{'s' * (count != 1)}" if count else ""
