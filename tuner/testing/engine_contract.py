"""The contract of load engines, against any server that a subclass provides."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import ClassVar, Protocol

import numpy as np
import pytest

from tuner.core.errors import ServerError, ServerHungError
from tuner.core.loads import Concurrency, Load, Replay, RequestRate
from tuner.load.engine import WorkerEngine
from tuner.load.protocols import Samples, Watch
from tuner.load.workload import DriverName, Plan


class Service(Protocol):
    """A server with one model."""

    def plan(self, driver: DriverName, request_timeout_s: float) -> Plan:
        """The plan of a load: the address, and requests to the model."""

    def successes(self) -> int:
        """Number of requests that the server has answered without error."""

    def kill(self) -> None:
        """End the server with SIGKILL, or in an equivalent way."""


Serve = Callable[[str], Service]
"""Serves a model. `echo` and `doomed` answer at once, and `sleep` after 10 ms or more. `flaky` succeeds two times of
three. `fail` answers with an error, and `hang` never answers. Only servers of `doomed` are killed."""


def for_seconds(seconds: float) -> Watch:
    """Ends the load after a time in s."""
    return lambda samples: None if samples.wall_s >= seconds else seconds - samples.wall_s


_AT_MOST_S = 20.0
"""The time, in s, after which a load ends even if its condition is not met."""


def until_requests(count: int, *, at_most_s: float = _AT_MOST_S) -> Watch:
    """Ends the load after a number of completed requests, failed ones included, or after a time-out in s."""
    return lambda samples: None if len(samples) >= count or samples.wall_s > at_most_s else 0.02


def _grew(lengths: list[int], by: int) -> bool:
    return any(later > earlier + by for earlier, later in pairwise(lengths))


class LoadEngineContract:
    """The contract of a load engine. A subclass provides the driver and a fixture `serve` (`Serve`)."""

    driver: ClassVar[DriverName]

    def engine(self, service: Service, request_timeout_s: float = 10.0, *, processes: int = 1) -> WorkerEngine:
        """The engine under test."""
        return WorkerEngine(service.plan(self.driver, request_timeout_s), processes=processes)

    def offer(
        self,
        service: Service,
        watch: Watch,
        *,
        load: Load = Concurrency(4),  # noqa: B008 (frozen)
        request_timeout_s: float = 10.0,
        first_look_s: float = 0.05,
        processes: int = 1,
    ) -> Samples:
        """Offer one load with a new engine."""
        with self.engine(service, request_timeout_s, processes=processes) as engine:
            return engine.offer(load, watch, first_look_s=first_look_s)

    @pytest.mark.parametrize("concurrency", [1, 7])
    def test_its_counts_agree_with_the_servers(self, serve: Serve, concurrency: int) -> None:
        service = serve("echo")
        before = service.successes()
        samples = self.offer(service, until_requests(200), load=Concurrency(concurrency))
        served = service.successes() - before
        assert samples.ok.all()
        # Requests under way at the end are served, but not in the samples.
        assert 200 <= len(samples) <= served <= len(samples) + concurrency

    def test_it_holds_the_concurrency(self, serve: Serve) -> None:
        samples = self.offer(serve("sleep"), until_requests(300), load=Concurrency(6))
        latency_s = (samples.done_ns - samples.sent_ns).sum() / 1e9
        span_s = (samples.done_ns[-1] - samples.sent_ns.min()) / 1e9
        # Little's law; requests under way at the end are missing from the sum.
        assert 5 < latency_s / span_s <= 6

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
        samples = self.offer(serve("fail"), lambda so_far: None if len(so_far) >= 10 and so_far.wall_s >= 1 else 0.05)
        assert not samples.ok.any()
        # The engine pauses after each failure.
        assert 10 <= len(samples) <= 200 * samples.wall_s

    def test_a_request_that_is_not_answered_fails_at_its_deadline(self, serve: Serve) -> None:
        samples = self.offer(serve("hang"), until_requests(3), load=Concurrency(3), request_timeout_s=0.3)
        assert not samples.ok.any()
        assert all(message.startswith("DEADLINE_EXCEEDED: ") for message in samples.errors)
        latency_s = (samples.done_ns - samples.sent_ns) / 1e9
        assert len(samples) >= 3
        assert (latency_s >= 0.28).all()

    def test_a_load_and_a_request_of_its_own_may_have_deadlines_of_their_own(self, serve: Serve) -> None:
        plan, loads = serve("hang").plan(self.driver, 60), list[Load]()

        def patience(load: Load) -> float:
            loads.append(load)
            return 0.2

        with WorkerEngine(plan, patience=patience) as engine:
            samples = engine.offer(Concurrency(2), until_requests(2), first_look_s=0.05)
            assert set(samples.errors) == {"DEADLINE_EXCEEDED: no answer within 0.2 s"}
            assert loads == [Concurrency(2)]
            with pytest.raises(ServerHungError, match=r"no answer within 0\.3 s"):
                engine.ask(plan.workload.requests[0], timeout_s=0.3)

    def test_it_ends_when_told_though_nothing_is_answered(self, serve: Serve) -> None:
        samples = self.offer(serve("hang"), for_seconds(0.1), request_timeout_s=60)
        assert len(samples) == 0
        assert samples.wall_s < 30

    def test_a_server_that_is_killed_ends_in_errors(self, serve: Serve) -> None:
        service = serve("doomed")
        killed_s: list[float] = []

        def watch(samples: Samples) -> float | None:
            if not killed_s and len(samples) >= 20:
                service.kill()
                killed_s.append(samples.wall_s)
            enough = killed_s and samples.wall_s > killed_s[0] + 0.2 and np.count_nonzero(~samples.ok) > 3
            return None if enough or samples.wall_s > _AT_MOST_S else 0.02

        samples = self.offer(service, watch, request_timeout_s=5)
        assert samples.ok[:20].all()
        assert not samples.ok[-1]
        assert sum(samples.errors.values()) == np.count_nonzero(~samples.ok) > 3
        assert all(message.startswith(("UNAVAILABLE: ", "CANCELLED: ")) for message in samples.errors)

    def test_a_server_that_is_not_there_ends_in_errors(self, serve: Serve) -> None:
        plan = serve("echo").plan(self.driver, 5)
        with WorkerEngine(replace(plan, endpoint=replace(plan.endpoint, address="127.0.0.1:9"))) as engine:
            samples = engine.offer(Concurrency(2), until_requests(4), first_look_s=0.05)
        assert not samples.ok.any()
        assert all(message.startswith("UNAVAILABLE: ") for message in samples.errors)

    def test_it_looks_when_asked_and_sees_all_so_far(self, serve: Serve) -> None:
        looks: list[Samples] = []
        looked_s: list[float] = []

        def watch(samples: Samples) -> float | None:
            looked_s.append(time.monotonic())
            looks.append(samples)
            # On a busy machine, no request may end between two looks.
            return None if len({len(look) for look in looks}) == 4 or samples.wall_s > _AT_MOST_S else 0.1

        began_s = time.monotonic()
        final = self.offer(serve("sleep"), watch, first_look_s=0.2)
        assert looked_s[0] - began_s >= 0.2
        assert all(later - earlier >= 0.1 for earlier, later in pairwise(looked_s))
        assert all(later.wall_s > earlier.wall_s > 0 for earlier, later in pairwise(looks))
        assert all(len(later) >= len(earlier) for earlier, later in pairwise(looks))
        assert len({len(look) for look in looks}) == 4
        for look in looks:
            assert look.done_ns.tolist() == final.done_ns[: len(look)].tolist()
            assert look.sent_ns.tolist() == final.sent_ns[: len(look)].tolist()

    def test_the_load_goes_on_while_it_looks(self, serve: Serve) -> None:
        lengths: list[int] = []

        def watch(samples: Samples) -> float | None:
            lengths.append(len(samples))
            if _grew(lengths, 4) or samples.wall_s > _AT_MOST_S:
                return None
            time.sleep(0.3)
            return 0.0

        self.offer(serve("sleep"), watch, load=Concurrency(4))
        # More requests ended during one look than were under way at its start, so others were sent meanwhile.
        assert _grew(lengths, 4)

    def test_it_can_offer_again_another_load(self, serve: Serve) -> None:
        with self.engine(serve("echo")) as engine:
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

        with self.engine(serve(model), 60) as engine:
            began = time.monotonic()
            with pytest.raises(kind, match="enough"):
                engine.offer(Concurrency(4), watch, first_look_s=0.05)
            assert time.monotonic() - began < 30

    def test_it_works_again_after_a_watch_has_raised(self, serve: Serve) -> None:
        def watch(_: Samples) -> float | None:
            raise RuntimeError("enough")

        with self.engine(serve("sleep")) as engine:
            with pytest.raises(RuntimeError, match="enough"):
                engine.offer(Concurrency(4), watch, first_look_s=0.05)
            assert engine.offer(Concurrency(4), until_requests(20), first_look_s=0.05).ok.all()

    def test_what_comes_back_is_counted(self, serve: Serve) -> None:
        samples = self.offer(serve("echo"), until_requests(10))
        assert len(samples.received) == len(samples)
        assert (samples.received[samples.ok] > 0).all()
        assert (samples.lag_us == 0).all()
        assert samples.processes == 1

    def test_an_open_loop_keeps_its_schedule(self, serve: Serve) -> None:
        samples = self.offer(serve("echo"), until_requests(190), load=RequestRate(200, "constant"))
        assert samples.ok.all()
        # No request is answered before it is due. The load's own clock starts late on a busy machine.
        answering_s = (samples.done_ns.max() - samples.sent_ns.min()) / 1e9
        assert 190 <= len(samples) <= 200 * answering_s + 1
        # Requests are due every 5 ms, regardless of responses; those under way at the end are not counted.
        gaps_ns = np.diff(np.sort(samples.sent_ns))
        assert set(gaps_ns[:100].tolist()) == {5_000_000}
        assert set((gaps_ns % 5_000_000).tolist()) == {0}
        assert (samples.lag_us >= 0).all()

    def test_poisson_arrivals_are_as_the_seed_says(self, serve: Serve) -> None:
        service = serve("echo")
        schedules = []
        for _ in range(2):
            samples = self.offer(service, until_requests(40), load=RequestRate(300, "poisson"))
            schedules.append(set((samples.sent_ns - samples.sent_ns.min()).tolist()))
        # Some may still be under way at the end.
        assert len(schedules[0] & schedules[1]) >= 30
        assert len(set(np.diff(sorted(schedules[0])).tolist())) > 30

    def test_an_open_loop_goes_on_sending_while_nothing_is_answered(self, serve: Serve) -> None:
        samples = self.offer(
            serve("hang"), until_requests(30), load=RequestRate(100, "constant"), request_timeout_s=0.3
        )
        assert not samples.ok.any()
        assert set(np.diff(np.sort(samples.sent_ns)[:20]).tolist()) == {10_000_000}

    def test_a_recording_is_replayed_and_ends_by_itself(self, serve: Serve) -> None:
        offsets_ns = (0, 1_000_000, 1_000_000, 50_000_000, 200_000_000)
        looks: list[int] = []

        def watch(samples: Samples) -> float:
            looks.append(len(samples))
            return 60.0

        samples = self.offer(serve("sleep"), watch, load=Replay("test", offsets_ns))
        sent_ns = np.sort(samples.sent_ns)
        assert (sent_ns - sent_ns[0]).tolist() == list(offsets_ns)
        assert samples.ok.all()
        assert looks[-1] == 5

    @pytest.mark.parametrize("load", [Concurrency(5), RequestRate(250, "constant")])
    def test_several_processes_share_a_load(self, serve: Serve, load: Load) -> None:
        looks: list[Samples] = []

        def watch(samples: Samples) -> float | None:
            looks.append(samples)
            return None if len(samples) >= 100 or samples.wall_s > _AT_MOST_S else 0.1

        service = serve("sleep")
        before = service.successes()
        samples = self.offer(service, watch, load=load, processes=2)
        assert samples.processes == 2
        assert samples.ok.all()
        assert len(samples) <= service.successes() - before
        assert (np.diff(samples.done_ns) >= 0).all()
        for look in looks:
            assert look.done_ns.tolist() == samples.done_ns[: len(look)].tolist()
        if isinstance(load, RequestRate):
            assert set(np.diff(np.sort(samples.sent_ns)[:60]).tolist()) == {4_000_000}

    def test_one_request_of_its_own_brings_its_answer(self, serve: Serve) -> None:
        service = serve("echo")
        with self.engine(service) as engine:
            answer = engine.ask(service.plan(self.driver, 10).workload.requests[0])
        assert len(answer) > 4

    def test_one_request_of_its_own_that_fails_says_why(self, serve: Serve) -> None:
        service = serve("fail")
        with self.engine(service) as engine, pytest.raises(ServerError, match=r"INTERNAL: .*the model says no"):
            engine.ask(service.plan(self.driver, 10).workload.requests[0])

    def test_it_closes_more_than_once(self, serve: Serve) -> None:
        engine = self.engine(serve("echo"))
        engine.close()
        engine.close()
