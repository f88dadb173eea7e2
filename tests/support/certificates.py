"""Certificates for one run of tests, made on the fly."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme

from tuner.options.tls import Tls


@dataclass(frozen=True)
class Certificates:
    """PEM files: a CA, what it says of a server and of a client, and another CA that knows neither.

    Attributes:
        ca: The CA's certificate.
        server: The server's, for `localhost`, `127.0.0.1` and `triton.example`, with its chain.
        server_key: The server's private key.
        client: The client's, with its chain.
        client_key: The client's private key.
        other_ca: The other CA's.
    """

    ca: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path
    other_ca: Path

    @classmethod
    def make(cls, folder: Path) -> Certificates:
        """Make all of them in a folder."""
        made = cls(*(folder / name for name in ("ca", "server", "server.key", "client", "client.key", "other_ca")))
        ca = trustme.CA()
        ca.cert_pem.write_to_path(made.ca)
        trustme.CA().cert_pem.write_to_path(made.other_ca)
        server = ca.issue_cert("localhost", "127.0.0.1", "triton.example")
        client = ca.issue_cert("somebody@triton.example")
        for issued, certificate, key in (
            (server, made.server, made.server_key),
            (client, made.client, made.client_key),
        ):
            certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
            issued.private_key_pem.write_to_path(key)
        return made

    @property
    def trusting(self) -> Tls:
        """For a client of a server that asks nobody for a certificate."""
        return Tls(self.ca)

    @property
    def mutual(self) -> Tls:
        """For a client of a server that asks for a certificate."""
        return Tls(self.ca, self.client, self.client_key)

    def serving(self, *, mutual: bool = False) -> ssl.SSLContext:
        """For a server in this process, with or without asking for a certificate."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.ca)
        context.load_cert_chain(self.server, self.server_key)
        context.verify_mode = ssl.CERT_REQUIRED if mutual else ssl.CERT_NONE
        return context

    def triton_arguments(self, *, mutual: bool = False) -> tuple[str, ...]:
        """For a Triton that speaks gRPC over TLS."""
        return (
            "--grpc-use-ssl=1",
            f"--grpc-server-cert={self.server}",
            f"--grpc-server-key={self.server_key}",
            *((f"--grpc-root-cert={self.ca}", "--grpc-use-ssl-mutual=1") if mutual else ()),
        )
