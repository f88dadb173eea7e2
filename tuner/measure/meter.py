"""What a server and its GPUs take while it is measured: the sources that one session asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tuner.measure.gpu_view import GpuUsage
from tuner.measure.gpu_watch import GpuWatch
from tuner.measure.machine_load import MachineLoad, ProcessorTimes, machine_load, processor_times
from tuner.measure.machine_speed import MachineSpeed, machine_speed, us_per_turn
from tuner.measure.sampling import Sampling
from tuner.measure.server_resources import ServerResources, resources
from tuner.servers.usage import ServerUsage
from tuner.stats.window import Window

# Its processes are many, and each costs a look; processors are told by a difference, and memory does not jump.
_PERIOD_S = 0.2

ReadUsage = Callable[[], "ServerUsage | None"]
"""Asks what the server has taken so far, as `Server.usage`."""


@dataclass(frozen=True)
class Meter:
    """Tells what was taken over a window of a load.

    Attributes:
        gpus: Those in use; None: nobody watches any.
        server: Samples of the server's own usage; None: nobody can tell.
        machine: Samples of this machine's processors; None: nobody looks.
        speed: Samples of what work costs on them; None: nobody looks, or the server runs elsewhere.
        server_elsewhere: Whether the server is surely on another machine.
    """

    gpus: GpuWatch | None = None
    server: Sampling[ServerUsage] | None = None
    machine: Sampling[ProcessorTimes] | None = None
    speed: Sampling[float] | None = None
    server_elsewhere: bool = False

    def gpu_usage(self, window: Window, inferences: int) -> GpuUsage | None:
        """Of the GPUs, over the window, in which so many inferences succeeded."""
        return self.gpus.view(window.start_ns, window.end_ns, inferences) if self.gpus else None

    def server_resources(self, window: Window) -> ServerResources | None:
        """Of processors and memory, over the window."""
        return resources(self.server.between(window.start_ns, window.end_ns)) if self.server else None

    def machine_load(self, window: Window, workers_cores: float) -> MachineLoad | None:
        """Of this machine, over the window, in which who offers the load took so many CPU seconds a second."""
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
        """How fast this machine was over the window, and how steadily."""
        return machine_speed(self.speed.between(window.start_ns, window.end_ns)) if self.speed else None


@contextmanager
def metering(gpus: GpuWatch | None, usage: ReadUsage | None, *, server_elsewhere: bool = False) -> Iterator[Meter]:
    """Sample the server's usage and this machine's, beside the GPUs that are watched already.

    Args:
        gpus: A watch that was entered before the launch.
        usage: As `Meter` needs it; None: nobody can tell.
        server_elsewhere: See `Meter`.
    """
    with ExitStack() as samplings:
        machine = samplings.enter_context(Sampling(processor_times))
        speed = None if server_elsewhere else samplings.enter_context(Sampling(us_per_turn))
        server = usage and samplings.enter_context(Sampling(usage, period_s=_PERIOD_S))
        yield Meter(gpus, server, machine, speed, server_elsewhere)
