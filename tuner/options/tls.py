"""How to trust a server, and be trusted by it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from tuner.core.errors import JobError


@dataclass(frozen=True)
class Tls:
    """What TLS needs to know; files are PEM.

    Attributes:
        ca: Certificates that the server's must descend from; None: those that the system trusts.
        certificate: Our own, with its chain, where the server asks for one.
        key: Its private key; None: it is in the same file.
        server_name: The name that the server's certificate must have; None: the host of the address.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str | None = None

    def context(self, *protocols: str) -> ssl.SSLContext:
        """For the sockets of a client that offers these protocols by ALPN; without any, it offers none.

        Raises:
            JobError: a file cannot be read, or does not hold what it should; one line says which.
        """
        context = self._trust()
        # As gRPC has it: any certificate of the file may be the anchor, and those of home-made CAs may be plain.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        self._identify(context)
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context

    def trusted(self) -> bytes | None:
        """The certificates that the server's must descend from, PEM; None: the system has no one file of them."""
        path = self.ca or ssl.get_default_verify_paths().cafile
        return Path(path).read_bytes() if path else None

    def identity(self) -> tuple[bytes, bytes] | None:
        """Our private key, and our certificate with its chain, PEM; None: we have none."""
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
            raise JobError(f"the CA certificate {self.ca} holds no certificate in PEM form") from None

    def _identify(self, context: ssl.SSLContext) -> None:
        if not self.certificate:
            if self.key:
                raise JobError(f"the client key {self.key} is of no use without its client certificate")
            return
        key = self.key or self.certificate
        _check_readable("client certificate", self.certificate)
        _check_readable("client key", key)

        def refuse() -> str:
            raise JobError(
                f"the client key {key} is encrypted; openssl pkey -in {key} -out FILE writes it in the clear"
            )

        try:
            context.load_cert_chain(self.certificate, key, password=refuse)
        except ssl.SSLError as error:
            why = "do not belong together" if error.reason == "KEY_VALUES_MISMATCH" else "are not both in PEM form"
            raise JobError(f"the client certificate {self.certificate} and the client key {key} {why}") from None


def _check_readable(what: str, path: Path) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        raise JobError(f"the {what} {path} cannot be read: {error.strerror}") from None
