"""The config file of the service, `service.yaml`: what jobs may do, and limits.

All that a job may do is an allow-list: what is not listed is refused, with the name of the setting that would allow it.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer

from tuner.core.errors import JobError
from tuner.core.yaml_files import read_yaml
from tuner.nightly.jobs import Notify
from tuner.options.groups import Bytes, Options, Positive, Seconds, ServerKind, names

FILE = "service.yaml"
"""Name of the config file in the data folder."""

TRITON_ARGUMENTS = (
    "buffer-manager-thread-count",
    "cuda-memory-pool-byte-size",
    "cuda-virtual-address-size",
    "disable-auto-complete-config",
    "enable-peer-access",
    "exit-timeout-secs",
    "grpc-infer-allocation-pool-size",
    "grpc-infer-thread-count",
    "grpc-max-response-pool-size",
    "http-max-input-size",
    "http-thread-count",
    "log-verbose",
    "min-supported-compute-capability",
    "model-load-gpu-limit",
    "model-load-retry-count",
    "model-load-thread-count",
    "model-namespacing",
    "pinned-memory-pool-byte-size",
    "rate-limit",
    "rate-limit-resource",
    "response-cache-byte-size",
    "strict-model-config",
)
"""Arguments of tritonserver that neither read or write files, nor load code, nor open or call an address."""

VARIABLES = (
    "CUDA_DEVICE_MAX_CONNECTIONS",
    "CUDA_MODULE_LOADING",
    "KMP_AFFINITY",
    "KMP_BLOCKTIME",
    "MALLOC_ARENA_MAX",
    "MKL_NUM_THREADS",
    "NVIDIA_TF32_OVERRIDE",
    "OMP_NUM_THREADS",
    "OMP_PLACES",
    "OMP_PROC_BIND",
    "OMP_WAIT_POLICY",
    "OPENBLAS_NUM_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "TF_NUM_INTRAOP_THREADS",
)
"""Environment variables that change the server's speed, and that neither load code nor select devices."""

_HOST = re.compile(r"(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")
_VARIABLE = re.compile(r"[A-Za-z_*][A-Za-z0-9_*]*")
_VOLUME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")


def _texts(value: Any) -> Any:
    return names(value)


def _paths(value: tuple[Path, ...]) -> tuple[Path, ...]:
    return tuple(path.expanduser().resolve() for path in value)


def _hosts(value: tuple[str, ...]) -> tuple[str, ...]:
    for host in value:
        if not _HOST.fullmatch(host) and not _is_network(host):
            raise ValueError(f"{host!r} is not a host; write triton.example.com, *.example.com, 10.0.0.5 or 10.0.0.0/8")
    return value


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _variables(value: tuple[str, ...]) -> tuple[str, ...]:
    if wrong := next((name for name in value if not _VARIABLE.fullmatch(name)), None):
        raise ValueError(f"{wrong!r} is not the name of an environment variable; write NAME or PREFIX_*")
    return value


def _mounts(value: tuple[str, ...]) -> tuple[str, ...]:
    if wrong := next((name for name in value if not name.startswith("/") and not _VOLUME.fullmatch(name)), None):
        raise ValueError(f"{wrong!r} is neither an absolute path nor the name of a volume")
    return value


def _hooks(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        raise ValueError("must be a list of commands, each a list of a program and its arguments")  # noqa: TRY004 (pydantic wants ValueError)
    if wrong := [command for command in value if not isinstance(command, list | tuple) or not command]:
        raise ValueError(f"{wrong[0]!r} must be a list of a program and its arguments, such as [/opt/deploy.sh, --now]")
    return value


_Texts = Annotated[tuple[str, ...], BeforeValidator(_texts, json_schema_input_type=str | list[str])]
_Paths = Annotated[
    tuple[Path, ...],
    BeforeValidator(_texts, json_schema_input_type=str | list[str]),
    AfterValidator(_paths),
    PlainSerializer(lambda paths: list(map(str, paths)), return_type=list[str]),
]


class ServiceSettings(Options):
    """The config file of the service."""

    repositories: _Paths = Field(
        (), description="Folders in which model repositories may lie. Default: the folder where the service starts."
    )
    files: _Paths = Field(
        (),
        description=(
            "Folders of other files that jobs may name: space, input_data, warm_start, intervals, timestamps, tls_*. "
            "Default: as repositories."
        ),
    )
    launchers: Annotated[tuple[ServerKind, ...], BeforeValidator(_texts, json_schema_input_type=list[ServerKind])] = (
        Field(("auto", "process", "docker", "remote"), description="Values of `server` that jobs may have.")
    )
    images: _Texts = Field(
        ("nvcr.io/nvidia/tritonserver:*",), description="Images that jobs may run, in which * stands for any text."
    )
    triton_paths: _Paths = Field(
        (), description="Values of `triton_path` that jobs may have: programs or installation folders."
    )
    hosts: Annotated[_Texts, AfterValidator(_hosts)] = Field(
        (),
        description=(
            "Hosts that `url` and `metrics_url` may name: names, *.DOMAIN, addresses and networks. A name must not "
            "lead to a loopback or link-local address, unless that is listed, too; localhost lists loopback."
        ),
    )
    mounts: Annotated[_Texts, AfterValidator(_mounts)] = Field(
        (), description="Folders that jobs may mount, with all within, and names of volumes."
    )
    networks: _Texts = Field((), description="Docker networks that jobs may join. Never list host for untrusted users.")
    ray_addresses: _Texts = Field(
        (), description="Addresses of Ray clusters that jobs may use. Each job can run any code on their hosts."
    )
    users: _Texts = Field(
        (), description="Users that containers of jobs may run as. root can read all that is mounted."
    )
    docker_args: _Texts = Field(
        (), description="Keywords that `docker_arg` may have. privileged, devices and others give root on the host."
    )
    triton_args: _Texts = Field(
        TRITON_ARGUMENTS,
        description=(
            "Arguments that `triton_arg` may have, without dashes, or with a pattern of the value: "
            "backend-config=onnxruntime,*. Default: those that reach neither files nor networks."
        ),
    )
    env: Annotated[_Texts, AfterValidator(_variables)] = Field(
        VARIABLES,
        description=(
            "Environment variables that jobs may set, in which * stands for any text. Default: those that change the "
            "server's speed only. LD_PRELOAD, PYTHONPATH and their like run code."
        ),
    )
    hooks: Annotated[tuple[tuple[str, ...], ...], BeforeValidator(_hooks, json_schema_input_type=list[list[str]])] = (
        Field((), description="Commands that `command` may have: each a list of a program and its arguments.")
    )
    secrets: Annotated[_Texts, AfterValidator(_variables)] = Field(
        (), description="Names that ${NAME} may have in jobs, in which * stands for any text."
    )
    cores_per_slot: Positive | None = Field(
        None, description="Cores of each slot on a machine without GPUs. Default: one slot with all cores."
    )
    jobs_per_cluster: Positive = Field(
        1, description="Most jobs at once on a Ray cluster. They share its slots, so that each takes longer."
    )
    secrets_folder: Path | None = Field(
        None,
        description=(
            "Folder with a file for each secret, named as the secret. Default: secrets are environment variables of "
            "the service only."
        ),
    )
    notify: tuple[Notify, ...] = Field((), description="Where to report how a nightly job went.")
    max_body: Bytes = Field(1 << 20, description="Largest body of a request.")
    max_jobs_per_token: Positive = Field(100, description="Most jobs of a token that have not ended.")
    max_streams: Positive = Field(500, description="Most event streams at once.")
    max_streams_per_token: Positive = Field(250, description="Most event streams at once of a token.")
    session_idle: Seconds = Field(12 * 3600.0, description="Time after which an unused browser session ends.")
    session_length: Seconds = Field(7 * 24 * 3600.0, description="Time after which a browser session ends.")

    @property
    def repository_roots(self) -> tuple[Path, ...]:
        """The folders of repositories; the current folder by default."""
        return self.repositories or (Path.cwd().resolve(),)

    @property
    def file_roots(self) -> tuple[Path, ...]:
        """The folders of other files; those of repositories by default."""
        return self.files or self.repository_roots

    @classmethod
    def read(cls, path: Path) -> ServiceSettings:
        """Read the config file.

        Raises:
            JobError: the file cannot be read, or is wrong; the message is one line with the place.
        """
        content = read_yaml(path)
        if content is None:
            return cls()
        if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
            raise JobError(f"{path}: must be a mapping, such as `repositories: [/models]`")
        notify = content.get("notify")
        if isinstance(notify, list):
            content["notify"] = tuple(
                Notify.make(entry, source=f"{path}: notify[{number}]") if isinstance(entry, dict) else entry
                for number, entry in enumerate(notify)
            )
        return cls.make(content, source=str(path))


def settings_schema() -> dict[str, Any]:
    """The JSON schema of the config file, with descriptions and defaults."""
    schema = ServiceSettings.model_json_schema()
    for name, default in ServiceSettings.defaults().items():
        schema["properties"][name]["default"] = default
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "tritontune service config file",
    }
