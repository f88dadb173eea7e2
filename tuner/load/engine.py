"""The load engine: offers load from worker processes, and reads their samples meanwhile."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any

from typing_extensions import Self

from tuner.core.errors import TuningError
from tuner.core.interrupts import put_off
from tuner.core.loads import Concurrency, Load
from tuner.load.drivers import Answer, Offer, SingleRequest
from tuner.load.failures import failed
from tuner.load.protocols import Samples, Watch
from tuner.load.reading import LedgerReader, read_samples
from tuner.load.worker_channel import Channel
from tuner.load.workload import Plan, Request

# Time to drain requests under way, so that they do not affect the next load, in s.
_DRAIN_S = 1.0
# The time to drain requests after an error or Ctrl-C, in s.
_HURRIED_DRAIN_S = 0.25
# Extra time for a reply of a worker, in s.
_PATIENCE_S = 10.0
_START_S = 60.0
# Time between sending the offer to the workers and its start, in ns.
_HEAD_START_NS = 2_000_000
_MAIN = "import sys; sys.path[:] = {path!r}; from tuner.load.worker import main; main()"

Patience = Callable[[Load], float]
"""The deadline of a request under a load, in seconds."""


class WorkerEngine:
    """A `LoadEngine` whose load comes from worker processes with their own connections.

    So the caller's computations, garbage collection, threads and signal handlers never delay a request. If one core is
    not enough, more processes can be added.

    Args:
        plan: The requests, and where to send them.
        seed: Seed of the arrivals of open loops.
        processes: Number of workers.
        patience: The deadline of each request under a load, in seconds; None: the plan's.

    Raises:
        TuningError: a worker cannot be started.
    """

    def __init__(self, plan: Plan, *, seed: int = 0, processes: int = 1, patience: Patience | None = None) -> None:
        if not plan.workload.requests:
            raise ValueError("no request to send")
        self._plan = plan
        self._seed = seed
        self._patience = patience
        self._workers: list[_Worker] = []
        self.widen(processes)

    @property
    def processes(self) -> int:
        """Number of workers."""
        return len(self._workers)

    def widen(self, processes: int) -> None:
        """Start workers until there are `processes` of them."""
        before = len(self._workers)
        try:
            while len(self._workers) < processes:
                self._workers.append(_Worker(self._plan))
            for worker in self._workers[before:]:
                worker.await_reply(_START_S)
        except BaseException:
            self.close()
            raise

    def ask(self, request: Request, *, timeout_s: float | None = None) -> bytes:
        """Send one request and return its serialised answer; the first of several responses.

        Args:
            request: The request.
            timeout_s: Its deadline, in seconds; None: the plan's.

        Raises:
            ServerError: the request failed; the message has its code and reason.
        """
        self._mend()
        answer = self._workers[0].ask(request, timeout_s or self._plan.request_timeout_s)
        if answer.error:
            raise failed("a request failed", answer.error)
        return answer.body

    def offer(self, load: Load, watch: Watch, *, first_look_s: float) -> Samples:
        """See `LoadEngine.offer`."""
        self._mend()
        workers = self._workers[: load.requests] if isinstance(load, Concurrency) else self._workers
        timeout_s = self._patience(load) if self._patience else None
        with _ledgers(workers) as (readers, descriptors):
            start_ns = time.monotonic_ns() + _HEAD_START_NS
            over = False
            try:
                for number, (worker, descriptor) in enumerate(zip(workers, descriptors, strict=True)):
                    worker.begin(Offer(load, self._seed, number, len(workers), start_ns, timeout_s), descriptor)
                pause_s: float | None = first_look_s + _HEAD_START_NS / 1e9
                while pause_s is not None:
                    over = _await_all(workers, pause_s)
                    pause_s = None if over else watch(self._read(readers))
                if over:
                    watch(self._read(readers))
            except BaseException:
                # After an interrupted message, there will be no reply.
                with contextlib.suppress(TuningError):
                    self._end(workers, readers, _HURRIED_DRAIN_S)
                raise
            self._end(workers, readers, _DRAIN_S)
            return self._read(readers)

    def close(self) -> None:
        """See `LoadEngine.close`."""
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self, readers: Sequence[LedgerReader]) -> Samples:
        return read_samples(readers, decoupled=self._plan.workload.decoupled)

    def _end(self, workers: Sequence[_Worker], readers: Sequence[LedgerReader], drain_s: float) -> None:
        """Stop all workers, and wait until they have stopped; close workers that do not stop."""
        until_ns = time.monotonic_ns() + round(drain_s * 1e9)
        for reader in readers:
            reader.stop(until_ns)
        try:
            for worker in workers:
                if worker.busy:
                    worker.await_reply(drain_s + _PATIENCE_S)
        except BaseException:
            for worker in workers:
                if worker.busy:
                    worker.close()
            raise

    def _mend(self) -> None:
        """Replace workers that have ended."""
        wanted = len(self._workers)
        for worker in self._workers:
            if not worker.lives:
                worker.close()
        self._workers = [worker for worker in self._workers if worker.lives]
        self.widen(wanted)
        if not self._workers:
            raise ValueError("the engine is closed")


class _Worker:
    """The owner's side of one worker process, which handles one command at a time."""

    def __init__(self, plan: Plan) -> None:
        ours, theirs = socket.socketpair()
        ours.settimeout(_START_S)
        self._channel = Channel(ours)
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the worker)
        command = [sys.executable, "-I", "-c", _MAIN.format(path=sys.path), str(theirs.fileno())]
        try:
            self._process = subprocess.Popen(  # noqa: S603 (our own Python)
                command,
                stdin=subprocess.DEVNULL,
                stdout=self._words,
                stderr=self._words,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        except OSError as error:
            self._channel.close()
            self._words.close()
            raise TuningError(f"the load generator cannot be started: {error.strerror}") from None
        finally:
            theirs.close()
        self.closed = self.busy = False
        try:
            self._send(plan)
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        return self._channel.fileno()

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    def begin(self, offer: Offer, descriptor: int) -> None:
        self._send(offer, (descriptor,))

    def ask(self, request: Request, timeout_s: float) -> Answer:
        self._send(SingleRequest(request, timeout_s))
        answer: Answer = self.await_reply(timeout_s + _PATIENCE_S)
        return answer

    def await_reply(self, within_s: float) -> Any:
        """The reply to the last command.

        Raises:
            TuningError: the worker has failed, or does not reply in time.
        """
        if not select.select([self._channel], [], [], within_s)[0]:
            self.close()
            raise TuningError(f"the load generator did not answer within {within_s:g} s")
        try:
            # After an interruption, the reply would be lost, or be taken for the reply to the next command.
            with put_off():
                reply, _ = self._channel.receive()
                self.busy = False
        except (EOFError, OSError):
            raise self._broken() from None
        return reply

    def close(self) -> None:
        """End the process; may be repeated."""
        if self.closed:
            return
        # An idle worker ends by itself when the channel is closed.
        patience_s = 0 if self.busy else 1
        self.closed, self.busy = True, False
        self._channel.close()
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(patience_s)
        finally:
            self._process.kill()
            self._process.wait()
            self._words.close()

    def _send(self, message: object, descriptors: tuple[int, ...] = ()) -> None:
        self.busy = True
        try:
            # Half a message would break the channel.
            with put_off():
                self._channel.send(message, descriptors)
        except OSError:
            raise self._broken() from None

    def _broken(self) -> TuningError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        self._words.seek(0)
        lines = self._words.read().decode(errors="replace").strip().splitlines()
        how = lines[-1] if lines else f"exit code {self._process.poll()}"
        self.close()
        return TuningError(f"the load generator failed: {how}")


@contextlib.contextmanager
def _ledgers(workers: Sequence[_Worker]) -> Iterator[tuple[list[LedgerReader], list[int]]]:
    """Create a ledger for each worker."""
    descriptors: list[int] = []
    readers: list[LedgerReader] = []
    try:
        for _ in workers:
            reader, descriptor = LedgerReader.make()
            readers.append(reader)
            descriptors.append(descriptor)
        yield readers, descriptors
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _await_all(workers: Sequence[_Worker], within_s: float) -> bool:
    """Whether all workers have replied within the time."""
    end = time.monotonic() + within_s
    while busy := [worker for worker in workers if worker.busy]:
        replying = select.select(busy, [], [], max(0.0, end - time.monotonic()))[0]
        if not replying:
            return False
        for worker in replying:
            worker.await_reply(0)
    return True
