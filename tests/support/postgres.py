"""A PostgreSQL of its own, in a temporary folder, for as long as a context lasts."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest


def _program(name: str) -> str:
    # Debian keeps these out of the PATH.
    found = shutil.which(name) or next(iter(sorted(map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}")))), None)
    if found is None:
        pytest.skip("needs PostgreSQL: apt-get install postgresql")
    return found


class Postgres:
    """A server that listens on a port of 127.0.0.1 that was free.

    Attributes:
        url: The URL of an empty database.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._data = folder, folder / "data"
        # It refuses to run as root.
        self._as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.url = f"postgresql://tuner:s3cret@127.0.0.1:{self._port}/postgres"
        password = folder / "password"
        password.write_text("s3cret\n")
        if self._as_user:
            shutil.chown(folder, "postgres")
            shutil.chown(password, "postgres")
        initdb = _program("initdb")
        self._run(initdb, "-U", "tuner", "-A", "scram-sha-256", "--pwfile", str(password), "-N")

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = f"-F -p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self._folder}"
        # Its output goes to a file: a pipe would stay open for as long as it runs.
        self._run(_program("pg_ctl"), "-l", str(self._folder / "log"), "-o", options, "-w", "-t", "30", "start")

    def stop(self) -> None:
        """Stop it at once, as a crash would."""
        self._run(_program("pg_ctl"), "-m", "immediate", "-w", "stop")

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop all of its processes within the context, as on a machine that is paused."""
        main = psutil.Process(int((self._data / "postmaster.pid").read_text().split()[0]))
        processes = [main, *main.children()]
        for process in processes:
            process.suspend()
        try:
            yield
        finally:
            for process in processes:
                process.resume()

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._as_user, program, "-D", str(self._data), *arguments]
        subprocess.run(command, check=True, capture_output=True, timeout=60, cwd=self._folder)


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A server that tests may stop and start."""
    _program("initdb")
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    try:
        server = Postgres(folder)
        server.start()
        try:
            yield server
        finally:
            with suppress(subprocess.CalledProcessError):  # a test has stopped it
                server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def postgres() -> Iterator[str]:
    """Start it, and give the URL of an empty database. It listens on a free port of 127.0.0.1."""
    with running_postgres() as server:
        yield server.url


def emptied(url: str) -> str:
    """A PostgreSQL without tables."""
    import psycopg  # noqa: PLC0415 (only where there is a server)

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("drop schema public cascade")
        connection.execute("create schema public")
    return url
