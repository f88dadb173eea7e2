"""The endpoint of a Triton server: address, protocol, TLS, headers."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Literal

from tuner.core.errors import JobError, nearest
from tuner.core.redaction import keep_secret, without_secrets
from tuner.options.tls import Tls

__all__ = ["Endpoint", "Header", "Protocol", "Tls", "parse_header"]

Protocol = Literal["grpc", "http"]
Header = tuple[str, str]
"""Lower-case name, and value."""

# Protocol, whether it has TLS, and the default port. Triton's HTTP endpoint has no TLS, so `https` means a proxy.
_SCHEMES: dict[str, tuple[Protocol, bool, int]] = {
    "grpc": ("grpc", False, 8001),
    "grpcs": ("grpc", True, 8001),
    "http": ("http", False, 8000),
    "https": ("http", True, 443),
}
_FORM = "write it as HOST:PORT, grpcs://HOST:PORT, http://HOST:PORT[/PREFIX] or https://HOST:PORT[/PREFIX]"
_ADDRESS = re.compile(
    r"(?P<host>\[[^\[\]\s]+\]|[^\[\]\s/:@?#]+)(:(?P<port>\d{1,5}))?(?P<path>(/[\w.~!$&'()*+,;=:@%-]+)*)/?", re.ASCII
)
_NAME = re.compile(r"[\w.-]+", re.ASCII)
_VALUE = re.compile(r"[ -~]*", re.ASCII)
_OURS = {"connection", "content-encoding", "content-length", "content-type", "te", "transfer-encoding"}
_OUR_PREFIXES = ("grpc-", "inference-header-")


@dataclass(frozen=True)
class Endpoint:
    """One endpoint of a Triton server.

    Attributes:
        address: `host:port`; an IPv6 host in brackets.
        protocol: gRPC or HTTP.
        tls: Certificates; None: no TLS.
        headers: Headers of every request.
        path: Prefix of all HTTP paths, for a server behind a proxy: empty, or `/prefix`.
    """

    address: str
    protocol: Protocol = "grpc"
    tls: Tls | None = None
    headers: tuple[Header, ...] = ()
    path: str = ""

    @property
    def host(self) -> str:
        """The host; an IPv6 address without brackets."""
        return self.address.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The number of the port."""
        return int(self.address.rpartition(":")[2])

    @property
    def url(self) -> str:
        """Scheme, address and path, such as `grpcs://localhost:8001`."""
        return f"{self.protocol}{'s' if self.tls else ''}://{self.address}{self.path}"

    @classmethod
    def parse(
        cls, url: str, *, tls: Tls | None = None, headers: tuple[Header, ...] = (), option: str = "--url"
    ) -> Endpoint:
        """Read `HOST[:PORT]` (gRPC) or a URL with the scheme `grpc`, `grpcs`, `http` or `https`, which may have a path.

        The default port is 8001 for gRPC, 8000 for HTTP, and 443 for `https`, which only a proxy has.

        Args:
            url: The text.
            tls: Certificates; makes a scheme without TLS an error.
            headers: See `Endpoint`.
            option: The option to name in an error.

        Raises:
            JobError: the text is wrong; the message is one line with the fix.
        """
        scheme, separator, rest = url.strip().rpartition("://")
        scheme = scheme.lower()
        if separator and scheme not in _SCHEMES:
            raise JobError(f"{option}: {url!r} has the unknown scheme {scheme!r}{nearest(scheme, _SCHEMES)}")
        protocol, secure, port = _SCHEMES[scheme or ("grpcs" if tls else "grpc")]
        if tls and not secure:
            raise JobError(f"{option}: {url!r} has no TLS; with certificates, use {scheme}s://")
        if tls:
            tls.context()
        parts = _ADDRESS.fullmatch(rest)
        if parts:
            port = int(parts["port"] or port)
        if not parts or not 0 < port < 65536 or not _is_host(parts["host"]):
            raise JobError(f"{option}: {without_secrets(url)!r} is not an address; {_FORM}")
        path = parts["path"]
        if path and protocol == "grpc":
            raise JobError(f"{option}: {url!r} has the path {path}, but gRPC has none; omit it, or use http://")
        if path.endswith("/v2"):
            raise JobError(f"{option}: {url!r} ends with /v2, which each request adds; omit it")
        return cls(f"{parts['host']}:{port}", protocol, (tls or Tls()) if secure else None, headers, path)


def parse_header(text: str) -> Header:
    """Read `NAME:VALUE`; blanks around name and value are removed.

    Raises:
        ValueError: the text is wrong; the message is one line with the fix.
    """
    name, colon, value = (part.strip() for part in text.partition(":"))
    if not colon or not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
        raise ValueError(f"{text!r} is not a header; write NAME:VALUE in ASCII, such as authorization:Bearer abc")
    name = name.lower()
    if name in _OURS or name.startswith(_OUR_PREFIXES) or name.endswith("-bin"):
        raise ValueError(f"{name} cannot be set; the protocol sets it")
    keep_secret(name, value)
    return name, value


def _is_host(text: str) -> bool:
    try:
        if text.startswith("["):
            ipaddress.IPv6Address(text[1:-1])
        else:
            text.encode("idna")  # as the resolver encodes it
    except ValueError:
        return False
    return True
