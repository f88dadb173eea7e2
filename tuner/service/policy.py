"""What a job may do: the allow-list of the service's config file.

Every option of every kind of job is either in `FREE`, as it reaches nothing but the model that is measured, or has a
check in `_CHECKS`. An option in neither is refused.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from tuner.client.resources import JobKind, Role
from tuner.core.errors import JobError
from tuner.core.redaction import argument_without_secrets, unkept
from tuner.nightly.jobs import NightlyJob
from tuner.options.endpoint import Endpoint
from tuner.options.groups import MADE_UP, check_is_local
from tuner.options.measure_job import MeasureJob
from tuner.options.mounts import UserMount
from tuner.options.tune_job import TuneJob
from tuner.service.refusals import ForbiddenError
from tuner.service.secrets import Secrets
from tuner.service.settings import ServiceSettings
from tuner.space.spec import shipped_spaces

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
JobOptions: TypeAlias = TuneJob | NightlyJob | MeasureJob

JOBS: Mapping[JobKind, type[TuneJob | MeasureJob]] = {"tune": TuneJob, "nightly": NightlyJob, "measure": MeasureJob}
"""The options of each kind of job."""

FREE = frozenset(
    {
        "allow_numerics",
        "arrivals",
        "batch_size",
        "budget",
        "command_timeout",
        "compression",
        "concurrency",
        "connections",
        "cores_per_slot",
        "explain",
        "gpus",
        "gpus_per_slot",
        "host_policy",
        "isolation",
        "launch_timeout",
        "load_model",
        "max_concurrency",
        "max_gpu_memory",
        "maximize",
        "memory",
        "min_gain",
        "min_regression",
        "minimize",
        "mixed",
        "model",
        "model_version",
        "output_shared_memory_size",
        "output_tolerance",
        "parallel",
        "precision",
        "priority",
        "processes",
        "queue_timeout",
        "ramp",
        "rate",
        "sampler",
        "seed",
        "sequence_length",
        "sequence_length_variation",
        "sequences",
        "shape",
        "shared_memory",
        "shm_size",
        "slo",
        "string_data",
        "string_length",
        "time",
        "tls_name",
        "trials",
        "verify",
    }
)
"""Options that reach nothing but the model that is measured. `gpus` and `parallel` select within the job's slot."""

SECRETS_ONLY = frozenset({"header", "request_parameter"})
"""Options that are free but for secrets, which `Secrets.check` covers."""

# Files that a job names, and the values that are none.
_FILES: Mapping[str, frozenset[str]] = {
    "input_data": MADE_UP,
    "intervals": frozenset(),
    "space": frozenset(shipped_spaces()),
    "timestamps": frozenset(),
    "tls_ca": frozenset(),
    "tls_cert": frozenset(),
    "tls_key": frozenset(),
    "warm_start": frozenset(),
}
# Far more than any job needs.
_MOST_CHARACTERS, _MOST_ENTRIES, _MOST_LEVELS = 100_000, 1_000, 20
# Addresses to which a listed name must not lead.
_RISKY = ("is_loopback", "is_link_local", "is_unspecified", "is_multicast", "is_reserved")


def resolve(host: str) -> tuple[Address, ...]:
    """The addresses of a host.

    Raises:
        OSError: it has none, or the name service does not answer.
    """
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return tuple({ipaddress.ip_address(str(entry[4][0]).partition("%")[0]): None for entry in found})


class AllowList:
    """Checks what a job may do.

    Args:
        settings: The config file of the service.
        secrets: The secrets that jobs may refer to.
        runs: Folder whose run folders may be warm starts, as well; None: there is none.
        resolve: Finds the addresses of a host.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        secrets: Secrets,
        *,
        runs: Path | None = None,
        resolve: Callable[[str], Sequence[Address]] = resolve,
    ) -> None:
        self._settings = settings
        self._secrets = secrets
        self._runs = runs
        self._resolve = resolve
        # Roots that are not given are the current folder, as of now.
        self._repositories = settings.repository_roots
        self._files = settings.file_roots
        self._checks: Mapping[str, Callable[[Any], object]] = {
            "docker_arg": self._check_docker_arguments,
            "env": self._check_variables,
            "executor": self._check_executor,
            "image": self._check_image,
            "metrics_url": self._check_metrics_url,
            "mount": self._check_mounts,
            "network": lambda value: self._check_listed("network", value, self._settings.networks, "networks"),
            "ray_address": lambda value: self._check_listed(
                "ray_address", value, self._settings.ray_addresses, "ray_addresses"
            ),
            "server": lambda value: self._check_listed("server", value, self._settings.launchers, "launchers"),
            "triton_arg": self._check_triton_arguments,
            "url": self._check_url,
            "user": lambda value: self._check_listed("user", value, self._settings.users, "users"),
            "command": self._check_command,
        }

    @property
    def covered(self) -> frozenset[str]:
        """All options that this list knows."""
        return (
            FREE
            | SECRETS_ONLY
            | _FILES.keys()
            | self._checks.keys()
            | {
                "repository",
                "repository_on_hosts",
                "triton_path",
                "action",
            }
        )

    def checked(self, kind: JobKind, options: Mapping[str, Any], role: Role) -> tuple[JobOptions, dict[str, Any]]:
        """Parse and check the options of a job.

        Args:
            kind: The kind of job.
            options: The options as submitted.
            role: The role of who submits it: `action: apply` and `command` need `approve`.

        Returns:
            The parsed options, with references in place of secrets; and the options to store, in which paths are
            absolute and without links.

        Raises:
            JobError: an option is wrong.
            ForbiddenError: an option is not allowed; the message names the setting that would allow it.
        """
        check_size(options)
        if unknown := [name for name in options if name not in self.covered]:
            # The job's own message names the nearest option.
            JOBS[kind].make({unknown[0]: options[unknown[0]]}, source="job")
            raise ForbiddenError(f"{unknown[0]}: jobs of the service may not have this option")
        # Files are checked before the job is parsed, as parsing looks for them.
        stored = dict(options)
        for name in ("repository", "repository_on_hosts"):
            if options.get(name) is not None:
                stored[name] = self._path(name, options[name], self._repositories, "repositories")
        for name, words in _FILES.items():
            value = options.get(name)
            if value is not None and not (isinstance(value, str) and value in words):
                roots = (*self._files, self._runs) if name == "warm_start" and self._runs else self._files
                stored[name] = self._path(name, value, roots, "files")
        if options.get("triton_path") is not None:
            stored["triton_path"] = self._path(
                "triton_path", options["triton_path"], self._settings.triton_paths, "triton_paths"
            )
        self._secrets.check(stored)
        with unkept():
            job: JobOptions = JOBS[kind].make(stored, source="job")
        for name, check in self._checks.items():
            value = getattr(job, name, None)
            if value is not None and (name in job.model_fields_set or value):
                check(value)
        if isinstance(job, TuneJob) and job.executor == "ray" and job.ray_address is None:
            raise JobError(f"job: ray_address: is missing; write one of {', '.join(self._settings.ray_addresses)}")
        if isinstance(job, NightlyJob) and job.action != "propose" and role not in {"approve", "admin"}:
            raise ForbiddenError(f"action: {job.action} deploys without approval, which needs the role approve")
        return job, stored

    def check_hosts(self, options: Mapping[str, Any]) -> None:
        """Check the hosts of `url` and `metrics_url` once more: what their names lead to may have changed meanwhile.

        Raises:
            JobError: a host cannot be found.
            ForbiddenError: a host is not allowed, or not any more.
        """
        for option, check in (("url", self._check_url), ("metrics_url", self._check_metrics_url)):
            if (value := options.get(option)) is not None:
                check(str(value))

    def _path(self, option: str, value: Any, roots: Sequence[Path], setting: str) -> str:
        """The resolved path, which is within one of these folders."""
        if not isinstance(value, str) or not value.strip() or "\0" in value:
            raise JobError(f"job: {option}: must be a path, got {value!r}")
        if option == "repository":
            try:
                check_is_local(value)
            except ValueError as error:
                raise JobError(f"job: {option}: {error}") from None
        try:
            path = Path(value.strip()).resolve()
        except (OSError, RuntimeError, ValueError):  # a circle of links, or a name that is too long
            raise JobError(f"job: {option}: {value[:100]!r} is not a usable path") from None
        if not any(path.is_relative_to(root) for root in roots):
            where = f" within {', '.join(map(str, roots))}" if roots else ""
            raise ForbiddenError(
                f"{option}: {value[:200]} is not{where or ' allowed'}; to allow it, add its folder to "
                f"`{setting}` in the service's config file"
            )
        return str(path)

    def _check_listed(self, option: str, value: str, allowed: Iterable[str], setting: str) -> None:
        if value not in allowed:
            raise _not_allowed(option, value, setting)

    def _check_image(self, image: str) -> None:
        if not any(fnmatchcase(image, pattern) for pattern in self._settings.images):
            raise _not_allowed("image", image, "images")

    def _check_executor(self, executor: str) -> None:
        if executor == "ray" and not self._settings.ray_addresses:
            raise ForbiddenError(
                "executor: ray is not allowed; to allow it, add the address of the cluster to `ray_addresses` in the "
                "service's config file"
            )

    def _check_mounts(self, mounts: Iterable[UserMount]) -> None:
        folders = [Path(name).resolve() for name in self._settings.mounts if name.startswith("/")]
        for mount in mounts:
            if mount.kind == "volume":
                allowed = mount.source in self._settings.mounts
            else:
                allowed = any(Path(mount.source).resolve().is_relative_to(folder) for folder in folders)
            if not allowed:
                raise _not_allowed("mount", mount.source, "mounts")

    def _check_docker_arguments(self, keywords: Mapping[str, Any]) -> None:
        for name in keywords:
            self._check_listed("docker_arg", name, self._settings.docker_args, "docker_args")

    def _check_variables(self, variables: Mapping[str, str | None]) -> None:
        for name, value in variables.items():
            if not any(fnmatchcase(name, pattern) for pattern in self._settings.env):
                raise _not_allowed("env", name, "env")
            if value is None and not self._secrets.may(name):
                # It passes on a variable of the service, which may be a secret.
                raise _not_allowed("env without a value", name, "secrets")

    def _check_triton_arguments(self, arguments: Iterable[str]) -> None:
        for argument in arguments:
            plain = argument.removeprefix("--")
            name = plain.partition("=")[0]
            patterns = self._settings.triton_args
            if not any(fnmatchcase(plain if "=" in pattern else name, pattern) for pattern in patterns):
                raise _not_allowed("triton_arg", f"--{name}", "triton_args")
            if argument_without_secrets(argument) != argument:
                raise JobError(f"job: triton_arg: the secret in --{name} would be stored; leave it out")

    def _check_command(self, command: Sequence[str]) -> None:
        if command and tuple(command) not in self._settings.hooks:
            raise _not_allowed("command", command[0], "hooks")

    def _check_url(self, url: str) -> None:
        self._check_host("url", Endpoint.parse(url, option="job: url").host)

    def _check_metrics_url(self, url: str) -> None:
        self._check_host("metrics_url", _host_of(url))

    def _check_host(self, option: str, host: str) -> None:
        """Check that a host is listed, and that a name does not lead to this machine or its link."""
        networks = [network for text in self._settings.hosts if (network := _network(text))]
        if "localhost" in self._settings.hosts:
            networks += [ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")]
        literal = _address(host)
        by_name = literal is None and any(
            "/" not in pattern and fnmatchcase(host.lower(), pattern.lower()) for pattern in self._settings.hosts
        )
        if literal is None and not by_name and not networks:
            raise _not_allowed(option, host, "hosts")  # without asking the name service
        try:
            addresses = (literal,) if literal else self._resolve(host)
        except (OSError, UnicodeError):
            raise JobError(f"job: {option}: the host {host[:100]!r} cannot be found") from None
        for address in addresses:
            plain = getattr(address, "ipv4_mapped", None) or address
            if any(plain.version == network.version and plain in network for network in networks):
                continue
            if not by_name:
                raise _not_allowed(option, host, "hosts")
            if any(getattr(plain, risk) for risk in _RISKY):
                raise ForbiddenError(
                    f"{option}: {host} leads to {plain}, a loopback, link-local or special address; to allow it, add "
                    f"{plain} to `hosts` in the service's config file"
                )


def check_size(options: Mapping[str, Any], depth: int = 0) -> None:
    """Check that no option is so large, or nested so deeply, that to parse it takes long.

    Raises:
        JobError: one is; the message names it.
    """
    for name, value in options.items():
        if depth > _MOST_LEVELS:
            raise JobError(f"job: {name[:40]}: is nested too deeply")
        if isinstance(value, str) and len(value) > _MOST_CHARACTERS:
            raise JobError(f"job: {name[:40]}: must have <= {_MOST_CHARACTERS:,} characters, got {len(value):,}")
        if isinstance(value, list | dict):
            if len(value) > _MOST_ENTRIES:
                raise JobError(f"job: {name[:40]}: must have <= {_MOST_ENTRIES:,} entries, got {len(value):,}")
            for part in (*value, *value.values()) if isinstance(value, dict) else value:
                check_size({name: part}, depth + 1)


def _not_allowed(option: str, value: str, setting: str) -> ForbiddenError:
    return ForbiddenError(
        f"{option}: {value[:200]} is not allowed; to allow it, add it to `{setting}` in the service's config file"
    )


def _address(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def _host_of(url: str) -> str:
    try:
        host = urlsplit(url if "://" in url else f"//{url}").hostname
    except ValueError:
        host = None
    if not host:
        raise JobError(f"job: metrics_url: {url[:100]!r} is not a URL")
    return host
