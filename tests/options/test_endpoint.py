from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from support.certificates import Certificates

from tuner.core.errors import JobError
from tuner.options.endpoint import Endpoint, parse_header
from tuner.options.tls import Tls


class TestParse:
    @pytest.mark.parametrize(
        ("text", "url"),
        [
            ("localhost:8001", "grpc://localhost:8001"),
            ("localhost", "grpc://localhost:8001"),
            ("triton_1.example:80", "grpc://triton_1.example:80"),
            ("10.0.0.7:1", "grpc://10.0.0.7:1"),
            (" grpc://h:65535 ", "grpc://h:65535"),
            ("grpcs://h:5", "grpcs://h:5"),
            ("GRPCS://h", "grpcs://h:8001"),
            ("http://h:5/", "http://h:5"),
            ("http://h/", "http://h:8000"),
            ("https://h", "https://h:443"),
            ("[::1]:8001", "grpc://[::1]:8001"),
            ("http://[2001:db8::7]", "http://[2001:db8::7]:8000"),
            ("http://h/prefix", "http://h:8000/prefix"),
            ("https://h:5/a/b-c%20d/", "https://h:5/a/b-c%20d"),
            ("http://[::1]:5/a", "http://[::1]:5/a"),
        ],
    )
    def test_forms(self, text: str, url: str) -> None:
        assert Endpoint.parse(text).url == url

    @pytest.mark.parametrize(
        "text",
        [
            "",
            ":8001",
            "http://",
            "h:",
            "h:0",
            "h:65536",
            "h:http",
            "h:-1",
            "h:٣",
            "h:8001:8001",
            "h p:8001",
            "::1",
            "::1:8001",
            "[::1",
            "[h]:8001",
            "http://h//a",
            "http://h/a b",
            "http://h:8000?a=b",
            "http://me:secret@h:8000",
            "http:/h:8000",
        ],
    )
    def test_what_is_no_address(self, text: str) -> None:
        with pytest.raises(
            JobError, match=r"^--url: .* is not an address; write it as HOST:PORT, .*https://HOST:PORT\[/PREFIX\]$"
        ):
            Endpoint.parse(text)

    @pytest.mark.parametrize("text", ["h/prefix", "grpcs://h:8001/prefix"])
    def test_only_http_has_paths(self, text: str) -> None:
        with pytest.raises(JobError, match="has the path /prefix, but gRPC has none; omit it, or use http://$"):
            Endpoint.parse(text)

    @pytest.mark.parametrize("text", ["http://h/v2", "http://h/prefix/v2/"])
    def test_a_path_ends_before_what_requests_add(self, text: str) -> None:
        with pytest.raises(JobError, match="ends with /v2, which each request adds; omit it$"):
            Endpoint.parse(text)

    def test_what_is_secret_in_an_address_is_not_repeated(self) -> None:
        with pytest.raises(JobError, match=r"^--url: 'http://\*\*\*@h:8000' is not an address"):
            Endpoint.parse("http://me:hunter2@h:8000")

    def test_unknown_scheme(self) -> None:
        with pytest.raises(
            JobError, match=r"^--server: 'htp://h:1' has the unknown scheme 'htp'; did you mean 'http'\?$"
        ):
            Endpoint.parse("htp://h:1", option="--server")

    def test_host_and_port(self) -> None:
        endpoint = Endpoint.parse("https://[::1]:8443")
        assert (endpoint.host, endpoint.port, endpoint.address) == ("::1", 8443, "[::1]:8443")
        assert (endpoint.protocol, endpoint.tls) == ("http", Tls())

    def test_certificates_make_it_tls(self, certificates: Certificates) -> None:
        tls = certificates.mutual
        assert Endpoint.parse("h", tls=tls) == Endpoint("h:8001", "grpc", tls)

    @pytest.mark.parametrize("scheme", ["grpc", "http"])
    def test_certificates_are_of_no_use_in_the_clear(self, scheme: str) -> None:
        with pytest.raises(JobError, match=f"has no TLS; with certificates, use {scheme}s://"):
            Endpoint.parse(f"{scheme}://h:1", tls=Tls())

    def test_headers_are_kept(self) -> None:
        assert Endpoint.parse("h", headers=(("a", "b"),)).headers == (("a", "b"),)


class TestTls:
    def check(self, tls: Tls, **parts: Any) -> None:
        Endpoint.parse("h", tls=replace(tls, **parts))

    def test_certificate_and_key_in_one_file(self, certificates: Certificates, tmp_path: Path) -> None:
        both = tmp_path / "both"
        both.write_bytes(certificates.client_key.read_bytes() + certificates.client.read_bytes())
        tls = Tls(certificates.ca, both)
        self.check(tls)
        assert tls.identity() == (both.read_bytes(), both.read_bytes())

    @pytest.mark.parametrize("part", ["ca", "certificate", "key"])
    def test_files_that_are_not_there(self, certificates: Certificates, tmp_path: Path, part: str) -> None:
        missing = tmp_path / "missing"
        with pytest.raises(JobError, match=f"^the .* {missing} cannot be read: No such file or directory$"):
            self.check(certificates.mutual, **{part: missing})

    @pytest.mark.parametrize("part", ["ca", "certificate", "key"])
    def test_a_folder(self, certificates: Certificates, tmp_path: Path, part: str) -> None:
        with pytest.raises(JobError, match=f"{tmp_path} cannot be read: Is a directory$"):
            self.check(certificates.mutual, **{part: tmp_path})

    @pytest.mark.parametrize("content", [b"", b"garbage", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
    @pytest.mark.parametrize("part", ["ca", "certificate", "key"])
    def test_files_that_hold_something_else(
        self, certificates: Certificates, tmp_path: Path, part: str, content: bytes
    ) -> None:
        other = tmp_path / "other"
        other.write_bytes(content)
        with pytest.raises(JobError, match=f"{other} (has no certificate in PEM format|.*are not both in PEM format)"):
            self.check(certificates.mutual, **{part: other})

    def test_a_key_of_another_certificate(self, certificates: Certificates) -> None:
        with pytest.raises(
            JobError, match=f"{certificates.client} .* {certificates.server_key} do not belong together$"
        ):
            self.check(certificates.mutual, key=certificates.server_key)

    def test_a_key_alone(self, certificates: Certificates) -> None:
        with pytest.raises(JobError, match="needs its client certificate"):
            self.check(Tls(key=certificates.client_key))

    def test_a_certificate_alone(self, certificates: Certificates) -> None:
        with pytest.raises(JobError, match=f"the client key {certificates.client} are not both in PEM form"):
            self.check(Tls(certificate=certificates.client))

    def test_an_encrypted_key(self, certificates: Certificates, tmp_path: Path) -> None:
        encrypted = tmp_path / "encrypted"
        key = load_pem_private_key(certificates.client_key.read_bytes(), None)
        cipher = BestAvailableEncryption(b"secret")
        encrypted.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, cipher))
        with pytest.raises(JobError, match=f"^the client key {encrypted} is encrypted; decrypt it with: openssl pkey"):
            self.check(certificates.mutual, key=encrypted)

    def test_the_systems_own(self) -> None:
        assert Tls().context().verify_mode.name == "CERT_REQUIRED"
        assert b"BEGIN CERTIFICATE" in (Tls().trusted() or b"BEGIN CERTIFICATE")


class TestHeader:
    @pytest.mark.parametrize(
        ("text", "header"),
        [
            ("Authorization:Bearer abc", ("authorization", "Bearer abc")),
            (" X-A :  b: c  ", ("x-a", "b: c")),
            ("empty:", ("empty", "")),
        ],
    )
    def test_forms(self, text: str, header: tuple[str, str]) -> None:
        assert parse_header(text) == header

    @pytest.mark.parametrize(
        "text", ["", "name", ":value", "na me:value", "näme:value", "name:välue", "a:b\nc:d", "a: b\0"]
    )
    def test_what_is_no_header(self, text: str) -> None:
        with pytest.raises(ValueError, match="^'.*' is not a header; write NAME:VALUE"):
            parse_header(text)

    @pytest.mark.parametrize(
        "name",
        ["Content-Length", "te", "grpc-timeout", "Inference-Header-Content-Length", "transfer-encoding", "a-bin"],
    )
    def test_what_belongs_to_the_protocol(self, name: str) -> None:
        with pytest.raises(ValueError, match=f"^{name.lower()} cannot be set; the protocol sets it$"):
            parse_header(f"{name}:1")
