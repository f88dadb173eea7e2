"""NVIDIA's perf_analyzer, of the wheel tritonclient 2.51.0 (`*.data/data/bin/perf_analyzer`)."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from tuner.servers.wheel import Wheel


class PerfAnalyzer:
    """The tool, with the libraries that it was built with.

    Args:
        program: The binary.
        folder: An empty one, for links to the libraries.
    """

    def __init__(self, program: Path, folder: Path) -> None:
        self._program = program
        self._environment = {**os.environ, **library_path(folder)}

    def start(self, address: str, model: str, concurrency: int, *more: str) -> subprocess.Popen[str]:
        """Let it load a model over gRPC, one inference a request. What it says is on the process's stdout."""
        command = [str(self._program), "-i", "grpc", "-u", address, "-m", model, "-b", "1"]
        return subprocess.Popen(
            [*command, "--concurrency-range", str(concurrency), *more],
            env=self._environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )


def library_path(folder: Path) -> dict[str, str]:
    """The variable with which the tool finds its libraries; links to them go into an empty folder."""
    wheel = Wheel.find()
    if wheel is None:
        raise SystemExit("needs pip install 'tritontune[server]'")
    for pattern, name in (("libb64*", "libb64.so.0d"), ("libcudart*", "libcudart.so.12")):
        (folder / name).symlink_to(next(wheel.libraries.glob(pattern)))
    return {"LD_LIBRARY_PATH": f"{folder}:{wheel.libraries}"}


def told(pattern: str, text: str) -> float:
    """A number of what it said."""
    found = re.search(pattern, text)
    if found is None:
        raise SystemExit(f"perf_analyzer said nothing that looks like {pattern!r}:\n{text}")
    return float(found[1])
