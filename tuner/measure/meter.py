"""Resource usage of a server, its GPUs and this machine during a session."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

from tuner.measure.gpu_view import GpuUsage
from tuner.measure.gpu_watch import GpuWatch
from tuner.measure.machine_load import MachineLoad, ProcessorTimes, machine_load, processor_times
from tuner.measure.machine_speed import MachineSpeed, machine_speed, us_per_turn
from tuner.measure.sampling import Sampling
from tuner.measure.server_resources import ServerResources, resources
from tuner.servers.usage import ServerUsage
from tuner.stats.window import Window

# In s. Reading all processes of a server is expensive, and its usage changes slowly.
_PERIOD_S = 0.2

ReadUsage = Callable[[], "ServerUsage | None"]
"""Reads the server's usage so far, as `Server.usage`."""


@dataclass(frozen=True)
class Meter:
    """Resource usage over a window of a load.

    Attributes:
        gpus: The watch over the GPUs; None: GPUs are not watched.
        server: Samples of the server's usage; None: not available.
        machine: Samples of this machine's processors; None: not sampled.
        speed: Samples of this machine's speed; None: not sampled, or the server runs on another machine.
        server_elsewhere: Whether the server is known to be on another machine.
    """

    gpus: GpuWatch | None = None
    server: Sampling[ServerUsage] | None = None
    machine: Sampling[ProcessorTimes] | None = None
    speed: Sampling[float] | None = None
    server_elsewhere: bool = False

    def gpu_usage(self, window: Window, inferences: int) -> GpuUsage | None:
        """GPU usage over the window, with its number of successful inferences."""
        return self.gpus.view(window.start_ns, window.end_ns, inferences) if self.gpus else None

    def server_resources(self, window: Window) -> ServerResources | None:
        """CPU and memory usage of the server over the window."""
        return resources(self.server.between(window.start_ns, window.end_ns)) if self.server else None

    def machine_load(self, window: Window, workers_cores: float) -> MachineLoad | None:
        """Load of this machine over the window, with the CPU seconds per second of the load generator."""
        if self.machine is None:
            return None
        server = self.server.between(window.start_ns, window.end_ns) if self.server else ()
        return machine_load(
            self.machine.between(window.start_ns, window.end_ns),
            server,
            workers_cores=workers_cores,
            server_elsewhere=self.server_elsewhere,
        )

    def machine_speed(self, window: Window) -> MachineSpeed | None:
        """The speed of this machine over the window, and its variation."""
        return machine_speed(self.speed.between(window.start_ns, window.end_ns)) if self.speed else None


@contextmanager
def metering(
    gpus: GpuWatch | None, usage: ReadUsage | None, *, server_elsewhere: bool = False, cores: Collection[int] = ()
) -> Iterator[Meter]:
    """Sample the usage of the server and of this machine within the context.

    Args:
        gpus: A GPU watch that was entered before the launch.
        usage: Reads the server's usage; None: not available.
        server_elsewhere: See `Meter`.
        cores: The cores of the server and the load generator; empty: all.
    """
    with ExitStack() as samplings:
        machine = samplings.enter_context(Sampling(partial(processor_times, cores)))
        speed = None if server_elsewhere else samplings.enter_context(Sampling(us_per_turn))
        server = usage and samplings.enter_context(Sampling(usage, period_s=_PERIOD_S))
        yield Meter(gpus, server, machine, speed, server_elsewhere)
