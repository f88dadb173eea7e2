from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tuner.client.resources import JobKind
from tuner.core.errors import JobError
from tuner.nightly.jobs import NightlyJob
from tuner.options.measure_job import MeasureJob
from tuner.options.tune_job import TuneJob
from tuner.service.policy import FREE, JOBS, Address, AllowList
from tuner.service.refusals import ForbiddenError
from tuner.service.secrets import Secrets
from tuner.service.settings import ServiceSettings

Make = Callable[..., AllowList]


def _resolved(host: str) -> Sequence[Address]:
    known = {
        "triton.example.com": "203.0.113.7",
        "rebound.example.com": "169.254.169.254",
        "inside.example.com": "127.0.0.1",
        "localhost": "127.0.0.1",
        "2130706433": "127.0.0.1",
    }
    if host not in known:
        raise OSError(host)
    return [ipaddress.ip_address(known[host])]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    (root / "mlp").mkdir(parents=True)
    (root / "inputs.json").write_text("{}")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret.txt").write_text("1")
    (root / "out").symlink_to(tmp_path / "elsewhere")
    return root


@pytest.fixture
def make(root: Path) -> Make:
    def make(**settings: Any) -> AllowList:
        chosen = ServiceSettings.make({"repositories": str(root), **settings}, source="service.yaml")
        environment = {"API_TOKEN": "abc", "PATH": "/bin"}
        return AllowList(chosen, Secrets(chosen.secrets, environment), runs=root.parent / "jobs", resolve=_resolved)

    return make


def _tune(allow: AllowList, root: Path, **options: Any) -> dict[str, Any]:
    return allow.checked("tune", {"repository": str(root), "model": "mlp", **options}, "submit")[1]


@pytest.mark.parametrize("kind", JOBS)
def test_every_option_of_every_kind_of_job_is_free_or_checked(make: Make, kind: JobKind) -> None:
    assert not JOBS[kind].model_fields.keys() - make().covered


def test_the_list_has_no_option_that_no_job_has(make: Make) -> None:
    fields = {*TuneJob.model_fields, *MeasureJob.model_fields, *NightlyJob.model_fields}
    assert make().covered == fields


def test_what_reaches_files_hosts_or_programs_is_not_free() -> None:
    risky = {
        "action",
        "command",
        "docker_arg",
        "env",
        "header",
        "image",
        "input_data",
        "intervals",
        "metrics_url",
        "mount",
        "network",
        "repository",
        "request_parameter",
        "server",
        "space",
        "timestamps",
        "tls_ca",
        "tls_cert",
        "tls_key",
        "triton_arg",
        "triton_path",
        "url",
        "user",
        "warm_start",
    }
    assert not risky & FREE


def test_a_plain_job_passes_and_its_repository_is_stored_without_links(make: Make, root: Path) -> None:
    (root.parent / "link").symlink_to(root)
    stored = _tune(make(), root.parent / "link", slo={"p99": "40ms"}, budget="10m")
    assert stored == {"repository": str(root), "model": "mlp", "slo": {"p99": "40ms"}, "budget": "10m"}


def test_without_settings_repositories_lie_in_the_folder_of_the_start(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    allow = AllowList(ServiceSettings(), Secrets((), {}))
    monkeypatch.chdir("/")
    assert _tune(allow, root)["repository"] == str(root)
    with pytest.raises(ForbiddenError, match=r"repository: /etc is not within .*/models; .* `repositories`"):
        _tune(allow, root, repository="/etc")


@pytest.mark.parametrize(
    ("options", "setting"),
    [
        ({"repository": "/"}, "repositories"),
        ({"repository": "{root}/../elsewhere"}, "repositories"),
        ({"repository": "{root}/out"}, "repositories"),
        ({"input_data": "/etc/passwd"}, "files"),
        ({"input_data": "{root}/out/secret.txt"}, "files"),
        ({"space": "/etc/passwd"}, "files"),
        ({"warm_start": "/"}, "files"),
        ({"tls_cert": "/etc/ssl/private/key.pem", "url": "grpcs://triton.example.com"}, "files"),
        ({"tls_key": "../../key.pem", "url": "grpcs://triton.example.com"}, "files"),
        ({"tls_ca": "/etc/shadow", "url": "grpcs://triton.example.com"}, "files"),
        ({"triton_path": "/bin/sh"}, "triton_paths"),
        ({"triton_path": "{root}/mlp"}, "triton_paths"),
        ({"image": "evil/image"}, "images"),
        ({"image": "nvcr.io/nvidia/tritonserver.evil.com/x:1"}, "images"),
        ({"mount": "/:/host"}, "mounts"),
        ({"mount": "/var/run/docker.sock:/var/run/docker.sock"}, "mounts"),
        ({"mount": "volume:/data"}, "mounts"),
        ({"mount": "{root}:/data"}, "mounts"),
        ({"network": "host"}, "networks"),
        ({"user": "root"}, "users"),
        ({"executor": "ray"}, "ray_addresses"),
        ({"executor": "ray", "ray_address": "10.0.0.1:6379"}, "ray_addresses"),
        ({"executor": "ray", "repository_on_hosts": "/etc"}, "repositories"),
        ({"docker_arg": {"privileged": True}}, "docker_args"),
        ({"docker_arg": "pid_mode=host"}, "docker_args"),
        ({"docker_arg": "cap-add=[SYS_ADMIN]"}, "docker_args"),
        ({"env": "LD_PRELOAD=/tmp/x.so"}, "env"),
        ({"env": {"PYTHONPATH": "/opt"}}, "env"),
        ({"env": {"CUDA_VISIBLE_DEVICES": "0"}}, "env"),
        ({"env": ["PATH"]}, "env"),
        ({"env": ["OMP_NUM_THREADS"]}, "secrets"),
        ({"triton_arg": "--backend-directory=/tmp/backends"}, "triton_args"),
        ({"triton_arg": "--repoagent-directory=/tmp"}, "triton_args"),
        ({"triton_arg": "--cache-config=redis,host=10.0.0.1"}, "triton_args"),
        ({"triton_arg": "--cache-directory=/tmp"}, "triton_args"),
        ({"triton_arg": "--trace-config=triton,file=/etc/cron.d/x"}, "triton_args"),
        ({"triton_arg": "--trace-config=opentelemetry,url=http://169.254.169.254"}, "triton_args"),
        ({"triton_arg": "--http-address=0.0.0.0"}, "triton_args"),
        ({"triton_arg": "--allow-sagemaker=true"}, "triton_args"),
        ({"triton_arg": "--backend-config=tensorrt,plugins=/tmp/x.so"}, "triton_args"),
        ({"triton_arg": "--backend-dir=/tmp"}, "triton_args"),
        ({"url": "127.0.0.1:8001"}, "hosts"),
        ({"url": "http://169.254.169.254"}, "hosts"),
        ({"url": "http://[::1]:8000"}, "hosts"),
        ({"url": "http://[::ffff:169.254.169.254]"}, "hosts"),
        ({"url": "http://2130706433"}, "hosts"),
        ({"url": "localhost:8001"}, "hosts"),
        ({"url": "elsewhere.example.org"}, "hosts"),
        ({"url": "triton.example.com", "metrics_url": "http://169.254.169.254/latest"}, "hosts"),
        ({"url": "triton.example.com", "metrics_url": "http://triton.example.com@10.0.0.1/"}, "hosts"),
    ],
)
def test_what_is_not_listed_is_refused_with_the_setting_that_would_allow_it(
    make: Make, root: Path, options: dict[str, Any], setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    hosts = ["triton.example.com"] if "triton.example.com" in str(options) else []
    filled = {name: value.format(root=root) if isinstance(value, str) else value for name, value in options.items()}
    with pytest.raises(ForbiddenError, match=rf"^({'|'.join(options)})\b.*`{setting}`"):
        _job(make(hosts=hosts), root, filled)


def _job(allow: AllowList, root: Path, options: dict[str, Any]) -> None:
    model = {} if "url" in options else {"repository": str(root)}
    allow.checked("tune", {**model, "model": "mlp", **options}, "admin")


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ({"files": "{root}/.."}, {"input_data": "{root}/out/secret.txt"}),
        ({}, {"input_data": "{root}/inputs.json"}),
        ({}, {"input_data": "zero", "space": "latency"}),
        ({}, {"warm_start": "{root}/../jobs/12/run"}),
        ({"triton_paths": "/opt/tritonserver"}, {"triton_path": "/opt/tritonserver"}),
        ({"images": ["registry.example.com/*"]}, {"image": "registry.example.com/triton:1"}),
        ({}, {"image": "nvcr.io/nvidia/tritonserver:26.10-py3"}),
        ({"mounts": ["/data", "cache"]}, {"mount": ["/data/x:/x:ro", "cache:/cache"]}),
        ({"networks": "tuning"}, {"network": "tuning"}),
        ({"users": "1000"}, {"user": "1000"}),
        ({"ray_addresses": "head:6379"}, {"executor": "ray", "ray_address": "head:6379", "mixed": True}),
        ({"ray_addresses": "h"}, {"executor": "ray", "ray_address": "h", "repository_on_hosts": "{root}"}),
        ({}, {"parallel": "auto", "cores_per_slot": 2, "gpus_per_slot": 1}),
        ({"docker_args": "nano_cpus"}, {"docker_arg": "nano_cpus=2000000000"}),
        ({"env": "NCCL_*"}, {"env": "NCCL_DEBUG=WARN"}),
        ({}, {"env": {"OMP_NUM_THREADS": "2"}}),
        ({}, {"triton_arg": ["--log-verbose=1", "--pinned-memory-pool-byte-size=0"]}),
        (
            {"triton_args": ["backend-config=onnxruntime,*"]},
            {"triton_arg": "--backend-config=onnxruntime,enable-global-threadpool=1"},
        ),
        ({"hosts": "triton.example.com"}, {"url": "triton.example.com:8001"}),
        ({"hosts": "*.example.com"}, {"url": "grpcs://triton.example.com"}),
        ({"hosts": "203.0.113.0/24"}, {"url": "triton.example.com"}),
        ({"hosts": "203.0.113.7"}, {"url": "http://203.0.113.7", "metrics_url": "http://203.0.113.7:8002/metrics"}),
        ({"hosts": "localhost"}, {"url": "localhost:8001"}),
        ({"hosts": "localhost"}, {"url": "[::1]:8001"}),
        ({"hosts": ["inside.example.com", "127.0.0.1"]}, {"url": "inside.example.com"}),
    ],
)
def test_what_is_listed_passes(make: Make, root: Path, settings: dict[str, Any], options: dict[str, Any]) -> None:
    def filled(values: dict[str, Any]) -> dict[str, Any]:
        return {name: value.format(root=root) if isinstance(value, str) else value for name, value in values.items()}

    _job(make(**filled(settings)), root, filled(options))


@pytest.mark.parametrize("host", ["rebound.example.com", "inside.example.com"])
def test_a_listed_name_must_not_lead_to_this_machine_or_to_its_link(make: Make, root: Path, host: str) -> None:
    with pytest.raises(ForbiddenError, match=rf"url: {host} leads to [\d.]+, a loopback, link-local .* `hosts`"):
        _job(make(hosts="*.example.com"), root, {"url": host})


def test_an_unlisted_host_is_refused_without_a_look_at_the_name_service(root: Path) -> None:
    def unasked(host: str) -> Sequence[Address]:
        raise AssertionError(host)

    settings = ServiceSettings.make({"repositories": str(root), "hosts": "triton.example.com"})
    with pytest.raises(ForbiddenError):
        _job(AllowList(settings, Secrets((), {}), resolve=unasked), root, {"url": "data-as-a-name.attacker.example"})


@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        ("other:6379", ForbiddenError, "ray_address: other:6379 is not allowed.*`ray_addresses`"),
        (None, JobError, "job: ray_address: is missing; write one of head:6379, 10.0.0.1:6379"),
    ],
)
def test_a_job_names_the_cluster_that_it_may_use(
    make: Make, root: Path, address: str | None, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        _job(make(ray_addresses=["head:6379", "10.0.0.1:6379"]), root, {"executor": "ray", "ray_address": address})


def test_launchers_may_be_fewer(make: Make, root: Path) -> None:
    with pytest.raises(ForbiddenError, match="server: process is not allowed.*`launchers`"):
        _job(make(launchers=["docker"]), root, {"server": "process"})
    with pytest.raises(ForbiddenError, match="server: auto is not allowed.*`launchers`"):
        _job(make(launchers=["docker"]), root, {})


def test_an_unknown_option_is_an_error_with_the_nearest_name(make: Make, root: Path) -> None:
    with pytest.raises(JobError, match="job: unknown option 'budgte'; did you mean 'budget'"):
        _tune(make(), root, budgte="1m")
    with pytest.raises(JobError, match="unknown option 'notify'"):
        _tune(make(), root, notify=[{"webhook": "http://169.254.169.254"}])


def test_a_file_that_may_not_be_named_is_refused_whether_or_not_it_exists(make: Make, root: Path) -> None:
    reasons = []
    for name in ("/etc/passwd", "/etc/no-such-file"):
        with pytest.raises(ForbiddenError) as refused:
            _tune(make(), root, input_data=name)
        reasons.append(str(refused.value).replace(name, "FILE"))
    assert reasons[0] == reasons[1]


@pytest.mark.parametrize("value", [["a"], {"a": 1}, 3, "", " ", "a\0b", "s3://bucket/models", "x" * 5000])
def test_a_repository_that_is_no_path_is_a_plain_error(make: Make, root: Path, value: Any) -> None:
    with pytest.raises((JobError, ForbiddenError), match="repository"):
        _tune(make(), root, repository=value)


@pytest.mark.parametrize("action", [{"action": "apply"}, {"action": "command", "command": ["/opt/deploy.sh"]}])
def test_deploying_without_approval_needs_the_role_approve(make: Make, root: Path, action: dict[str, Any]) -> None:
    allow, options = make(hooks=[["/opt/deploy.sh"]]), {"repository": str(root), **action}
    with pytest.raises(ForbiddenError, match="needs the role approve"):
        allow.checked("nightly", options, "submit")
    allow.checked("nightly", options, "approve")


def test_a_command_must_be_a_listed_hook_with_its_arguments(make: Make, root: Path) -> None:
    options = {"repository": str(root), "action": "command", "command": ["/opt/deploy.sh", "; rm -rf /"]}
    with pytest.raises(ForbiddenError, match="command: /opt/deploy.sh is not allowed.*`hooks`"):
        make(hooks=[["/opt/deploy.sh"]]).checked("nightly", options, "admin")


def test_measurements_are_checked_too(make: Make, root: Path) -> None:
    allow = make()
    allow.checked("measure", {"repository": str(root), "model": "mlp", "concurrency": "1,8"}, "submit")
    for option in ("intervals", "timestamps"):
        with pytest.raises(ForbiddenError, match=f"{option}: /etc/passwd .*`files`"):
            allow.checked("measure", {"repository": str(root), option: "/etc/passwd"}, "submit")


def test_hosts_are_looked_at_again_when_the_job_starts(root: Path) -> None:
    led_to = ["203.0.113.7"]
    settings = ServiceSettings.make({"repositories": str(root), "hosts": "*.example.com"})
    allow = AllowList(
        settings, Secrets((), {}), resolve=lambda _: [ipaddress.ip_address(address) for address in led_to]
    )
    options = {"url": "triton.example.com", "metrics_url": "http://triton.example.com:8002/metrics"}
    _job(allow, root, options)
    led_to[:] = ["203.0.113.7", "169.254.169.254"]
    with pytest.raises(ForbiddenError, match="url: triton.example.com leads to 169.254.169.254"):
        allow.check_hosts(options)
    led_to.clear()
    with pytest.raises(ForbiddenError, match="metrics_url: elsewhere.example.org"):
        allow.check_hosts({"metrics_url": "http://elsewhere.example.org"})
    allow.check_hosts({"repository": str(root)})


_LARGE = 90_000
_LAUGHS = (
    "labels={a: &a [x,x,x,x,x,x,x,x,x,x]"
    + "".join(f", {after}: &{after} [{','.join([f'*{before}'] * 10)}]" for before, after in pairwise("abcdefghij"))
    + "}"
)


@pytest.mark.parametrize(
    "options",
    [
        {"header": ["a:" + " " * _LARGE + "\x01"]},
        {"header": ["a:b"] * 1000},
        {"header": {"a." * (_LARGE // 2): "x"}},
        {"env": [f"A{number}=1" for number in range(1000)]},
        {"env": {"A" * _LARGE: "1"}},
        {"shape": [f"a{number}:1" for number in range(1000)]},
        {"docker_arg": _LAUGHS},
        {"docker_arg": "labels=" + "[" * (_LARGE // 50)},
        {"mount": "a:" * (_LARGE // 2)},
        {"budget": "1s" * (_LARGE // 2)},
        {"triton_arg": "--log-verbose=password=" + "a=" * (_LARGE // 2)},
        {"host_policy": "a,cpu-cores=" + "1-2," * (_LARGE // 4) + "x"},
        {"url": "http://x/" + "~" * _LARGE + "\x01"},
        {"url": "http://" + "a." * (_LARGE // 2)},
        {"string_data": "${A" * (_LARGE // 3)},
        {"x" * _LARGE: 1},
        {"model": ["x" * 100_001]},
        {"model": ["m"] * 1001},
        {"docker_arg": {"labels": {"a": ["x"] * 1001}}},
    ],
    ids=range(19),
)
def test_no_option_takes_long_to_check(make: Make, root: Path, options: dict[str, Any]) -> None:
    began = time.process_time()
    with suppress(JobError, ForbiddenError):
        _job(make(hosts="*.example.com"), root, options)
    assert time.process_time() - began < 20  # some ms; what was quadratic took minutes
