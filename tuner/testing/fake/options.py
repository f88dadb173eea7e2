"""Parses Triton 2.51's command line, with Triton's own messages for errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tuner.testing.fake.log import raw

_BARE = frozenset({"help", "disable-auto-complete-config"})
_KNOWN = frozenset(
    {
        "allow-cpu-metrics",
        "allow-gpu-metrics",
        "allow-grpc",
        "allow-http",
        "allow-metrics",
        "allow-sagemaker",
        "allow-vertex-ai",
        "backend-config",
        "backend-directory",
        "buffer-manager-thread-count",
        "cache-config",
        "cache-directory",
        "cuda-memory-pool-byte-size",
        "cuda-virtual-address-size",
        "disable-auto-complete-config",
        "enable-peer-access",
        "exit-on-error",
        "exit-timeout-secs",
        "grpc-address",
        "grpc-header-forward-pattern",
        "grpc-http2-max-ping-strikes",
        "grpc-http2-max-pings-without-data",
        "grpc-http2-min-recv-ping-interval-without-data",
        "grpc-infer-allocation-pool-size",
        "grpc-infer-response-compression-level",
        "grpc-keepalive-permit-without-calls",
        "grpc-keepalive-time",
        "grpc-keepalive-timeout",
        "grpc-max-connection-age",
        "grpc-max-connection-age-grace",
        "grpc-port",
        "grpc-restricted-protocol",
        "grpc-root-cert",
        "grpc-server-cert",
        "grpc-server-key",
        "grpc-use-ssl",
        "grpc-use-ssl-mutual",
        "help",
        "host-policy",
        "http-address",
        "http-header-forward-pattern",
        "http-port",
        "http-restricted-api",
        "http-thread-count",
        "id",
        "load-model",
        "log-error",
        "log-file",
        "log-format",
        "log-info",
        "log-verbose",
        "log-warning",
        "metrics-address",
        "metrics-config",
        "metrics-interval-ms",
        "metrics-port",
        "min-supported-compute-capability",
        "model-config-name",
        "model-control-mode",
        "model-load-gpu-limit",
        "model-load-retry-count",
        "model-load-thread-count",
        "model-namespacing",
        "model-repository",
        "model-store",
        "pinned-memory-pool-byte-size",
        "rate-limit",
        "rate-limit-resource",
        "repoagent-directory",
        "repository-poll-secs",
        "response-cache-byte-size",
        "reuse-grpc-port",
        "reuse-http-port",
        "sagemaker-port",
        "sagemaker-safe-port-range",
        "sagemaker-thread-count",
        "strict-model-config",
        "strict-readiness",
        "trace-config",
        "trace-count",
        "trace-file",
        "trace-level",
        "trace-log-frequency",
        "trace-rate",
        "vertex-ai-default-model",
        "vertex-ai-port",
        "vertex-ai-thread-count",
    }
)


@dataclass(frozen=True)
class CommandLine:
    """The options of the command line.

    Attributes:
        values: All values of each option, in order.
    """

    values: Mapping[str, Sequence[str]]

    def last(self, name: str, default: str = "") -> str:
        """The last value of an option."""
        return self.values.get(name, [default])[-1]

    def on(self, name: str, *, default: bool) -> bool:
        """Whether a boolean option is on."""
        return self.last(name, str(default)).lower() in ("true", "1", "on")

    @property
    def repositories(self) -> list[Path]:
        """The model repositories."""
        return [Path(path) for name in ("model-repository", "model-store") for path in self.values.get(name, ())]

    @property
    def models(self) -> Sequence[str]:
        """The models to load at the start."""
        return list(self.values.get("load-model", ()))

    @property
    def backends(self) -> Collection[str] | None:
        """The backends in the backend folder; None: no folder is given."""
        folder = self.last("backend-directory")
        if not folder:
            return None
        try:
            return [entry.name for entry in Path(folder).iterdir()]
        except OSError:
            return []

    def restrictions(self, name: str, prefix: str) -> dict[str, tuple[str, str]]:
        """By group of APIs, the header and the value that it requires (`--grpc-restricted-protocol`)."""
        restrictions = {}
        for value in self.values.get(name, ()):
            groups, _, header = value.partition(":")
            key, _, content = header.partition("=")
            restrictions.update({group: (f"{prefix}{key}".lower(), content) for group in groups.split(",")})
        return restrictions


def parse_options(program: str, arguments: Sequence[str]) -> CommandLine:
    """Parse the command line; an unknown option ends the process, as in Triton."""
    values: dict[str, list[str]] = {}
    left = list(arguments)
    while left:
        argument = left.pop(0)
        name, has_value, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or name not in _KNOWN:
            _give_up(f"{program}: unrecognized option '{argument}'")
        if name in _BARE:
            value = "true"
        elif not has_value:
            if not left:
                _give_up(f"{program}: option '--{name}' requires an argument")
            value = left.pop(0)
        values.setdefault(name, []).append(value)
    if "help" in values:
        _give_up("", code=0)
    return CommandLine(values)


def _give_up(text: str, *, code: int = 1) -> None:
    raw("\n".join(filter(None, (text, "Usage: tritonserver [options]", "  --help", "\tPrint usage"))))
    sys.stdout.flush()
    os._exit(code)
