"""A PostgreSQL of its own, in a temporary folder, for as long as a context lasts."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def _program(name: str) -> str:
    # Debian keeps these out of the PATH.
    found = shutil.which(name) or next(iter(sorted(map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}")))), None)
    if found is None:
        pytest.skip("needs PostgreSQL: apt-get install postgresql")
    return found


@contextmanager
def postgres() -> Iterator[str]:
    """Start it, and give the URL of an empty database. It listens on a free port of 127.0.0.1."""
    initdb, pg_ctl = _program("initdb"), _program("pg_ctl")
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    # It refuses to run as root.
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if as_user:
        shutil.chown(folder, "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    password = folder / "password"
    password.write_text("s3cret\n")
    if as_user:
        shutil.chown(password, "postgres")
    data = folder / "data"

    def run(*command: str) -> None:
        subprocess.run([*as_user, *command], check=True, capture_output=True, timeout=60, cwd=folder)

    try:
        run(initdb, "-D", str(data), "-U", "tuner", "-A", "scram-sha-256", "--pwfile", str(password), "-N")
        options = f"-F -p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
        # Its output goes to a file: a pipe would stay open for as long as it runs.
        run(pg_ctl, "-D", str(data), "-l", str(folder / "log"), "-o", options, "-w", "-t", "30", "start")
        try:
            yield f"postgresql://tuner:s3cret@127.0.0.1:{port}/postgres"
        finally:
            run(pg_ctl, "-D", str(data), "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
