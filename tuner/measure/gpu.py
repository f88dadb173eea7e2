"""The GPUs of this machine that the servers of a run may use, and the notes about them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType

from tritonclient.grpc import model_config_pb2
from typing_extensions import Self

from tuner.core import nvml
from tuner.core.nvml import Gpu, GpuProcess, NoNvmlError
from tuner.core.quantities import format_size
from tuner.measure.gpu_selection import gpus_in_use, may_use_gpus, requires_gpus, visible_gpus
from tuner.measure.gpu_watch import GpuWatch

_ELSEWHERE = "the server was not started here, so its GPUs are unknown"
_MOST_NAMED = 3


class Gpus:
    """The GPUs of a run. NVML is open within its context.

    Args:
        selection: The GPUs of this machine that the servers see, as `Launcher.gpus`; None: another machine's.
        note: Called once for each problem: no GPU figures for a model on a GPU; other processes on the GPU.
    """

    def __init__(self, selection: str | None, note: Callable[[str], None]) -> None:
        self._selection = selection
        self._note = note
        self._open = ExitStack()
        self._said: set[str] = set()
        self.visible: tuple[Gpu, ...] = ()
        self.problem: str | None = _ELSEWHERE if selection is None else None

    def __enter__(self) -> Self:
        if self._selection is None:
            return self
        with ExitStack() as opening:
            try:
                opening.enter_context(nvml.opened())
                self.visible = visible_gpus(self._selection, nvml.all_gpus())
            except NoNvmlError as error:
                self.problem = str(error)
            else:
                self._open = opening.pop_all()
                if not self.visible:
                    self.problem = f"the server sees none of this machine's GPUs ({self._selection})"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def watch(self) -> GpuWatch:
        """A watch for one launch; enter it before the launch."""
        return GpuWatch(self.visible, self._tell_of_problem)

    def warn_if_busy(self, config: model_config_pb2.ModelConfig) -> None:
        """Note, in one line, the GPUs that a model may use and that other processes use.

        Call it while no server of ours runs.

        Args:
            config: The model's config.pbtxt.
        """
        perhaps = self.visible if may_use_gpus(config) else ()
        used = gpus_in_use(config, self.visible) if config.instance_group else perhaps
        busy = [f"{gpu}: {_in_words(processes)}" for gpu in used if (processes := gpu.processes())]
        if busy:
            self._say(f"other processes use the GPU, so results may include their load: {'; '.join(busy)}")

    def _tell_of_problem(self, effective: model_config_pb2.ModelConfig) -> None:
        if self.problem and requires_gpus(effective):
            self._say(f"no GPU figures: {self.problem}")

    def _say(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self._note(line)


NO_GPUS = Gpus("none", lambda _line: None)
"""For measurements without GPU figures."""


def _in_words(processes: tuple[GpuProcess, ...]) -> str:
    texts = [_process(process) for process in processes[:_MOST_NAMED]]
    more = len(processes) - len(texts)
    return ", ".join([*texts, f"{more} more"] if more else texts)


def _process(process: GpuProcess) -> str:
    name = f"{process.name} " if process.name else "process "
    memory = "" if process.memory_bytes is None else f" with {format_size(process.memory_bytes)}"
    return f"{name}{process.pid}{memory}"
