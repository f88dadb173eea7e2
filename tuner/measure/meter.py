"""What a server and its GPUs take while it is measured: the sources that one session asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tuner.measure.gpu_view import GpuUsage
from tuner.measure.gpu_watch import GpuWatch
from tuner.measure.sampling import Sampling
from tuner.measure.server_resources import ServerResources, resources
from tuner.measure.window import Window
from tuner.servers.usage import ServerUsage

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
    """

    gpus: GpuWatch | None = None
    server: Sampling[ServerUsage] | None = None

    def gpu_usage(self, window: Window, inferences: int) -> GpuUsage | None:
        """Of the GPUs, over the window, in which so many inferences succeeded."""
        return self.gpus.view(window.start_ns, window.end_ns, inferences) if self.gpus else None

    def server_resources(self, window: Window) -> ServerResources | None:
        """Of processors and memory, over the window."""
        return resources(self.server.between(window.start_ns, window.end_ns)) if self.server else None


@contextmanager
def metering(gpus: GpuWatch | None, usage: ReadUsage | None) -> Iterator[Meter]:
    """Sample the server's usage, beside the GPUs that are watched already.

    Args:
        gpus: A watch that was entered before the launch.
        usage: As `Meter` needs it; None: nobody can tell.
    """
    if usage is None:
        yield Meter(gpus)
        return
    with Sampling(usage, period_s=_PERIOD_S) as server:
        yield Meter(gpus, server)
