"""What ships in `docker/cluster` for Kubernetes and Slurm is accepted by their tools, as far as these are here."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from support.pages import ROOT

from tuner.cli.main import cli
from tuner.cluster.files.cache import FOLDER_VARIABLE, SIZE_VARIABLE
from tuner.core.quantities import parse_size
from tuner.options.tune_job import TuneJob

_FOLDER = ROOT / "docker/cluster"
_SLURM = _FOLDER / "slurm.sh"

# The fields of a RayCluster that the manifest may use, by the types of KubeRay 1.5.1 (ray.io/v1). The pod templates are
# validated as those of Kubernetes.
_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
_GROUP = {"rayStartParams": _TEXTS, "template": {"type": "object"}}
_RAY_CLUSTER = {
    "type": "object",
    "additionalProperties": False,
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "ray.io/v1"},
        "kind": {"const": "RayCluster"},
        "metadata": {"type": "object"},
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "required": ["headGroupSpec"],
            "properties": {
                "rayVersion": {"type": "string"},
                "authOptions": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {"mode": {"enum": ["disabled", "token"]}},
                },
                "headGroupSpec": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["template"],
                    "properties": {**_GROUP, "serviceType": {"enum": ["ClusterIP", "NodePort", "LoadBalancer"]}},
                },
                "workerGroupSpecs": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["groupName", "minReplicas", "maxReplicas", "template"],
                        "properties": {
                            **_GROUP,
                            "groupName": {"type": "string"},
                            "replicas": {"type": "integer"},
                            "minReplicas": {"type": "integer"},
                            "maxReplicas": {"type": "integer"},
                            "numOfHosts": {"type": "integer"},
                        },
                    },
                },
            },
        },
    },
}


@pytest.fixture(scope="module")
def documents() -> dict[str, dict[str, Any]]:
    return {each["kind"]: each for each in yaml.safe_load_all((_FOLDER / "kuberay.yaml").read_text("utf-8"))}


@pytest.fixture(scope="module")
def pods(documents: Mapping[str, Any]) -> list[dict[str, Any]]:
    spec = documents["RayCluster"]["spec"]
    return [group["template"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]


def test_the_ray_cluster_has_fields_that_kuberay_knows(documents: Mapping[str, Any]) -> None:
    jsonschema.validate(documents["RayCluster"], _RAY_CLUSTER)
    assert documents["RayCluster"]["spec"]["authOptions"] == {"mode": "token"}
    wrong = json.loads(json.dumps(documents["RayCluster"]))
    wrong["spec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0
    with pytest.raises(jsonschema.ValidationError, match="0 is not of type 'string'"):
        jsonschema.validate(wrong, _RAY_CLUSTER)


@pytest.mark.parametrize("version", ["1.28", "1.37"])
def test_kubernetes_accepts_the_pods_and_the_rest(
    documents: Mapping[str, Any], pods: list[dict[str, Any]], version: str
) -> None:
    validate = pytest.importorskip("kubernetes_validate")
    for kind, document in documents.items():
        if kind != "RayCluster":
            validate.validate(document, version, strict=True)
    assert len(pods) == 2
    for pod in pods:
        document = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "x", **pod["metadata"]},
            "spec": pod["spec"],
        }
        validate.validate(document, version, strict=True)
        with pytest.raises(validate.ValidationError):
            validate.validate({**document, "spec": {**pod["spec"], "contianers": []}}, version, strict=True)


def test_names_lead_to_what_there_is(documents: Mapping[str, Any], pods: list[dict[str, Any]]) -> None:
    name = documents["RayCluster"]["metadata"]["name"]
    policy = documents["NetworkPolicy"]["spec"]
    assert policy["podSelector"]["matchLabels"] == {"ray.io/cluster": name}
    assert policy["ingress"][0]["from"] == [{"podSelector": policy["podSelector"]}]
    claims = {
        volume["persistentVolumeClaim"]["claimName"]
        for pod in pods
        for volume in pod["spec"]["volumes"]
        if "persistentVolumeClaim" in volume
    }
    assert claims == {"model-repository", documents["PersistentVolumeClaim"]["metadata"]["name"]}
    for pod in pods:
        (container,) = pod["spec"]["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {
            volume["name"] for volume in pod["spec"]["volumes"]
        }
        resources = container["resources"]  # guaranteed quality of service
        assert all(resources["limits"][what] == amount for what, amount in resources["requests"].items())


def test_the_cache_of_a_worker_fits_into_its_volume(pods: list[dict[str, Any]]) -> None:
    worker = pods[1]["spec"]
    (container,) = worker["containers"]
    values = {each["name"]: each["value"] for each in container["env"]}
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in worker["volumes"]}
    limit = volumes[mounts[values[FOLDER_VARIABLE]]]["emptyDir"]["sizeLimit"]
    assert parse_size(values[SIZE_VARIABLE]) < parse_size(limit.replace("Gi", "GiB"))


def test_the_head_carries_out_no_trials_and_workers_have_gpus(documents: Mapping[str, Any]) -> None:
    spec = documents["RayCluster"]["spec"]
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group in spec["workerGroupSpecs"]:
        assert group["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] > 0


def _job_of(words: list[str]) -> TuneJob:
    """The job of a command line of `run`, as the command line reads it."""
    assert words[:2] == ["tritontune", "run"]
    given = cli.commands["run"].make_context("run", words[2:]).params
    return TuneJob(**{name: given[name] for name in ("executor", "parallel") if name in given}, repository=Path("/m"))


def test_the_command_in_kubernetes_is_one_of_ours() -> None:
    text = (_FOLDER / "kuberay.yaml").read_text("utf-8")
    command = next(line for line in text.splitlines() if "tritontune run" in line).lstrip("# ").split()
    job = _job_of(command)
    assert (job.executor, job.parallel) == ("ray", "auto")


class TestSlurm:
    """The batch script, with programs in the place of Slurm's and Ray's."""

    def test_it_is_valid(self) -> None:
        subprocess.run(["bash", "-n", _SLURM], check=True)
        if shellcheck := shutil.which("shellcheck"):
            subprocess.run([shellcheck, _SLURM], check=True)

    @pytest.fixture
    def environment(self, tmp_path: Path) -> dict[str, str]:
        """An allocation of two nodes."""
        programs = {
            "scontrol": '[ "$*" = "show hostnames gpu[07-08]" ] && printf "gpu07\\ngpu08\\n"',
            "srun": """
                printf "%s\\n" "$@" > words
                env > environment
                while [ "$1" != -- ]; do shift; done
                shift
                "$@"
                exit 1
            """,
            "tritontune": """
                printf "%s\\n" tritontune "$@" > ours
                [ "$2" = ends ] && exit 3
                trap "exit 130" TERM
                touch waits
                while :; do sleep 0.05; done
            """,
        }
        for name, code in programs.items():
            (tmp_path / name).write_text(f"#!/bin/sh\n{code}\n")
            (tmp_path / name).chmod(0o755)
        return {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "SLURM_JOB_NODELIST": "gpu[07-08]",
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_CPUS_ON_NODE": "64",
        }

    def test_a_run_ends_in_time(self, tmp_path: Path, environment: dict[str, str]) -> None:
        script = subprocess.Popen(["bash", _SLURM, "waits"], env=environment, cwd=tmp_path)
        while not (tmp_path / "waits").exists():
            time.sleep(0.02)
        script.send_signal(signal.SIGTERM)  # of Slurm, before the time limit
        assert script.wait(30) == 130

    def test_a_run_that_did_not_begin_is_a_failure(self, tmp_path: Path, environment: dict[str, str]) -> None:
        (tmp_path / "srun").write_text("#!/bin/sh\nexit 0\n")
        assert subprocess.run(["bash", _SLURM, "ends"], env=environment, cwd=tmp_path, check=False).returncode == 1

    @pytest.mark.parametrize("more", ["", "--container-image=triton --container-mounts=/a:/a"])
    def test_it_starts_ray_on_each_node_and_the_run_on_the_first(
        self, tmp_path: Path, environment: dict[str, str], more: str
    ) -> None:
        done = subprocess.run(
            ["bash", _SLURM, "ends", "/shared/my models", "--slo", "p99=40ms"],
            env={**environment, **({"SRUN": more} if more else {})},
            cwd=tmp_path,
            check=False,
        )
        assert done.returncode == 3  # that of the run
        assert not list(tmp_path.glob(".*"))
        words = (tmp_path / "words").read_text().splitlines()
        first = words.index("ray")
        assert words[:first] == ["--nodes=2", "--ntasks=2", "--cpus-per-task=64", *more.split()]
        ours = words.index("--")
        assert words[first:ours] == ["ray", "symmetric-run", "--address", "gpu07:6379", "--min-nodes", "2"]
        run = (tmp_path / "ours").read_text().splitlines()
        assert run[:6] == ["tritontune", "run", "ends", "/shared/my models", "--slo", "p99=40ms"]
        job = _job_of([*run[:2], *run[3:]])
        assert (job.executor, job.parallel) == ("ray", "auto")
        seen = dict(line.split("=", 1) for line in (tmp_path / "environment").read_text().splitlines() if "=" in line)
        assert seen["RAY_AUTH_MODE"] == "token"
        assert len(seen["RAY_AUTH_TOKEN"]) == 64
        assert seen["RAY_ADDRESS"] == "gpu07:6379"
