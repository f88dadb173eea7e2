"""The compose file of a cluster is accepted by Compose, and its commands by Ray and tritontune."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.pages import ROOT

_FILE = ROOT / "docker/cluster/compose.yaml"


def compose_tool() -> list[str]:
    for words in (["docker", "compose"], ["docker-compose"]):
        found = shutil.which(words[0])
        if found and not subprocess.run([*words, "version"], capture_output=True, check=False).returncode:
            return words
    pytest.skip("needs docker-compose")


def config(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    tool = compose_tool()
    text = _FILE.read_text("utf-8")
    if tool == ["docker-compose"]:
        # Debian's is one of before Compose V2, and makes no folder for a mount that is written at length.
        text = re.sub(r"\n +bind:\n +create_host_path: false", "", text)
    (folder / "compose.yaml").write_text(text)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.run(
        [*tool, "config"], cwd=folder, env={**environment, **variables}, capture_output=True, text=True, check=False
    )


def test_compose_accepts_it(tmp_path: Path) -> None:
    done = config(tmp_path, RAY_AUTH_TOKEN="t" * 32, MODELS="/srv/models")
    assert done.returncode == 0, done.stderr
    services: dict[str, Any] = yaml.safe_load(done.stdout)["services"]
    assert {"head", "worker-1", "worker-2"} <= set(services)
    nodes = [services[name] for name in ("head", "worker-1", "worker-2")]
    assert all(node["environment"]["RAY_AUTH_TOKEN"] == "t" * 32 for node in nodes)
    assert all(node["environment"]["RAY_AUTH_MODE"] == "token" for node in nodes)
    assert len({node["image"] for node in nodes}) == 1
    assert not any(node.get("ports") for node in nodes)
    assert services["worker-1"]["cpuset"] != services["worker-2"]["cpuset"]


def test_there_is_no_cluster_without_a_token(tmp_path: Path) -> None:
    done = config(tmp_path)
    assert done.returncode != 0
    assert "RAY_AUTH_TOKEN" in done.stderr


def test_the_head_is_none_of_the_hosts_and_each_worker_is_a_slot() -> None:
    services = yaml.safe_load(_FILE.read_text("utf-8"))["services"]
    (head,) = services["head"]["command"]
    assert "--head" in head
    assert "--num-cpus=0" in head
    assert "--resources" not in head
    for name in ("worker-1", "worker-2"):
        (command,) = services[name]["command"]
        assert """--resources='{"tritontune":1}'""" in command
        assert "--address=head:6379" in command
