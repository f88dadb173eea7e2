"""The progress of an image pull: a bar on a terminal, one line elsewhere."""

from __future__ import annotations

import time

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from tuner.core.quantities import format_duration, format_size
from tuner.servers.docker.pull import Pull


class PullBar:
    """Shows one pull after the other. Call `stop` at the end: a pull may fail halfway.

    Args:
        console: Where to show it.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._began = 0.0

    def see(self, pull: Pull) -> None:
        """Show the progress of a pull."""
        if not self._began:
            self._begin(pull)
        if self._bar:
            # The total grows: the engine learns the sizes of layers one after the other.
            self._bar.update(
                self._task,
                completed=pull.done_bytes,
                total=pull.total_bytes or None,
                layers=f"{pull.layers_done}/{pull.layers} layers",
            )
        if pull.ended:
            took = format_duration(time.monotonic() - self._began)
            self.stop()
            if self._console.is_terminal:
                self._line(f"pulled {pull.image}: {format_size(pull.total_bytes)} in {took}")

    def stop(self) -> None:
        """Remove the bar, if there is one."""
        self._began = 0.0
        if self._bar:
            self._bar.stop()
            self._bar = None

    def _begin(self, pull: Pull) -> None:
        self._began = time.monotonic()
        self._line(f"pulling {pull.image}")
        if not self._console.is_terminal:
            return
        self._bar = Progress(
            BarColumn(bar_width=None),
            DownloadColumn(binary_units=True),
            TextColumn("{task.fields[layers]}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            expand=True,
        )
        self._task = self._bar.add_task("", total=None, layers="")
        self._bar.start()

    def _line(self, text: str) -> None:
        self._console.print(escape(text), highlight=False, soft_wrap=True)
