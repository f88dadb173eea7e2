"""Two hosts with networks of their own: the run is on one of them, the trials on the other."""

from __future__ import annotations

import importlib.util
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from support.ray_cluster import Network, RayCluster, eventually, two_networks

from tuner.cluster.files.cache import FOLDER_VARIABLE
from tuner.cluster.slot_context import SlotRecipe
from tuner.options.tune_job import TuneJob
from tuner.servers.installation import TritonInstallation
from tuner.testing.executor_contract import MODEL, work
from tuner.testing.repositories import ModelRepositoryFactory

pytestmark = pytest.mark.faults

_RUN = """
import pickle, sys
from dataclasses import replace
from tuner.cluster.ray.executor import RayExecutor
from tuner.cluster.ray.messages import Patience
from tuner.core.errors import HostLostError
from tuner.measure.work import UNHEARD

class Heard:
    def level_began(self, load):
        print("measuring", flush=True)
    def point_measured(self, point):
        pass

recipe, first, endless, folder = pickle.loads(sys.stdin.buffer.read())
patience = Patience(silence_s=5.0)
with RayExecutor(recipe, note=lambda text: print("note:", text, flush=True), patience=patience) as executor:
    (slot,) = executor.slots
    print("points:", len(executor.submit(first, slot, folder / "1", UNHEARD).result(60).points), flush=True)
    future = executor.submit(endless, slot, folder / "2", Heard())
    try:
        future.result(120)
    except HostLostError as lost:
        print("lost:", lost, flush=True)
"""


@pytest.fixture
def networks() -> Iterator[tuple[Network, Network]]:
    if importlib.util.find_spec("ray") is None:
        pytest.skip("needs pip install 'tritontune[cluster]'")
    if os.geteuid() != 0 or not (shutil.which("ip") and shutil.which("ss")):
        pytest.skip("needs root and iproute2, to make network namespaces")
    with two_networks() as made:
        yield made


def test_the_repository_travels_measurements_stay_and_a_cut_link_is_a_lost_host(
    networks: tuple[Network, Network], fake_triton: TritonInstallation, tmp_path: Path
) -> None:
    here, there = networks
    (tmp_path / "repository").mkdir()
    repository = ModelRepositoryFactory(tmp_path / "repository")
    repository.add("identity", name=MODEL)
    weights = bytes(range(256)) * (5 << 15)  # 40 MiB: two chunks
    (repository.path / MODEL / "1/weights").write_bytes(weights)
    options = {"executor": "ray", "parallel": "auto", "triton_path": fake_triton.binary.parent.parent}
    job = TuneJob.model_validate({"repository": repository.path, **options})
    recipe = SlotRecipe(job, (MODEL,), repository.path)
    cache = tmp_path / "cache"
    cluster = RayCluster()
    try:
        cluster.add("here", network=here)
        far = cluster.add("there", slots=1, network=there, environment={FOLDER_VARIABLE: str(cache)})
        with subprocess.Popen(
            [*here.within, sys.executable, "-c", _RUN],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **cluster.environment},
        ) as run:
            assert run.stdin is not None
            assert run.stdout is not None
            run.stdin.write(pickle.dumps((recipe, work(), work(max_s=90), tmp_path)))
            run.stdin.close()
            said = []
            for line in run.stdout:
                said.append(line.decode().strip())
                if said[-1] == "measuring":
                    # The server is in the other network, and listens there on loopback alone.
                    assert far.servers()
                    sockets = subprocess.run(
                        [*there.within, "ss", "-Hltnp"], capture_output=True, text=True, check=True
                    )
                    listening = [
                        each.split()[3] for each in sockets.stdout.splitlines() if _is_server(each, far.servers())
                    ]
                    assert listening
                    assert all(each.startswith("127.0.0.1:") for each in listening)
                    there.cut()
            run.wait(60)
        assert "points: 1" in said
        assert [each for each in said if each.startswith("lost: there/all: its host has not answered for 5 s")], said
        assert [each for each in said if each.startswith("note: sending 3 files, 40 MiB")], said
        assert weights in {path.read_bytes() for path in cache.glob("files/*/*")}
        eventually(lambda: not far.running(), within_s=60)
    finally:
        cluster.stop()


def _is_server(line: str, servers: Sequence[psutil.Process]) -> bool:
    return any(f"pid={server.pid}," in line for server in servers)
