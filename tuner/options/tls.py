"""Certificates of TLS connections to a server."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from tuner.core.errors import JobError


@dataclass(frozen=True)
class Tls:
    """Certificates as PEM files.

    Attributes:
        ca: CA certificates to trust; None: the system's.
        certificate: Client certificate with its chain; None: no client certificate.
        key: Private key of the client certificate; None: in the certificate's file.
        server_name: Host name in the server's certificate; None: the host of the address.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str | None = None

    def context(self, *protocols: str) -> ssl.SSLContext:
        """The context for a client's sockets.

        Args:
            protocols: Protocols to offer by ALPN, such as `h2`.

        Raises:
            JobError: a file cannot be read, or has the wrong contents.
        """
        context = self._trust()
        # As in gRPC: any certificate of the file may be the trust anchor, and strict X.509 checks are off.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        self._identify(context)
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context

    def trusted(self) -> bytes | None:
        """The CA certificates to trust, as PEM; None: the system does not keep them in one file."""
        path = self.ca or ssl.get_default_verify_paths().cafile
        return Path(path).read_bytes() if path else None

    def identity(self) -> tuple[bytes, bytes] | None:
        """Client key and certificate with its chain, as PEM; None: no client certificate."""
        if not self.certificate:
            return None
        return (self.key or self.certificate).read_bytes(), self.certificate.read_bytes()

    def _trust(self) -> ssl.SSLContext:
        if not self.ca:
            return ssl.create_default_context()
        _check_readable("CA certificate", self.ca)
        try:
            return ssl.create_default_context(cafile=self.ca)
        except ssl.SSLError:
            raise JobError(f"the CA certificate {self.ca} has no certificate in PEM format") from None

    def _identify(self, context: ssl.SSLContext) -> None:
        if not self.certificate:
            if self.key:
                raise JobError(f"the client key {self.key} needs its client certificate")
            return
        key = self.key or self.certificate
        _check_readable("client certificate", self.certificate)
        _check_readable("client key", key)

        def refuse() -> str:
            raise JobError(f"the client key {key} is encrypted; decrypt it with: openssl pkey -in {key} -out FILE")

        try:
            context.load_cert_chain(self.certificate, key, password=refuse)
        except ssl.SSLError as error:
            why = "do not belong together" if error.reason == "KEY_VALUES_MISMATCH" else "are not both in PEM format"
            raise JobError(f"the client certificate {self.certificate} and the client key {key} {why}") from None


def _check_readable(what: str, path: Path) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        raise JobError(f"the {what} {path} cannot be read: {error.strerror}") from None
