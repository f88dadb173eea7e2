"""Opens the executor of a job with several slots, or on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tuner.cluster.executor import Executor
from tuner.cluster.host_changes import HostChange
from tuner.cluster.local import local_executor
from tuner.cluster.ray.executor import RayExecutor
from tuner.cluster.slot_context import SlotRecipe
from tuner.servers.docker.pull import SeePull


@contextmanager
def open_executor(
    recipe: SlotRecipe, *, note: Callable[[str], None], see_pull: SeePull, tell: Callable[[HostChange], None]
) -> Iterator[Executor]:
    """The executor that a job asks for, with at least one host.

    Args:
        recipe: What slots are opened by.
        note: Takes messages for the user, from any thread.
        see_pull: Called with the progress of pulling an image, from any thread.
        tell: Called with what happens to a host, from any thread.

    Raises:
        UsageError: the job cannot be carried out here, or on that cluster.
        TuningError: no host can be used.
    """
    if recipe.job.executor == "ray":
        with RayExecutor(recipe, note=note, tell=tell) as there:
            yield there
        return
    with local_executor(recipe, note=note, see_pull=see_pull, tell=tell) as here:
        yield here
