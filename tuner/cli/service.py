"""The options of all commands that talk to the service."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from tuner.client.client import Client


@dataclass(frozen=True)
class ServiceOptions:
    """Which service, as given on the command line.

    Attributes:
        server: Its address; None: the environment or the default tells.
        data: Its data folder on this machine; None: not given.
        tls_ca: CA certificates to trust; None: not given.
    """

    server: str | None
    data: Path | None
    tls_ca: Path | None

    def client(self) -> Client:
        """A client of the service.

        Raises:
            TritontuneError: an option is wrong, or there is no token.
        """
        return Client(self.server, data=self.data, ca=self.tls_ca)

    @property
    def words(self) -> str:
        """The options again, for commands in messages: ` --server http://...`."""
        given = {"--server": self.server, "--data": self.data, "--tls-ca": self.tls_ca}
        return "".join(f" {name} {shlex.quote(str(value))}" for name, value in given.items() if value)
