"""The services of this user on this machine: how commands find the token of a service without being told.

While `tritontune serve` runs, it has a file in `$XDG_STATE_HOME/tritontune/services` (or below `~/.local/state`). The
file names the address and the data folder, in which only its owner can read `admin.token`. It also has the lease of
the process: after the service has ended, another user may listen at its address, and must not receive the token.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import ValidationError

from tuner.core.atomic_file import write_atomically
from tuner.core.errors import TokenRefusedError
from tuner.core.lease import Lease, own_lease
from tuner.core.record import Record

TOKEN = "admin.token"  # noqa: S105 (the name of a file)
"""Name of the file with the admin's token in the data folder."""

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class LocalService(Record):
    """A service of this user on this machine.

    Attributes:
        server: Its address, such as `http://127.0.0.1:8100`.
        data: Its data folder.
        lease: Its process, as `tuner.core.lease.Lease` writes it.
    """

    server: str
    data: Path
    lease: str

    @property
    def lives(self) -> bool:
        """Whether its process still runs."""
        lease = Lease.parse(self.lease)
        return lease is not None and not lease.abandoned


@contextmanager
def registered(server: str, data: Path) -> Iterator[None]:
    """Let commands of this user find a service of this process; only within the context.

    A home that cannot be written to is no error: commands then need `--data` or a token.

    Args:
        server: The address for clients on this machine.
        data: The data folder, with `admin.token`.
    """
    folder = _folder()
    file = folder and folder / f"{re.sub(r'[^A-Za-z0-9.]+', '_', server)}.json"
    if file:
        service = LocalService(server=server, data=data.absolute(), lease=str(own_lease()))
        with suppress(OSError):
            write_atomically(file, service.model_dump_json())
            _remove_ended(file.parent)
    try:
        yield
    finally:
        if file and (stored := _read(file)) and stored.lease == str(own_lease()):
            with suppress(OSError):
                file.unlink(missing_ok=True)


def local_services() -> tuple[LocalService, ...]:
    """The services of this user that run on this machine."""
    folder = _folder()
    files = sorted(folder.glob("*.json")) if folder else []
    return tuple(service for file in files if (service := _read(file)) and service.lives)


def local_service(server: str) -> LocalService | None:
    """The running service of this user at an address; None: there is none."""
    return next((each for each in local_services() if _place(each.server) == _place(server)), None)


def admin_token(data: Path) -> str:
    """The admin's token in a data folder.

    Raises:
        TokenRefusedError: it cannot be read.
    """
    file = data / TOKEN
    try:
        return file.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        raise TokenRefusedError(
            f"{file}: no such file; name the data folder of `tritontune serve`, or set TRITONTUNE_TOKEN"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no token"
        raise TokenRefusedError(f"{file}: cannot be read: {reason}; set TRITONTUNE_TOKEN to a token of yours") from None


def _place(server: str) -> tuple[str, str, int | None]:
    """Scheme, host and port; all names of the loopback address are one."""
    parts = urlsplit(server)
    host = parts.hostname or ""
    return parts.scheme, "127.0.0.1" if host in _LOOPBACK else host, parts.port


def _remove_ended(folder: Path) -> None:
    """Remove the files of services that were killed."""
    for file in folder.glob("*.json"):
        if (stored := _read(file)) and not stored.lives:
            file.unlink(missing_ok=True)


def _read(file: Path) -> LocalService | None:
    try:
        return LocalService.model_validate_json(file.read_text(encoding="utf-8"))
    except (OSError, ValidationError, UnicodeDecodeError):
        return None


def _folder() -> Path | None:
    """The folder of the files; None: the user has no home."""
    if state := os.environ.get("XDG_STATE_HOME"):
        return Path(state) / "tritontune" / "services"
    with suppress(RuntimeError):
        return Path.home() / ".local" / "state" / "tritontune" / "services"
    return None
