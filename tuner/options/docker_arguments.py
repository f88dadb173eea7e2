"""The option `docker_arg`: keywords of docker-py's `containers.create`, and the options of `docker run` for them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tuner.core.errors import similar
from tuner.core.yaml_files import YamlError, load_yaml

# By keyword: the option of `docker run`.
_FLAGS = {
    "blkio_weight": "--blkio-weight",
    "blkio_weight_device": "--blkio-weight-device",
    "cap_add": "--cap-add",
    "cap_drop": "--cap-drop",
    "cgroup_parent": "--cgroup-parent",
    "cgroupns": "--cgroupns",
    "cpu_period": "--cpu-period",
    "cpu_quota": "--cpu-quota",
    "cpu_rt_period": "--cpu-rt-period",
    "cpu_rt_runtime": "--cpu-rt-runtime",
    "cpu_shares": "--cpu-shares",
    "cpuset_cpus": "--cpuset-cpus",
    "cpuset_mems": "--cpuset-mems",
    "device_cgroup_rules": "--device-cgroup-rule",
    "device_read_bps": "--device-read-bps",
    "device_read_iops": "--device-read-iops",
    "device_write_bps": "--device-write-bps",
    "device_write_iops": "--device-write-iops",
    "devices": "--device",
    "dns": "--dns",
    "dns_opt": "--dns-option",
    "dns_search": "--dns-search",
    "domainname": "--domainname",
    "entrypoint": "--entrypoint",
    "extra_hosts": "--add-host",
    "group_add": "--group-add",
    "hostname": "--hostname",
    "init": "--init",
    "ipc_mode": "--ipc",
    "isolation": "--isolation",
    "kernel_memory": "--kernel-memory",
    "labels": "--label",
    "links": "--link",
    "mac_address": "--mac-address",
    "mem_reservation": "--memory-reservation",
    "mem_swappiness": "--memory-swappiness",
    "nano_cpus": "--cpus",
    "oom_kill_disable": "--oom-kill-disable",
    "oom_score_adj": "--oom-score-adj",
    "pid_mode": "--pid",
    "pids_limit": "--pids-limit",
    "platform": "--platform",
    "privileged": "--privileged",
    "publish_all_ports": "--publish-all",
    "read_only": "--read-only",
    "runtime": "--runtime",
    "security_opt": "--security-opt",
    "stop_signal": "--stop-signal",
    "storage_opt": "--storage-opt",
    "sysctls": "--sysctl",
    "tmpfs": "--tmpfs",
    "tty": "--tty",
    "ulimits": "--ulimit",
    "uts_mode": "--uts",
    "volume_driver": "--volume-driver",
    "volumes_from": "--volumes-from",
    "working_dir": "--workdir",
}

# By keyword: why it is refused, or its replacement.
_ELSEWHERE = {
    "auto_remove": "tritontune removes its containers",
    "command": "the command is tritonserver; add arguments with --triton-arg",
    "cpu_count": "for Windows only; use cpuset_cpus or nano_cpus",
    "cpu_percent": "for Windows only; use cpuset_cpus or nano_cpus",
    "detach": "tritontune always runs its containers in the background",
    "device_requests": "use --gpus",
    "environment": "use --env",
    "healthcheck": "tritontune checks itself whether Triton is ready",
    "image": "use --image",
    "init_path": "current Docker engines do not have it; use init: true",
    "log_config": "tritontune reads the log and keeps it with each trial",
    "lxc_conf": "current Docker engines do not have it",
    "mem_limit": "use --memory",
    "memswap_limit": "use --memory, which also disables swap",
    "mounts": "use --mount",
    "name": "tritontune names its containers to recognise them",
    "network": "use --network",
    "network_disabled": "the load generator needs a network",
    "network_mode": "use --network",
    "networking_config": "use --network",
    "ports": "tritontune publishes Triton's port on a free port of the loopback interface",
    "restart_policy": "a server that ends is a result and must not restart",
    "shm_size": "use --shm-size",
    "stdin_open": "Triton reads no standard input",
    "use_config_proxy": "tritontune sets the proxies of Docker's config.json as `docker run` does",
    "user": "use --user",
    "userns_mode": "tritontune sets it if the engine remaps users, to keep files readable",
    "version": "the engine sets it",
    "volumes": "use --mount",
}

# By name of the option of `docker run`: the keyword, or its replacement.
_KEYWORDS = {flag.removeprefix("--").replace("-", "_"): name for name, flag in _FLAGS.items()}
_INSTEAD = {
    "env": "use --env",
    "env_file": "use --env",
    "gpus": "use --gpus",
    "memory": "use --memory",
    "memory_swap": "use --memory, which also disables swap",
    "mount": "use --mount",
    "net": "use --network",
    "publish": _ELSEWHERE["ports"],
    "restart": _ELSEWHERE["restart_policy"],
    "rm": _ELSEWHERE["auto_remove"],
    "volume": "use --mount",
}


def parse_docker_args(value: Any) -> dict[str, Any]:
    """Read texts `NAME=VALUE` with VALUE in YAML, or a mapping as in a job file.

    Raises:
        ValueError: the text is wrong; the message is one line with the fix.
    """
    if isinstance(value, Mapping):
        pairs = [(str(name), content) for name, content in value.items()]
    else:
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, Sequence):
            raise ValueError("write arguments as {NAME: VALUE} or NAME=VALUE")  # noqa: TRY004 (pydantic wants ValueError)
        pairs = [_pair(str(text)) for text in texts]
    pairs = [(name.strip().replace("-", "_"), content) for name, content in pairs]
    for name, _ in pairs:
        if name in _ELSEWHERE:
            raise ValueError(f"{name}: {_ELSEWHERE[name]}")
        if name in _INSTEAD:
            raise ValueError(f"{name}: {_INSTEAD[name]}")
        if name not in _FLAGS and name in _KEYWORDS:
            raise ValueError(f"{name!r} is an option of `docker run`; use docker-py's keyword {_KEYWORDS[name]!r}")
        if name not in _FLAGS:
            raise ValueError(
                f"{name!r} is not a keyword of docker-py's containers.create{similar(name, [*_FLAGS, *_ELSEWHERE])}"
            )
        if [other for other, _ in pairs].count(name) > 1:
            raise ValueError(f"{name} is given twice; a list is written as {name}=[A, B]")
    return dict(pairs)


def merged(keywords: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Our keywords for docker-py and the user's. Lists and mappings that both give are joined, the user's last.

    Raises:
        TypeError: a value of the user's should be a list or a mapping.
    """
    joined = {**keywords, **more}
    if "labels" in more:
        joined["labels"] = {**_mapping("labels", more["labels"]), **keywords.get("labels", {})}
    if "group_add" in more:
        joined["group_add"] = [*keywords.get("group_add", ()), *_list("group_add", more["group_add"])]
    if "ulimits" in more:
        own = _list("ulimits", more["ulimits"])
        named = {limit.get("name", limit.get("Name")) for limit in own if isinstance(limit, Mapping)}
        joined["ulimits"] = [limit for limit in keywords.get("ulimits", ()) if limit["Name"] not in named] + own
    return joined


def docker_run_options(more: Mapping[str, Any]) -> Iterator[str]:
    """The keywords as options of `docker run`."""
    for name, value in more.items():
        for text in _WRITERS.get(name, _texts)(value):
            yield f"{_FLAGS[name]}={text}"


def entrypoint_arguments(more: Mapping[str, Any]) -> list[str]:
    """The arguments of the entrypoint, which `docker run` takes after the image, as `--entrypoint` is one word."""
    return _words(more.get("entrypoint", ""))[1:]


def _pair(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ValueError(f"{text!r} is not an argument; write it as NAME=VALUE, such as cpuset_cpus=0-3")
    try:
        return name, load_yaml(value)
    except YamlError:
        raise ValueError(f"{name}: {value!r} is not YAML; write a value as 2, text, [A, B] or {{NAME: 1}}") from None


def _mapping(name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} should be a mapping, as {name}={{NAME: VALUE}}")
    return value


def _list(name: str, value: Any) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"{name} should be a list, as {name}=[A, B]")
    return list(value)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value) if isinstance(value, (Mapping, list)) else str(value)


def _texts(value: Any) -> list[str]:
    """One option for each element, and for each entry of a mapping as NAME=VALUE."""
    if isinstance(value, Mapping):
        return [f"{name}={_text(content)}" for name, content in value.items()]
    return [_text(element) for element in value] if isinstance(value, (list, tuple)) else [_text(value)]


def _with_colons(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [f"{name}:{_text(content)}" if content else str(name) for name, content in value.items()]
    return _texts(value)


def _rates(value: Any) -> list[str]:
    """The rates of block devices, each as `PATH:RATE`."""
    return [":".join(_text(part) for part in rate.values()) for rate in value]


def _devices(value: Any) -> list[str]:
    names = ("PathOnHost", "PathInContainer", "CgroupPermissions")
    return [":".join(device[n] for n in names) if isinstance(device, Mapping) else str(device) for device in value]


def _ulimits(value: Any) -> list[str]:
    options = []
    for limit in value:
        fields = {str(name).lower(): content for name, content in limit.items()}
        soft = fields.get("soft", fields.get("hard", 0))
        options.append(f"{fields['name']}={soft}:{fields.get('hard', soft)}")
    return options


def _cpus(value: Any) -> list[str]:
    return [f"{value / 1e9:.9g}"]


def _words(value: Any) -> list[str]:
    return shlex.split(value) if isinstance(value, str) else [str(word) for word in value or ()]


def _entrypoint(value: Any) -> list[str]:
    return _words(value)[:1] or [""]


_WRITERS: Mapping[str, Callable[[Any], list[str]]] = {
    "blkio_weight_device": _rates,
    "device_read_bps": _rates,
    "device_read_iops": _rates,
    "device_write_bps": _rates,
    "device_write_iops": _rates,
    "devices": _devices,
    "entrypoint": _entrypoint,
    "extra_hosts": _with_colons,
    "links": _with_colons,
    "nano_cpus": _cpus,
    "tmpfs": _with_colons,
    "ulimits": _ulimits,
}
