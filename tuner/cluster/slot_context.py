"""What a slot needs to launch servers: a launcher, a copy of the repository, and its GPUs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from tuner.cluster.slots import Slot
from tuner.config.beside import place_beside
from tuner.config.config import ModelConfig
from tuner.config.repository import ModelRepository
from tuner.config.staging import StagedRepository, stage
from tuner.core.errors import JobError, TritontuneError
from tuner.core.machine import Machine
from tuner.measure.gpu import Gpus
from tuner.measure.work import TrialContext, TrialTerms
from tuner.options.tune_job import TuneJob
from tuner.servers.callees import Callees
from tuner.servers.choose_launcher import choose_launcher, clear_leftovers
from tuner.servers.docker.pull import SeePull
from tuner.servers.pins import NO_PINS, Pins
from tuner.servers.protocols import Launcher
from tuner.servers.reload import ReloadLauncher
from tuner.servers.work_folder import remove_abandoned_work, work_folder


@dataclass(frozen=True)
class SlotRecipe:
    """What a slot is opened by, on any host. It can be pickled, and holds the secrets of the job.

    Attributes:
        job: The job.
        models: Names of the models to tune.
        repository: The model repository on the host of the slot.
    """

    job: TuneJob
    models: tuple[str, ...]
    repository: Path


@dataclass(frozen=True)
class SlotContext:
    """An open slot: the launches of a run share it, one after the other.

    Attributes:
        job: The job.
        launcher: Launches the servers.
        repository: Our copy of the user's repository.
        gpus: The GPUs of the slot.
        machine: What the slot has.
        caches: The folder of engines that launches share; None: servers run elsewhere.
        note: Takes messages for the user.
        cores: The cores of servers and their load generator; empty: they are not pinned.
        placed: Files placed beside the copy; see `tuner.config.beside`.
    """

    job: TuneJob
    launcher: Launcher
    repository: StagedRepository
    gpus: Gpus
    machine: Machine
    caches: Path | None
    note: Callable[[str], None]
    placed: tuple[str, ...] = ()
    cores: frozenset[int] = frozenset()
    _callees: dict[str, Callees] = field(default_factory=dict)

    def callees_of(self, model: str) -> Callees:
        """The models that a model calls, determined once for all its launches."""
        own = self.job.url is None
        return self._callees.setdefault(
            model, Callees(model, self.repository.path if own else None, self.job.load_model, self.note)
        )

    def trial_context(self, terms: TrialTerms) -> TrialContext:
        """The context of a launch here. The first one of a model notes whether others use its GPUs."""
        if terms.model not in self._callees:
            self._warn_if_busy(terms.model)
        return TrialContext(
            terms, self.launcher, self.repository, self.gpus, self.callees_of(terms.model), self.caches, self.cores
        )

    def _warn_if_busy(self, model: str) -> None:
        try:
            config = ModelRepository.open(self.repository.path).model(model).config
        except TritontuneError:
            config = None  # the launch reports it
        self.gpus.warn_if_busy((config or ModelConfig.parse("", model)).proto)


@contextmanager
def slot_context(
    job: TuneJob,
    launcher: Launcher,
    repository: ModelRepository,
    folder: Path,
    note: Callable[[str], None],
) -> Iterator[SlotContext]:
    """Prepare everything to launch servers with a launcher.

    Args:
        job: The job.
        launcher: The launcher; the caller closes it.
        repository: The user's repository, or that of a running server.
        folder: A folder for the copy of the repository and for caches; the caller removes it.
        note: Takes messages for the user.

    Raises:
        JobError: the job needs the memory of GPUs, which cannot be measured.
        RepositoryError: the repository cannot be copied.
    """
    own = job.url is None
    with Gpus(launcher.gpus, note) as gpus:
        if job.max_gpu_memory is not None and gpus.problem:
            raise JobError(f"--max-gpu-memory: cannot measure GPU memory here: {gpus.problem}")
        clear_leftovers(launcher, note)
        staged = stage(repository, folder / "served" / "repository")
        placed = place_beside(repository, staged) if own else ()
        machine = launcher.machine
        if launcher.gpus is not None:
            machine = replace(machine, gpus=gpus.visible)
        caches = folder.absolute() / "caches" if own else None
        yield SlotContext(job, launcher, staged, gpus, machine, caches, note, placed)


def launcher_of(
    job: TuneJob,
    repository: ModelRepository,
    models: tuple[str, ...],
    note: Callable[[str], None],
    see_pull: SeePull,
    *,
    pins: Pins = NO_PINS,
) -> Launcher:
    """The launcher of a job on this machine, after a test start of its Triton.

    Raises:
        JobError: the options cannot be satisfied here.
        TuningError: the image cannot be pulled.
    """
    folders = [repository.model(name) for name in models]
    launcher = choose_launcher(job, note, see_pull, headers=job.header, models=folders, pins=pins)
    return ReloadLauncher(launcher) if job.isolation == "reload" else launcher


@contextmanager
def open_slot(
    recipe: SlotRecipe, slot: Slot | None, note: Callable[[str], None], see_pull: SeePull = lambda _pull: None
) -> Iterator[SlotContext]:
    """Open a slot of this machine, and remove what killed runs left here.

    Args:
        recipe: What to launch.
        slot: The slot; None: the whole machine.
        note: Takes messages for the user.
        see_pull: Called with the progress of pulling the image.

    Raises:
        UsageError: the job or the repository is wrong on this machine.
        TuningError: no Triton works here.
    """
    remove_abandoned_work()
    repository = ModelRepository.open(recipe.repository)
    job = recipe.job
    pins = NO_PINS if slot is None else Pins(",".join(slot.gpus) or None, slot.cores)
    with (
        work_folder() as folder,
        closing(launcher_of(job, repository, recipe.models, note, see_pull, pins=pins)) as launcher,
        slot_context(job, launcher, repository, folder, note) as context,
    ):
        yield context if slot is None else replace(context, cores=slot.cores | slot.load_cores)
