"""The server process: start-up, loading, listening and shutdown."""

from __future__ import annotations

import asyncio
import signal
import ssl
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tuner.testing.fake.api import EXTENSIONS, Api
from tuner.testing.fake.grpc_api import GrpcService
from tuner.testing.fake.http1 import HttpReply, HttpRequest, HttpServerConnection, HttpService
from tuner.testing.fake.http2 import GrpcServerConnection
from tuner.testing.fake.log import raw, say, table
from tuner.testing.fake.messages import WORDS, RefusedError
from tuner.testing.fake.options import CommandLine
from tuner.testing.fake.repository import Repository
from tuner.testing.fake.runtime import FILE, VERSION, Control, Runtime

_EXIT_S = 30.0


class AddressInUseError(Exception):
    """Another process listens on the port."""


class FakeTriton:
    """One server.

    Args:
        program: The path of the executable; the control file is beside it.
        options: The options of the command line.
    """

    def __init__(self, program: Path, options: CommandLine) -> None:
        self._options = options
        self._control = Control(program.with_name(FILE))
        self._version = str(self._control.get("version", VERSION))
        self._runtime = Runtime(self._control, backends=options.backends, caches="cache-config" in options.values)
        self._explicit = options.last("model-control-mode", "none") == "explicit"
        self._repository = Repository(
            options.repositories,
            self._runtime,
            completes=not options.on("disable-auto-complete-config", default=False),
            verbose=options.last("log-verbose", "0") != "0",
        )
        self._api = Api(
            options.last("id", "triton"),
            self._version,
            self._repository,
            self._runtime,
            explicit=self._explicit,
            strict=options.on("strict-readiness", default=True),
        )
        self._stop = asyncio.Event()
        self._servers: list[asyncio.Server] = []
        self._connections: set[Any] = set()

    async def run(self) -> int:
        """Serve until the process is stopped. Returns the exit code."""
        self._listen_to_signals()
        if (words := self._control.get("fail_start")) is not None:
            raw(str(words))
            return 1
        await asyncio.sleep(float(self._control.get("start_s", 0.0)))
        say("W", "pinned_memory_manager.cc:273", _NO_CUDA)
        say("I", "cuda_memory_manager.cc:117", "CUDA memory pool disabled")
        stopped = asyncio.ensure_future(self._stop.wait())
        loading = asyncio.ensure_future(self._load())
        await asyncio.wait({stopped, loading}, return_when=asyncio.FIRST_COMPLETED)
        if not loading.done():
            loading.cancel()
            return await self._shut_down()
        if error := loading.exception():
            await self._shut_down()
            if not isinstance(error, RefusedError):
                raise error
            raw(f"error: creating server: {WORDS[error.code]} - {error.text}")
            return 1
        try:
            await self._listen()
        except AddressInUseError as taken:
            say(
                "E",
                "main.cc:245",
                f"failed to start {taken.args[0]} service: Unavailable - Socket '{taken.args[1]}' already in use ",
            )
            return 1
        await stopped
        return await self._shut_down()

    async def _load(self) -> None:
        failure: RefusedError | None = None
        try:
            await self._repository.start(self._start_models())
        except RefusedError as error:
            failure = error
        self._tell()
        if failure and self._options.on("exit-on-error", default=True):
            raise failure

    def _start_models(self) -> list[str]:
        if not self._explicit or list(self._options.models) == ["*"]:
            return self._repository.names()
        return list(dict.fromkeys(self._options.models))

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        if self._control.get("ignore_sigterm"):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        else:
            loop.add_signal_handler(signal.SIGTERM, self._on_signal, signal.SIGTERM)
        loop.add_signal_handler(signal.SIGINT, self._on_signal, signal.SIGINT)

    def _on_signal(self, number: signal.Signals) -> None:
        raw(f"Signal ({int(number)}) received.")
        self._stop.set()

    def _tell(self) -> None:
        """Log Triton's lines after loading, with the models' states."""
        table("server.cc:604", ("Repository Agent", "Path"))
        rows = [
            (name, version or "-", state if state == "READY" else f"{state}: {reason}")
            for name, version, state, reason in self._repository.states()
            if state
        ]
        table("server.cc:674", ("Model", "Version", "Status"), *rows)
        options = self._options
        settings = [
            ("server_id", options.last("id", "triton")),
            ("server_version", self._version),
            ("server_extensions", " ".join(EXTENSIONS)),
            *((f"model_repository_path[{number}]", str(path)) for number, path in enumerate(options.repositories)),
            ("model_control_mode", "MODE_EXPLICIT" if self._explicit else "MODE_NONE"),
            *((f"startup_models_{number}", name) for number, name in enumerate(options.models)),
            ("strict_model_config", str(int(options.on("disable-auto-complete-config", default=False)))),
            ("exit_timeout", options.last("exit-timeout-secs", "30")),
        ]
        table("tritonserver.cc:2598", ("Option", "Value"), *settings)

    async def _listen(self) -> None:
        options = self._options
        if options.on("allow-grpc", default=True):
            service = GrpcService(
                self._api,
                options.restrictions("grpc-restricted-protocol", "triton-grpc-protocol-"),
                compresses=options.last("grpc-infer-response-compression-level", "none") != "none",
            )
            address = options.last("grpc-address", "0.0.0.0"), int(options.last("grpc-port", "8001"))  # noqa: S104 (Triton's default)
            await self._open(
                "GRPC", lambda: GrpcServerConnection(service, self._connections), *address, tls=_tls(options)
            )
            say("I", "grpc_server.cc:2558", f"Started GRPCInferenceService at {address[0]}:{address[1]}")
        if options.on("allow-http", default=True):
            handler = HttpService(self._api, options.restrictions("http-restricted-api", ""))
            address = options.last("http-address", "0.0.0.0"), int(options.last("http-port", "8000"))  # noqa: S104 (the same)
            await self._open("HTTP", lambda: HttpServerConnection(handler, self._connections), *address)
            say("I", "http_server.cc:4713", f"Started HTTPService at {address[0]}:{address[1]}")
        if options.on("allow-metrics", default=True):
            default = options.last("http-address", "0.0.0.0")  # noqa: S104 (the same)
            address = options.last("metrics-address", default), int(options.last("metrics-port", "8002"))
            await self._open("Metrics", lambda: HttpServerConnection(self._metrics, self._connections), *address)
            say("I", "http_server.cc:362", f"Started Metrics Service at {address[0]}:{address[1]}")

    async def _open(
        self,
        what: str,
        make: Callable[[], asyncio.Protocol],
        host: str,
        port: int,
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        try:
            self._servers.append(await loop.create_server(make, host, port, ssl=tls, backlog=1024))
        except OSError as error:
            raise AddressInUseError(what, f"{host}:{port}") from error

    async def _metrics(self, asked: HttpRequest) -> HttpReply:
        if asked.path != "/metrics":
            return HttpReply(404, b"", "text/plain")
        lines = [
            "# HELP nv_inference_request_success Number of successful inference requests, all batch sizes",
            "# TYPE nv_inference_request_success counter",
        ]
        for served in self._repository.all_served():
            labels = f'model="{served.name}",version="{served.version}"'
            lines.append(f"nv_inference_request_success{{{labels}}} {served.statistics.success.count}")
        return HttpReply(body=("\n".join(lines) + "\n").encode(), content_type="text/plain; charset=utf-8")

    async def _shut_down(self) -> int:
        exit_s = float(self._options.last("exit-timeout-secs", str(_EXIT_S)))
        say("I", "server.cc:305", "Waiting for in-flight requests to complete.")
        say("I", "server.cc:321", f"Timeout {exit_s:g}: Found 0 model versions that have in-flight inferences")
        for server in self._servers:
            server.close()
        say("I", "server.cc:336", "All models are stopped, unloading models")
        closing = asyncio.ensure_future(self._repository.close())
        began = time.monotonic()
        while True:
            left = max(0.0, exit_s - (time.monotonic() - began))
            live = self._repository.live()
            say(
                "I",
                "server.cc:345",
                f"Timeout {left:.0f}: Found {live} live models and 0 in-flight non-inference requests",
            )
            if closing.done() or left == 0:
                break
            await asyncio.wait({closing}, timeout=min(1.0, left))
        for connection in list(self._connections):
            connection.close()
        sys.stdout.flush()
        return 0 if closing.done() else 1


_NO_CUDA = (
    "Unable to allocate pinned system memory, pinned memory pool will not be available: "
    "CUDA driver version is insufficient for CUDA runtime version"
)


def _tls(options: CommandLine) -> ssl.SSLContext | None:
    if not options.on("grpc-use-ssl", default=False):
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.last("grpc-server-cert"), options.last("grpc-server-key"))
    context.set_alpn_protocols(["h2"])
    if options.on("grpc-use-ssl-mutual", default=False):
        context.load_verify_locations(options.last("grpc-root-cert"))
        context.verify_mode = ssl.CERT_REQUIRED
    return context
