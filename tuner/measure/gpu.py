"""The GPUs of this machine that a run's servers may use, and what is said of them once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType

from tritonclient.grpc import model_config_pb2
from typing_extensions import Self

from tuner.core import nvml
from tuner.core.nvml import Gpu, GpuProcess, NoNvmlError
from tuner.core.quantities import format_size
from tuner.measure.gpu_selection import gpus_in_use, may_use_gpus, surely_uses_gpus, visible_gpus
from tuner.measure.gpu_watch import GpuWatch

_ELSEWHERE = "the server was not started here, so which GPUs it uses is not known"
_MOST_NAMED = 3


class Gpus:
    """What can be asked of GPUs over a run, in which servers come and go. It is open within its context.

    Args:
        selection: Which of this machine's GPUs the servers see, as `Launcher.gpus` says; None: another machine's.
        note: Is told, once each, why there are no figures of GPUs where a model runs on some, and that others use them.
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
                    self.problem = f"of this machine's GPUs the server sees none ({self._selection})"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def watch(self) -> GpuWatch:
        """For one launch: enter it before."""
        return GpuWatch(self.visible, self._tell_of_problem)

    def warn_if_busy(self, config: model_config_pb2.ModelConfig) -> None:
        """Note which of the GPUs that a model may use others compute on, in one line.

        To be called while no server of ours runs.

        Args:
            config: Of the model that is to be measured, as its file says.
        """
        perhaps = self.visible if may_use_gpus(config) else ()
        used = gpus_in_use(config, self.visible) if config.instance_group else perhaps
        busy = [f"{gpu}: {_in_words(processes)}" for gpu in used if (processes := gpu.processes())]
        if busy:
            self._say(f"others use the GPU, so figures may not be the model's own: {'; '.join(busy)}")

    def _tell_of_problem(self, effective: model_config_pb2.ModelConfig) -> None:
        if self.problem and surely_uses_gpus(effective):
            self._say(f"no figures of GPUs: {self.problem}")

    def _say(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self._note(line)


NO_GPUS = Gpus("none", lambda _line: None)
"""For what is measured without asking any GPU."""


def _in_words(processes: tuple[GpuProcess, ...]) -> str:
    told = [_process(each) for each in processes[:_MOST_NAMED]]
    more = len(processes) - len(told)
    return ", ".join([*told, f"{more} more"] if more else told)


def _process(process: GpuProcess) -> str:
    name = f"{process.name} " if process.name else "process "
    memory = "" if process.memory_bytes is None else f" with {format_size(process.memory_bytes)}"
    return f"{name}{process.pid}{memory}"
