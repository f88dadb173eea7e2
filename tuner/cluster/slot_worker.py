"""The process of a slot: opens the slot once, and carries out pieces of work, one after the other.

Its owner (`SlotProcess`) sends it an `Opening` and then works, over a socket pair, and receives what happens. It ends
with its owner, and by SIGTERM or SIGINT, and stops its server before.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.cluster.slot_context import SlotContext, SlotRecipe, open_slot
from tuner.cluster.slots import HostFacts, Slot
from tuner.core.interrupts import end_on_sigterm, ignore_what_ends
from tuner.core.loads import Load
from tuner.core.machine import Machine
from tuner.core.redaction import keep_secret, keep_secret_of_argument, value_of_variable
from tuner.load.worker_channel import Channel
from tuner.measure.points import OperatingPoint
from tuner.measure.work import Outcome, Work, carry_out
from tuner.options.environment import resolved
from tuner.options.tune_job import TuneJob
from tuner.servers.docker.pull import Pull

BEAT_S = 2.0
"""Seconds between signs of life while it works."""

GRACE_S = 8.0
"""Seconds within which the process ends after its owner, or after a signal."""


@dataclass(frozen=True)
class Opening:
    """What the process needs to begin.

    Attributes:
        recipe: What to launch.
        slot: The slot.
        environment: Variables to set; None removes one. They may be secret, so they are not those that the process is
            started with.
    """

    recipe: SlotRecipe
    slot: Slot
    environment: Mapping[str, str | None]


@dataclass(frozen=True)
class Order:
    """A piece of work.

    Attributes:
        work: The work.
        folder: The folder for its files.
    """

    work: Work
    folder: Path


@dataclass(frozen=True)
class Opened:
    """The slot is open.

    Attributes:
        facts: Those of this host.
        machine: What the slot has.
        description: The Triton, and how it is launched.
    """

    facts: HostFacts
    machine: Machine
    description: str


@dataclass(frozen=True)
class Alive:
    """A sign of life."""


@dataclass(frozen=True)
class Noted:
    """A message for the user."""

    text: str


@dataclass(frozen=True)
class Pulled:
    """The progress of pulling the image."""

    pull: Pull


@dataclass(frozen=True)
class LevelBegan:
    """A load level is about to be measured."""

    load: Load


@dataclass(frozen=True)
class PointMeasured:
    """A load level was measured."""

    point: OperatingPoint


@dataclass(frozen=True)
class Ended:
    """The work has an outcome."""

    outcome: Outcome


@dataclass(frozen=True)
class Failed:
    """The slot or the work has failed.

    Attributes:
        error: Why.
        trace: The traceback, as text.
    """

    error: Exception
    trace: str

    @classmethod
    def of(cls, error: Exception) -> Failed:
        """The failure by an error; one that cannot travel becomes a `RuntimeError` of the same words."""
        trace = "".join(traceback.format_exception(error))
        try:
            copy = pickle.loads(pickle.dumps(error))  # noqa: S301 (our own)
        except Exception:  # noqa: BLE001 (whatever its constructor raises)
            copy = RuntimeError(f"{type(error).__name__}: {error}")
        return cls(copy, trace)


class _Owner:
    """Sends messages to the owner, from any thread. After its end, nothing is sent."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._lock = threading.Lock()

    def tell(self, message: object) -> None:
        # `_listen` notices the end of the owner.
        with self._lock, suppress(OSError):
            self._channel.send(message)

    def note(self, text: str) -> None:
        self.tell(Noted(text))

    def see_pull(self, pull: Pull) -> None:
        self.tell(Pulled(pull))

    def level_began(self, load: Load) -> None:
        self.tell(LevelBegan(load))

    def point_measured(self, point: OperatingPoint) -> None:
        self.tell(PointMeasured(point))

    @contextmanager
    def hearing(self) -> Iterator[None]:
        """Within the context, the owner gets signs of life."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(BEAT_S):
                self.tell(Alive())

        threading.Thread(target=beat, daemon=True).start()
        try:
            yield
        finally:
            ended.set()


def main() -> None:
    """Serve the owner at the other end of a socket.

    The first argument is the descriptor of the socket. Further ones are descriptors of locks, which are held until this
    process ends.
    """
    end_on_sigterm()
    end, *locks = map(int, sys.argv[1:])
    for descriptor in (end, *locks):
        os.set_inheritable(descriptor, False)  # noqa: FBT003 (it takes no keywords)
    channel = Channel(socket.socket(fileno=end))
    orders: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(channel, orders), daemon=True).start()
    owner = _Owner(channel)
    try:
        _serve(orders, owner)
    except KeyboardInterrupt:
        pass  # the contexts have stopped the server
    except Exception as error:  # noqa: BLE001 (the owner raises it)
        owner.tell(Failed.of(error))
    finally:
        ignore_what_ends()


def _listen(channel: Channel, orders: queue.SimpleQueue[Any]) -> None:
    """Pass on what the owner sends. At its end, interrupt the work, and kill this process if it does not end."""
    try:
        while True:
            message, _ = channel.receive()
            orders.put(message)
    except (EOFError, OSError):
        os.kill(os.getpid(), signal.SIGTERM)
    except Exception as error:  # noqa: BLE001 (whatever unpickling raises)
        orders.put(error)
        return
    time.sleep(GRACE_S)
    os.kill(os.getpid(), signal.SIGKILL)


def _serve(orders: queue.SimpleQueue[Any], owner: _Owner) -> None:
    opening = _next(orders)
    for name, value in opening.environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    _keep_secrets_of(opening.recipe.job)
    if opening.slot.load_cores:
        os.sched_setaffinity(0, opening.slot.load_cores)
    with ExitStack() as open_until_the_end:
        with owner.hearing():
            context = open_until_the_end.enter_context(
                open_slot(opening.recipe, opening.slot, owner.note, owner.see_pull)
            )
            description = context.launcher.description
            owner.tell(Opened(HostFacts.here(context.machine, description), context.machine, description))
        while True:
            order = _next(orders)
            with owner.hearing():
                message = _done(order, context, owner)
                try:
                    owner.tell(message)
                except Exception as error:  # noqa: BLE001 (whatever pickling raises)
                    owner.tell(Failed.of(error))


def _next(orders: queue.SimpleQueue[Any]) -> Any:
    message = orders.get()
    if isinstance(message, Exception):
        raise message
    return message


def _done(order: Order, context: SlotContext, owner: _Owner) -> Ended | Failed:
    try:
        return Ended(carry_out(order.work, context.trial_context(order.work.terms), order.folder, owner))
    except Exception as error:  # noqa: BLE001 (the owner raises it)
        return Failed.of(error)


def _keep_secrets_of(job: TuneJob) -> None:
    """Redact the secrets of a job in this process, too; it was parsed in another one."""
    for header in job.header:
        keep_secret(*header)
    for name, value in resolved(job.env).items():
        if value_of_variable(name, value) != value:
            keep_secret(name, value)
    for argument in job.arguments:
        keep_secret_of_argument(argument)
