"""Where a Triton is reached, and as whom."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tuner.errors import JobError, nearest

Protocol = Literal["grpc", "http"]
_SCHEMES: dict[str, tuple[Protocol, bool]] = {
    "grpc": ("grpc", False),
    "grpcs": ("grpc", True),
    "http": ("http", False),
    "https": ("http", True),
}
_FORM = "write it as HOST:PORT, grpcs://HOST:PORT, http://HOST:PORT or https://HOST:PORT"


@dataclass(frozen=True)
class Tls:
    """How to trust and be trusted; files are PEM.

    Attributes:
        ca: Certificates that the server's must descend from; None: those that the system trusts.
        certificate: Our own, with its chain, where the server asks for one.
        key: Its private key.
        server_name: The name that the server's certificate must have; None: the host of the address.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str | None = None


@dataclass(frozen=True)
class Endpoint:
    """One port of a Triton.

    Attributes:
        address: `host:port`; an IPv6 host in brackets.
        protocol: What is spoken there.
        tls: None: in the clear.
        headers: Sent with every request, as pairs of lower-case name and value.
    """

    address: str
    protocol: Protocol = "grpc"
    tls: Tls | None = None
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def host(self) -> str:
        """Without brackets."""
        return self.address.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The number."""
        return int(self.address.rpartition(":")[2])

    @classmethod
    def parse(
        cls, url: str, *, tls: Tls | None = None, headers: tuple[tuple[str, str], ...] = (), option: str = "--url"
    ) -> Endpoint:
        """Read `HOST:PORT` (gRPC) or a URL with the scheme `grpc`, `grpcs`, `http` or `https`.

        Args:
            url: The text.
            tls: Certificates; makes a scheme without TLS an error.
            headers: See `Endpoint`.
            option: What to name in an error.

        Raises:
            JobError: one line that says what would be right.
        """
        scheme, separator, rest = url.strip().rpartition("://")
        if separator and scheme not in _SCHEMES:
            raise JobError(f"{option}: {url!r} has the scheme {scheme!r}{nearest(scheme, _SCHEMES)}")
        protocol, secure = _SCHEMES[scheme or ("grpcs" if tls else "grpc")]
        if tls and not secure:
            raise JobError(f"{option}: {url!r} is in the clear, and certificates are for {scheme}s://")
        host, colon, port = rest.rstrip("/").rpartition(":")
        if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536 or "/" in host:
            raise JobError(f"{option}: {url!r} is no address; {_FORM}")
        return cls(f"{host}:{port}", protocol, (tls or Tls()) if secure else None, headers)
