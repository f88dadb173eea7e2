"""Faults of real processes on a real Ray cluster: what is lost, what goes on, and that nothing is left."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

import psutil
import pytest
from support.command_line import words_of
from support.ray_cluster import Executors, Node, RayCluster, eventually

from tuner.cluster.ray.executor import RayExecutor
from tuner.cluster.slots import Slot
from tuner.core.errors import HostLostError, JobError, TuningError
from tuner.measure.work import UNHEARD, Outcome
from tuner.testing.executor_contract import Heard, work

pytestmark = pytest.mark.faults


@contextmanager
def another(cluster: RayCluster, name: str, *, core: int | None = None) -> Iterator[Node]:
    """One more node with a slot, for one test."""
    node = cluster.add(name, slots=1, core=core)
    try:
        yield node
    finally:
        node.kill()
        cluster.nodes.remove(node)


def slot_of(executor: RayExecutor, host: str) -> Slot:
    eventually(lambda: [slot for slot in executor.slots if slot.host == host], within_s=90)
    return next(slot for slot in executor.slots if slot.host == host)


def long_work(executor: RayExecutor, slot: Slot, folder: Path) -> Future[Outcome]:
    """Work that would take a minute, and has begun to measure."""
    heard = Heard()
    future = executor.submit(work(max_s=60), slot, folder, heard)
    assert heard.began.wait(60)
    return future


def test_a_killed_worker_loses_its_slot_which_joins_again(
    executors: Executors, ray_cluster: RayCluster, tmp_path: Path, notes: list[str]
) -> None:
    second = ray_cluster.node("second")
    with executors() as executor:
        slot = slot_of(executor, "second")
        future = long_work(executor, slot, tmp_path / "1")
        for worker in second.workers():
            worker.kill()
        with pytest.raises(HostLostError, match="^second/all: its Ray worker died$"):
            future.result(30)
        assert executor.submit(work(), slot_of(executor, "second"), tmp_path / "2", UNHEARD).result(60).points
        assert "host second was lost: its Ray worker died" in notes
        eventually(lambda: "host second works again" in notes)
    assert not second.traces()


def test_a_stopped_worker_is_lost_and_leaves_nothing_when_it_goes_on(
    executors: Executors, ray_cluster: RayCluster, tmp_path: Path
) -> None:
    second = ray_cluster.node("second")
    with executors(patience={"silence_s": 3.0, "pause_s": 60.0}) as executor:
        future = long_work(executor, slot_of(executor, "second"), tmp_path / "1")
        (stopped,) = second.workers()
        stopped.send_signal(signal.SIGSTOP)
        with pytest.raises(HostLostError, match="^second/all: its host has not answered for 3 s$"):
            future.result(30)
        time.sleep(1.0)
        if stopped.is_running():
            stopped.send_signal(signal.SIGCONT)
        eventually(lambda: not second.running())  # its folders are removed when a slot opens there again


def test_a_lost_node_is_told_and_joins_again_as_another(
    executors: Executors, ray_cluster: RayCluster, tmp_path: Path, notes: list[str]
) -> None:
    with executors() as executor:
        with another(ray_cluster, "third") as third:
            future = long_work(executor, slot_of(executor, "third"), tmp_path / "1")
            third.kill()
            with pytest.raises(HostLostError, match="^third/all: its (host|Ray)"):
                future.result(60)
            assert executor.submit(work(), slot_of(executor, "head"), tmp_path / "2", UNHEARD).result(60).points
        with another(ray_cluster, "third"):
            assert executor.submit(work(), slot_of(executor, "third"), tmp_path / "3", UNHEARD).result(60).points
    assert next(note for note in notes if note.startswith("host third")).startswith("host third was admitted")


def test_a_host_that_differs_is_left_out_or_a_class_of_its_own(
    executors: Executors, ray_cluster: RayCluster, notes: list[str]
) -> None:
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        pytest.skip("needs a machine with two cores")
    with another(ray_cluster, "small", core=min(cores)):
        with executors() as executor:
            assert {host.name for host in executor.hosts} == {"head", "second"}
        with executors(mixed=True) as executor:
            slot_of(executor, "small")
            classes = {host.name: host.host_class for host in executor.hosts}
            assert classes == {"head": "", "second": "", "small": "cores 1"}
    expected = f"host small is left out: its cores are 1, those of the reference host {len(cores)}; --mixed uses it"
    assert [note for note in notes if note.startswith(expected)]


def test_no_place_is_an_error_with_a_reason(executors: Executors) -> None:
    with (
        executors(),
        pytest.raises(TuningError, match=r"Ray did not start an actor on it within 4 s \(tritontune: 1\)"),
        executors(patience={"place_s": 4.0}),
    ):
        pass


def test_a_killed_driver_is_started_again(executors: Executors, tmp_path: Path) -> None:
    with executors() as executor:
        future = long_work(executor, slot_of(executor, "second"), tmp_path / "1")
        children = psutil.Process().children()
        (driver,) = [each for each in children if "tuner.cluster.ray.driver" in " ".join(words_of(each))]
        driver.kill()
        with pytest.raises(HostLostError, match="^second/all: the connection to the Ray cluster is lost"):
            future.result(30)
        assert executor.submit(work(), slot_of(executor, "second"), tmp_path / "2", UNHEARD).result(60).points


def test_a_lost_head_ends_the_work(executors: Executors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = RayCluster()
    try:
        head = alone.add("alone", slots=1)
        for name, value in alone.environment.items():
            monkeypatch.setenv(name, value)
        with executors() as executor:
            future = long_work(executor, slot_of(executor, "alone"), tmp_path / "1")
            for process in (*head.named("gcs_server"), head.raylet()):
                process.kill()
            with pytest.raises(HostLostError, match="^alone/all: "):
                future.result(60)
            eventually(lambda: not executor.slots)
            eventually(lambda: not head.running())
    finally:
        alone.stop()


@pytest.mark.parametrize("token", ["", "wrong" * 8])
def test_a_wrong_token_is_one_line_soon(executors: Executors, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    if not token:
        monkeypatch.delenv("RAY_AUTH_MODE")
    with pytest.raises(JobError, match=r"^--ray-address: cannot connect to .*: it refuses the token; set"):
        executors().__enter__()


def test_secrets_are_neither_in_files_nor_in_arguments_nor_in_variables(
    executors: Executors, ray_cluster: RayCluster, tmp_path: Path
) -> None:
    secret = token_hex(16)
    with executors(header=[f"authorization: {secret}"], env=[f"API_TOKEN={secret}"]) as executor:
        assert executor.submit(work(), executor.slots[0], tmp_path / "1", UNHEARD).result(60).points
        long_work(executor, executor.slots[0], tmp_path / "2")
        for node in ray_cluster.nodes:
            for process in node.processes():
                with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
                    variables = process.environ()
                    is_server = "TRITONTUNE_SERVER" in variables
                    assert secret not in " ".join(process.cmdline()), process
                    assert is_server or secret not in str(variables), process
    files = [path for path in (*ray_cluster.folder.rglob("*"), *tmp_path.rglob("*")) if path.is_file()]
    assert files
    assert [path for path in files if secret.encode() in path.read_bytes()] == []
