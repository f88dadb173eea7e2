"""A registry of images that an engine can pull from: the read side of the OCI distribution protocol, over HTTP.

The engine takes one at 127.0.0.1 without TLS. It serves one small image, `IMAGE_NAME:1`, of random files.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

IMAGE_NAME = "tritontune-pulled"

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG = "application/vnd.docker.container.image.v1+json"
_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


@dataclass
class Registry:
    """What is served, and where.

    Attributes:
        address: `host:port`.
        layer_bytes: Compressed, over all layers.
        stalls: Whether it stops in the middle of each layer, until it is closed.
        closed: Set at the end.
        refuses: Whether it lets nobody in.
    """

    address: str
    layer_bytes: int
    blobs: dict[str, tuple[str, bytes]] = field(repr=False)
    stalls: bool = False
    refuses: bool = False
    closed: threading.Event = field(default_factory=threading.Event, repr=False)

    def image(self, tag: str = "1") -> str:
        """The name by which an engine pulls it."""
        return f"{self.address}/{IMAGE_NAME}:{tag}"


@contextmanager
def registry(*layer_sizes: int) -> Iterator[Registry]:
    """Serve an image with layers of so many bytes."""
    layers = [_layer(size, name) for name, size in enumerate(layer_sizes)]
    blobs = _blobs(layers)
    size = sum(len(blob) for kind, blob in blobs.values() if kind == _LAYER)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        serving = Registry(f"127.0.0.1:{server.server_address[1]}", size, blobs)
        server.registry = serving  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield serving
        finally:
            serving.closed.set()
            server.shutdown()
            thread.join()


def _layer(size: int, name: int) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        info = tarfile.TarInfo(f"file-{name}")
        info.size = size
        tar.addfile(info, io.BytesIO(os.urandom(size)))
    return archive.getvalue()


def _blobs(layers: list[bytes]) -> dict[str, tuple[str, bytes]]:
    """By digest, and the manifest by its tag, too: its media type and bytes."""
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer) for layer in layers]},
    }
    packed = [gzip.compress(layer, 0) for layer in layers]
    named = [(_CONFIG, json.dumps(config).encode()), *((_LAYER, layer) for layer in packed)]
    head, *rest = [{"mediaType": kind, "size": len(blob), "digest": _digest(blob)} for kind, blob in named]
    manifest = json.dumps({"schemaVersion": 2, "mediaType": _MANIFEST, "config": head, "layers": rest}).encode()
    served = {_digest(blob): (kind, blob) for kind, blob in named}
    return {**served, _digest(manifest): (_MANIFEST, manifest), "1": (_MANIFEST, manifest)}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, *_: object) -> None:
        """In silence."""

    def _answer(self, *, with_body: bool) -> None:
        served: Registry = self.server.registry  # type: ignore[attr-defined]
        if served.refuses:
            self._send(401, "application/json", _errors("UNAUTHORIZED", "authentication required"), with_body=with_body)
        elif self.path == "/v2/":
            self._send(200, "application/json", b"{}", with_body=with_body)
        elif self.path.startswith(f"/v2/{IMAGE_NAME}/") and (blob := served.blobs.get(self.path.rpartition("/")[2])):
            self._send(200, *blob, with_body=with_body, stalls=served.stalls and blob[0] == _LAYER)
        else:
            self._send(404, "application/json", _errors("MANIFEST_UNKNOWN", "manifest unknown"), with_body=with_body)

    def _send(self, status: int, kind: str, body: bytes, *, with_body: bool, stalls: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        if kind == _MANIFEST:
            self.send_header("Docker-Content-Digest", _digest(body))
        self.end_headers()
        if with_body:
            half = len(body) // 2
            with suppress(OSError):  # the engine looks and leaves, now and then
                self.wfile.write(body[:half])
                if stalls:
                    self.server.registry.closed.wait(30)  # type: ignore[attr-defined]
                self.wfile.write(body[half:])


def _errors(code: str, message: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()
