"""What ships in `docker/service` for Compose and Kubernetes is accepted by their tools, and by our own commands."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import docker
import pytest
import yaml
from docker.models.containers import Container
from support.docker_image import SERVICE_IMAGE
from support.pages import ROOT

from tuner.cli.main import cli
from tuner.client import Client
from tuner.client.resources import Submission
from tuner.core.errors import NotAllowedError, ServiceError
from tuner.service.app import ROUTERS
from tuner.service.serving import ServeOptions
from tuner.service.settings import ServiceSettings

_FOLDER = ROOT / "docker/service"
_PASSWORD = "a test's"  # noqa: S105 (no secret)


def _serve_options(words: list[str]) -> ServeOptions:
    """The options of a command line of `serve`, as it checks them."""
    assert words[0] == "serve"
    given = cli.commands["serve"].make_context("serve", words[1:]).params
    options = ServeOptions(
        **{name: value for name, value in given.items() if name in ServeOptions.__dataclass_fields__},
    )
    options.check()
    return options


def _is_public(path: str) -> bool:
    """Whether the service answers at a path without a token."""
    paths = [route for router in ROUTERS for route in router.routes if getattr(route, "path", "") == path]
    assert len(paths) == 1
    return not any(getattr(part.call, "role", None) for part in paths[0].dependant.dependencies)


# Kubernetes.


@pytest.fixture(scope="module")
def documents() -> dict[str, dict[str, Any]]:
    return {each["kind"]: each for each in yaml.safe_load_all((_FOLDER / "kubernetes.yaml").read_text("utf-8"))}


@pytest.fixture(scope="module")
def pod(documents: Mapping[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = documents["Deployment"]["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize("version", ["1.28", "1.37"])
@pytest.mark.parametrize("file", ["docker/service/kubernetes.yaml", "docker/nightly/cronjob.yaml"])
def test_kubernetes_accepts_it(file: str, version: str) -> None:
    validate = pytest.importorskip("kubernetes_validate")
    kinds = []
    for document in yaml.safe_load_all((ROOT / file).read_text("utf-8")):
        validate.validate(document, version, strict=True)
        kinds.append(document["kind"])
    assert kinds
    with pytest.raises(validate.ValidationError):
        validate.validate({"apiVersion": "v1", "kind": "Service", "spec": {"prots": []}}, version, strict=True)


def test_two_pods_never_share_the_data_folder(documents: Mapping[str, Any]) -> None:
    deployment = documents["Deployment"]["spec"]
    assert (deployment["replicas"], deployment["strategy"]) == (1, {"type": "Recreate"})
    assert documents["PersistentVolumeClaim"]["spec"]["accessModes"] == ["ReadWriteOnce"]


def test_names_lead_to_what_there_is(documents: Mapping[str, Any], pod: Mapping[str, Any]) -> None:
    (container,) = pod["containers"]
    labels = documents["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert documents["Service"]["spec"]["selector"] == labels
    assert documents["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    assert documents["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes.keys() == {mount["name"] for mount in container["volumeMounts"]}
    assert volumes["config"]["configMap"]["name"] == documents["ConfigMap"]["metadata"]["name"]
    assert (
        volumes["work"]["persistentVolumeClaim"]["claimName"] == documents["PersistentVolumeClaim"]["metadata"]["name"]
    )
    secret = documents["Secret"]
    assert volumes["secrets"]["secret"]["secretName"] == secret["metadata"]["name"]
    keys = {item["key"] for item in volumes["secrets"]["secret"]["items"]}
    keys |= {variable["valueFrom"]["secretKeyRef"]["key"] for variable in container["env"]}
    assert keys == secret["stringData"].keys()
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert [port["targetPort"] for port in documents["Service"]["spec"]["ports"]] == list(ports)
    for rule in documents["NetworkPolicy"]["spec"]["ingress"]:
        assert {port["port"] for port in rule["ports"]} == ports.keys()


def test_the_service_takes_its_arguments(documents: Mapping[str, Any], pod: Mapping[str, Any]) -> None:
    (container,) = pod["containers"]
    options = _serve_options(container["args"])
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert str(options.data.parent) in mounts
    assert options.config is not None
    assert str(options.config.parent) in mounts
    assert options.config.name in documents["ConfigMap"]["data"]
    assert int(options.listen.rpartition(":")[2]) == container["ports"][0]["containerPort"]
    # The line with PostgreSQL, which is in a comment.
    commented = re.search(r"# - (--database=\S+)", (_FOLDER / "kubernetes.yaml").read_text("utf-8"))
    assert commented
    assert _serve_options([*container["args"], commented[1]]).database_url.startswith("postgresql://")


def test_the_config_file_in_kubernetes(documents: Mapping[str, Any], pod: Mapping[str, Any], tmp_path: Path) -> None:
    (tmp_path / "service.yaml").write_text(documents["ConfigMap"]["data"]["service.yaml"])
    settings = ServiceSettings.read(tmp_path / "service.yaml")
    (container,) = pod["containers"]
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert {str(settings.secrets_folder), *map(str, settings.repositories)} <= set(mounts)
    assert "docker" not in settings.launchers, "there is no engine in the pod"


def test_probes_need_no_token(pod: Mapping[str, Any]) -> None:
    (container,) = pod["containers"]
    probes = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")}
    assert probes == {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}
    assert all(map(_is_public, probes.values()))


def test_the_pod_has_no_more_rights_than_it_needs(pod: Mapping[str, Any]) -> None:
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    # Guaranteed cores: what is requested is the limit.
    assert all(
        container["resources"]["limits"][name] == value for name, value in container["resources"]["requests"].items()
    )


# Compose.


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((_FOLDER / "compose.yaml").read_text("utf-8"))
    return content


def test_the_config_file_of_compose(compose: Mapping[str, Any]) -> None:
    settings = ServiceSettings.read(_FOLDER / "service.yaml")
    mounted = [volume["target"] for volume in compose["services"]["service"]["volumes"] if isinstance(volume, dict)]
    assert [str(path) for path in settings.repositories] == mounted == ["/models"]
    assert "./service.yaml:/etc/tritontune/service.yaml:ro" in compose["services"]["service"]["volumes"]


def test_what_compose_runs(compose: Mapping[str, Any], tmp_path: Path) -> None:
    """The shell of the image reads the password, and hands over to the service."""
    service = compose["services"]["service"]
    (script,) = service["command"]
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "tritontune").write_text('#!/bin/sh\nprintf "%s\\n" "$PGPASSWORD" "$@"\n')
    (tools / "tritontune").chmod(0o755)
    (tmp_path / "password").write_text(f"{_PASSWORD}\n")
    # `$$` is Compose's `$`.
    text = script.replace("$$", "$").replace("/run/secrets/database-password", str(tmp_path / "password"))
    done = subprocess.run(
        [*service["entrypoint"], text],
        env={"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    password, *words = done.stdout.splitlines()
    assert password == _PASSWORD
    options = _serve_options(words)
    assert options.behind_proxy
    # Only this machine reaches the port, and so no token leaves it without TLS.
    assert service["ports"] == ["127.0.0.1:${PORT:-8100}:8100"]
    assert options.listen == "0.0.0.0:8100"
    assert options.database_url == "postgresql://tritontune@database/tritontune"
    database = compose["services"]["database"]["environment"]
    assert (database["POSTGRES_USER"], database["POSTGRES_DB"]) == ("tritontune", "tritontune")
    assert database["POSTGRES_PASSWORD_FILE"] == "/run/secrets/database-password"  # noqa: S105 (a file)
    assert "/readyz" in service["healthcheck"]["test"][-1]


def _compose_tool() -> list[str]:
    for words in (["docker", "compose"], ["docker-compose"]):
        if (
            shutil.which(words[0])
            and not subprocess.run([*words, "version"], capture_output=True, check=False).returncode
        ):
            return words
    pytest.skip("needs docker-compose")


def test_compose_accepts_it(tmp_path: Path) -> None:
    tool = _compose_tool()
    text = (_FOLDER / "compose.yaml").read_text("utf-8")
    if tool == ["docker-compose"]:
        # Debian's is one of before Compose V2, and makes no folder for a mount that is written at length.
        text = re.sub(r"\n +bind:\n +create_host_path: false", "", text)
    (tmp_path / "compose.yaml").write_text(text)
    environment = {**os.environ, "DOCKER_GID": "999", "MODELS": "/srv/models"}
    done = subprocess.run([*tool, "config"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = yaml.safe_load(done.stdout)
    assert set(made["services"]) == {"service", "database"}
    assert "/srv/models" in str(made["services"]["service"]["volumes"])
    del environment["DOCKER_GID"]
    done = subprocess.run([*tool, "config"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "DOCKER_GID" in done.stderr


# The image.


@contextmanager
def _running(engine: docker.DockerClient, **options: Any) -> Iterator[Container]:
    container = engine.containers.run(
        SERVICE_IMAGE,
        ["serve", "--data", "/work/service", "--listen", "0.0.0.0:8100", "--behind-proxy"],
        detach=True,
        ports={"8100/tcp": ("127.0.0.1", 0)},
        **options,
    )
    try:
        yield container
    finally:
        container.remove(force=True, v=True)


def _output(container: Container, *words: str) -> tuple[int, str]:
    """Exit code and output of a command in a container."""
    code, output = container.exec_run(list(words))
    assert isinstance(output, bytes)
    return code or 0, output.decode().strip()


def _client_of(container: Container) -> Client:
    """A client with the admin's token of a service in a container, when that answers."""
    deadline = time.monotonic() + 120
    while True:
        container.reload()
        assert container.status == "running", container.logs().decode()
        code, token = _output(container, "cat", "/work/service/admin.token")
        if not code and (bound := container.ports.get("8100/tcp")):
            client = Client(f"http://127.0.0.1:{bound[0]['HostPort']}", token, timeout_s=5)
            try:
                list(client.hosts())
            except ServiceError:
                client.close()
            else:
                return client
        assert time.monotonic() < deadline, container.logs().decode()
        time.sleep(0.2)


@pytest.mark.docker
@pytest.mark.slow
def test_the_service_runs_in_its_image_as_kubernetes_runs_it(engine: docker.DockerClient) -> None:
    """Without rights, with a root file system that nobody can write to, and as a user of its own."""
    restricted = {
        "read_only": True,
        "tmpfs": {"/tmp": "", "/work": "uid=1000,gid=1000"},  # noqa: S108 (in the container)
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
    }
    with _running(engine, **restricted) as container, closing(_client_of(container)) as client:
        assert list(client.jobs()) == []
        with pytest.raises(NotAllowedError, match="repositories"):
            client.submit(Submission(job={"repository": "/etc", "slo": {"p99": "40ms"}}))
        assert _output(container, "stat", "--format", "%a %u", "/work/service/admin.token") == (0, "600 1000")
        assert _output(container, "python3", "-c", "import psycopg") == (0, ""), "PostgreSQL needs it"
        container.stop(timeout=60)
        assert "the service ends" in container.logs().decode()
        container.reload()
        assert container.attrs["State"]["ExitCode"] == 0
