from __future__ import annotations

import io

from rich.console import Console

from tuner.report.pull_bar import PullBar
from tuner.servers.docker.pull import Pull

MIB = 1 << 20


def _shown(*pulls: Pull, terminal: bool) -> str:
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=140, color_system=None)
    bar = PullBar(console)
    try:
        for pull in pulls:
            bar.see(pull)
            if bar._bar:
                bar._bar.refresh()
    finally:
        bar.stop()
    return output.getvalue()


PULLS = (
    Pull("some/image:1"),
    Pull("some/image:1", layers=3, layers_done=1, done_bytes=3 * MIB, total_bytes=12 * MIB),
    Pull("some/image:1", layers=3, layers_done=3, done_bytes=12 * MIB, total_bytes=12 * MIB, ended=True),
)


def test_on_a_terminal_bytes_and_layers() -> None:
    shown = _shown(*PULLS, terminal=True)
    assert shown.splitlines()[0].endswith("pulling some/image:1")
    assert "3.0/12.0 MiB" in shown
    assert "1/3 layers" in shown
    assert "pulled some/image:1: 12 MiB in " in shown.splitlines()[-1]


def test_elsewhere_one_line() -> None:
    assert _shown(*PULLS, terminal=False) == "pulling some/image:1\n"


def test_one_that_breaks_off_gives_the_terminal_back() -> None:
    shown = _shown(*PULLS[:2], terminal=True)
    assert shown.endswith("\x1b[?25h\r\x1b[1A\x1b[2K") or "\x1b[?25h" in shown  # the cursor is there again
