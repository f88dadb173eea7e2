"""What every load engine must do, against whatever server a subclass brings."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import pairwise
from typing import Protocol

import numpy as np
import pytest

from tuner.load.protocols import Concurrency, LoadEngine, Samples, Watch


class Service(Protocol):
    """A server with one model."""

    @property
    def address(self) -> str:
        """`host:port` of the gRPC endpoint."""

    @property
    def requests(self) -> tuple[bytes, ...]:
        """Requests to the model."""

    def successes(self) -> int:
        """How many requests the server has answered without error."""

    def kill(self) -> None:
        """End it as SIGKILL does."""


Serve = Callable[[str], Service]
"""Serves a model: `echo` and `doomed` answer at once, `sleep` after 10 ms or more, `flaky` two times of three, `fail`
never, and `hang` not at all. Only what is doomed is killed."""


def for_seconds(seconds: float) -> Watch:
    """Ends the load after so long."""
    return lambda samples: None if samples.wall_s >= seconds else seconds - samples.wall_s


def until_requests(count: int, *, at_most_s: float = 20.0) -> Watch:
    """Ends the load as soon as so many have ended, well or not, or after a while."""
    return lambda samples: None if len(samples) >= count or samples.wall_s > at_most_s else 0.02


def target(service: Service) -> tuple[str, tuple[bytes, ...]]:
    """Where to send which requests."""
    return service.address, service.requests


class LoadEngineContract(ABC):
    """Subclass it with a fixture `serve`, a `Serve`, and `make_engine`."""

    @abstractmethod
    def make_engine(self, address: str, requests: tuple[bytes, ...], request_timeout_s: float) -> LoadEngine:
        """The engine under test."""

    def offer(
        self,
        service: Service,
        watch: Watch,
        *,
        concurrency: int = 4,
        request_timeout_s: float = 10.0,
        first_look_s: float = 0.05,
    ) -> Samples:
        """One offer by an engine of its own."""
        with self.make_engine(service.address, service.requests, request_timeout_s) as engine:
            return engine.offer(Concurrency(concurrency), watch, first_look_s=first_look_s)

    @pytest.mark.parametrize("concurrency", [1, 7])
    def test_its_counts_agree_with_the_servers(self, serve: Serve, concurrency: int) -> None:
        service = serve("echo")
        before = service.successes()
        samples = self.offer(service, until_requests(200), concurrency=concurrency)
        served = service.successes() - before
        assert samples.ok.all()
        # Those under way at the end are served, too, and not in the samples.
        assert 200 <= len(samples) <= served <= len(samples) + concurrency

    def test_it_holds_the_concurrency(self, serve: Serve) -> None:
        samples = self.offer(serve("sleep"), until_requests(150), concurrency=6)
        latency_s = (samples.done_ns - samples.sent_ns).sum() / 1e9
        span_s = (samples.done_ns[-1] - samples.sent_ns.min()) / 1e9
        # Little's law; what was under way at the end is missing from the sum.
        assert 5.3 < latency_s / span_s <= 6

    def test_its_samples_are_well_formed(self, serve: Serve) -> None:
        samples = self.offer(serve("flaky"), until_requests(60))
        assert len(samples.sent_ns) == len(samples.done_ns) == len(samples.ok) == len(samples)
        assert [array.dtype.name for array in (samples.sent_ns, samples.done_ns, samples.ok)] == [
            "int64",
            "int64",
            "bool",
        ]
        assert (np.diff(samples.done_ns) >= 0).all()
        assert (samples.done_ns > samples.sent_ns).all()
        assert (samples.done_ns[-1] - samples.sent_ns.min()) / 1e9 <= samples.wall_s
        assert samples.cpu_s >= 0
        assert sum(samples.errors.values()) == np.count_nonzero(~samples.ok)

    def test_failures_are_counted_beside_successes(self, serve: Serve) -> None:
        samples = self.offer(serve("flaky"), until_requests(60))
        assert 0.5 < samples.ok.mean() < 0.8
        ((message, count),) = samples.errors.items()
        assert message.startswith("INTERNAL: ")
        assert "the model says no" in message
        assert count == np.count_nonzero(~samples.ok)

    def test_a_model_that_always_fails_is_counted_and_costs_little(self, serve: Serve) -> None:
        samples = self.offer(serve("fail"), for_seconds(1.0))
        assert not samples.ok.any()
        assert 10 <= len(samples) <= 200
        assert samples.cpu_s < 0.5

    def test_a_request_that_is_not_answered_fails_at_its_deadline(self, serve: Serve) -> None:
        samples = self.offer(serve("hang"), until_requests(3), concurrency=3, request_timeout_s=0.3)
        assert not samples.ok.any()
        assert all(message.startswith("DEADLINE_EXCEEDED: ") for message in samples.errors)
        latency_s = (samples.done_ns - samples.sent_ns) / 1e9
        assert (latency_s >= 0.28).all()
        assert (latency_s < 1.5).all()

    def test_it_ends_when_told_though_nothing_is_answered(self, serve: Serve) -> None:
        began = time.monotonic()
        samples = self.offer(serve("hang"), for_seconds(0.1), request_timeout_s=60)
        assert len(samples) == 0
        assert samples.wall_s < 1
        assert time.monotonic() - began < 5

    def test_a_server_that_is_killed_ends_in_errors(self, serve: Serve) -> None:
        service = serve("doomed")
        killed_s: list[float] = []

        def watch(samples: Samples) -> float | None:
            if not killed_s and len(samples) >= 20:
                service.kill()
                killed_s.append(samples.wall_s)
            return None if killed_s and samples.wall_s > killed_s[0] + 0.7 else 0.02

        samples = self.offer(service, watch, request_timeout_s=5)
        assert samples.ok[:20].all()
        assert not samples.ok[-1]
        assert sum(samples.errors.values()) == np.count_nonzero(~samples.ok) > 3
        assert all(message.startswith(("UNAVAILABLE: ", "CANCELLED: ")) for message in samples.errors)

    def test_a_server_that_is_not_there_ends_in_errors(self, serve: Serve) -> None:
        with self.make_engine("127.0.0.1:9", serve("echo").requests, 5) as engine:
            samples = engine.offer(Concurrency(2), until_requests(4), first_look_s=0.05)
        assert not samples.ok.any()
        assert all(message.startswith("UNAVAILABLE: ") for message in samples.errors)

    def test_it_looks_when_asked_and_sees_all_so_far(self, serve: Serve) -> None:
        looks: list[Samples] = []

        def watch(samples: Samples) -> float | None:
            looks.append(samples)
            return None if len(looks) == 4 else 0.1

        final = self.offer(serve("sleep"), watch, first_look_s=0.2)
        assert 0.2 <= looks[0].wall_s < 0.5
        assert all(later.wall_s - earlier.wall_s >= 0.1 for earlier, later in pairwise(looks))
        assert all(len(later) > len(earlier) for earlier, later in pairwise(looks))
        for look in looks:
            assert look.done_ns.tolist() == final.done_ns[: len(look)].tolist()
            assert look.sent_ns.tolist() == final.sent_ns[: len(look)].tolist()

    def test_the_load_goes_on_while_it_looks(self, serve: Serve) -> None:
        lengths: list[int] = []

        def watch(samples: Samples) -> float | None:
            if not lengths:
                time.sleep(0.3)
            lengths.append(len(samples))
            return None if len(lengths) == 2 else 0.0

        samples = self.offer(serve("sleep"), watch)
        gaps_s = np.diff(samples.done_ns) / 1e9
        assert lengths[1] > lengths[0] + 10
        assert gaps_s.max() < 0.25

    def test_it_can_offer_again_another_load(self, serve: Serve) -> None:
        with self.make_engine(*target(serve("echo")), 10) as engine:
            first = engine.offer(Concurrency(2), until_requests(20), first_look_s=0.05)
            second = engine.offer(Concurrency(5), until_requests(20), first_look_s=0.05)
        assert first.ok.all()
        assert second.ok.all()
        assert second.sent_ns.min() > first.done_ns.max()

    @pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
    @pytest.mark.parametrize("model", ["echo", "hang"])
    def test_what_the_watch_raises_ends_it_at_once(self, serve: Serve, kind: type[BaseException], model: str) -> None:
        def watch(_: Samples) -> float | None:
            raise kind("enough")

        with self.make_engine(*target(serve(model)), 60) as engine:
            began = time.monotonic()
            with pytest.raises(kind, match="enough"):
                engine.offer(Concurrency(4), watch, first_look_s=0.05)
            assert time.monotonic() - began < 2

    def test_it_works_again_after_a_watch_has_raised(self, serve: Serve) -> None:
        def watch(_: Samples) -> float | None:
            raise RuntimeError("enough")

        with self.make_engine(*target(serve("sleep")), 10) as engine:
            with pytest.raises(RuntimeError, match="enough"):
                engine.offer(Concurrency(4), watch, first_look_s=0.05)
            assert engine.offer(Concurrency(4), until_requests(20), first_look_s=0.05).ok.all()

    def test_it_closes_more_than_once(self, serve: Serve) -> None:
        engine = self.make_engine(*target(serve("echo")), 10)
        engine.close()
        engine.close()
