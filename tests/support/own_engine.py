"""A Docker engine of a test's own, which may be stopped."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.docker_image import IMAGE

_SCRIPT = Path(__file__).parents[2] / ".ci" / "docker-engine"
_START_S = 60
_LOAD_S = 90


@dataclass(frozen=True)
class OwnEngine:
    """An engine with a bridge of its own; without one, it would take away that of the machine's engine.

    Attributes:
        folder: Where all of it is; its path is short, as sockets lie in it.
        bridge: The interface.
    """

    folder: Path
    bridge: str

    @property
    def host(self) -> str:
        """As `DOCKER_HOST` names it."""
        return f"unix://{self.folder}/socket"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        places = {"--data-root": "data", "--exec-root": "exec", "--pidfile": "pid"}
        options = [word for option, name in places.items() for word in (option, str(self.folder / name))]
        network = [f"--bridge={self.bridge}", "--iptables=false", "--ip-forward=false", "--ip-masq=false"]
        self._run(str(_SCRIPT), "start", *options, *network)

    def stop(self) -> None:
        """Stop it, with its containers; harmless when it does not run."""
        self._run(str(_SCRIPT), "stop")

    def docker(self, *arguments: str) -> str:
        """What a command of the client's prints."""
        return self._run("docker", *arguments)

    def _run(self, *command: str) -> str:
        environment = {**os.environ, "DOCKER_HOST": self.host, "TMPDIR": str(self.folder)}
        with (self.folder / "output").open("w+") as output:  # no pipe, which the engine would keep open
            done = subprocess.run(command, env=environment, stdout=output, stderr=output, timeout=_START_S, check=False)
            output.seek(0)
            text = output.read()
        assert done.returncode == 0, text
        return text


@contextmanager
def own_engine() -> Iterator[OwnEngine]:
    """Start one that has the image of the tests. For root alone."""
    if os.geteuid() != 0:
        pytest.skip("only root can start an engine")
    if missing := [program for program in ("docker", "dockerd", "ip") if not shutil.which(program)]:
        pytest.skip(f"not installed, so that no engine can be started: {', '.join(missing)}")
    number = os.getpid() % 200
    engine = OwnEngine(Path(tempfile.mkdtemp(prefix="tt-")), f"tritontune{number}")
    try:
        _ip("link", "add", engine.bridge, "type", "bridge")
        _ip("address", "add", f"198.18.{number}.1/24", "dev", engine.bridge)
        _ip("link", "set", engine.bridge, "up")
        engine.start()
        _load_image(engine)
        yield engine
    finally:
        engine.stop()
        subprocess.run(["ip", "link", "delete", engine.bridge], capture_output=True, check=False)
        subprocess.run(["umount", "--lazy", engine.folder / "exec/netns/default"], capture_output=True, check=False)
        shutil.rmtree(engine.folder)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _load_image(engine: OwnEngine) -> None:
    load = ["docker", "--host", engine.host, "load"]
    with subprocess.Popen(["docker", "save", IMAGE], stdout=subprocess.PIPE) as saved:
        subprocess.run(load, stdin=saved.stdout, check=True, capture_output=True, timeout=_LOAD_S)
