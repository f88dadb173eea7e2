"""What slots a machine has, for what a job asks."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from support.nvml import StandInGpu, StandInLibrary, installed, mig_instance

from tuner.cluster.slots import Device, HostFacts, Parts, Shape, Slot, neighbours, note_on, processor_name
from tuner.core.errors import JobError
from tuner.core.machine import Machine
from tuner.options.tune_job import TuneJob

_A, _B, _C, _D = (Device(str(place), f"GPU-{place}") for place in range(4))


def _job(**options: Any) -> TuneJob:
    return TuneJob.make({"repository": "models", **options})


def _slots(cores: int, devices: tuple[Device, ...] = (), **options: Any) -> list[tuple[str, str, str]]:
    """The slots of a machine: their names, and the cores of servers and load generators."""
    parts = Parts(devices, tuple(range(cores)))
    return [
        (slot.name, _listed(slot.cores), _listed(slot.load_cores))
        for slot in Shape.of(_job(**options), parts).slots("h", parts)
    ]


def _listed(cores: frozenset[int]) -> str:
    return " ".join(map(str, sorted(cores)))


class TestCores:
    def test_one_slot_is_the_whole_machine(self) -> None:
        assert _slots(8, parallel="auto") == [("h/all", "", "")]

    def test_cores_are_shared_equally(self) -> None:
        assert _slots(8, parallel=2) == [("h/cores:0-2", "0 1 2", "3"), ("h/cores:4-6", "4 5 6", "7")]
        assert _slots(7, parallel=2) == [("h/cores:0-1", "0 1", "2"), ("h/cores:3-4", "3 4", "5")]
        assert _slots(12, parallel=2) == [("h/cores:0-3", "0 1 2 3", "4 5"), ("h/cores:6-9", "6 7 8 9", "10 11")]

    def test_load_generators_get_half_as_many_cores_as_servers(self) -> None:
        assert _slots(12, parallel="auto", cores_per_slot=4) == [
            ("h/cores:0-3", "0 1 2 3", "4 5"),
            ("h/cores:6-9", "6 7 8 9", "10 11"),
        ]
        assert _slots(4, parallel="auto", cores_per_slot=1) == [("h/cores:0", "0", "1"), ("h/cores:2", "2", "3")]

    def test_more_slots_leave_fewer_cores_to_load_generators(self) -> None:
        assert _slots(15, parallel=3, cores_per_slot=4) == [
            ("h/cores:0-3", "0 1 2 3", "4"),
            ("h/cores:5-8", "5 6 7 8", "9"),
            ("h/cores:10-13", "10 11 12 13", "14"),
        ]

    def test_load_generators_share_cores_that_are_too_few(self) -> None:
        assert _slots(2, parallel=2) == [("h/cores:0", "0", "0"), ("h/cores:1", "1", "1")]
        assert _slots(4, parallel=2, cores_per_slot=2) == [("h/cores:0-1", "0 1", "0 1"), ("h/cores:2-3", "2 3", "2 3")]
        assert _slots(2, cores_per_slot=2) == [("h/cores:0-1", "0 1", "0 1")]

    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            ({"parallel": 3}, "--parallel 3: this machine has 2 cores; use --parallel 2 or less"),
            (
                {"parallel": 2, "cores_per_slot": 2},
                "--parallel 2 --cores-per-slot 2: needs 4 cores, this machine has 2; use fewer",
            ),
            (
                {"parallel": "auto", "cores_per_slot": 3},
                "--cores-per-slot 3: needs 3 cores, this machine has 2; use fewer",
            ),
            ({"gpus_per_slot": 1}, "--gpus-per-slot: this machine has no GPU that the job may use"),
        ],
    )
    def test_too_few_are_refused(self, options: dict[str, Any], complaint: str) -> None:
        with pytest.raises(JobError) as raised:
            _slots(2, **options)
        assert str(raised.value) == complaint


class TestGpus:
    def test_each_gpu_is_a_slot_with_cores_of_its_own(self) -> None:
        assert _slots(8, (_A, _B), parallel="auto") == [("h/gpu:0", "0 1 2", "3"), ("h/gpu:1", "4 5 6", "7")]

    def test_one_slot_is_not_pinned(self) -> None:
        assert _slots(8, (_A,), parallel="auto") == [("h/gpu:0", "", "")]

    def test_gpus_in_groups(self) -> None:
        assert _slots(2, (_A, _B, _C, _D), parallel="auto", gpus_per_slot=2) == [
            ("h/gpu:0,1", "", ""),
            ("h/gpu:2,3", "", ""),
        ]
        parts = Parts((_A, _B, _C), (0, 1))
        (slot,) = Shape.of(_job(parallel="auto", gpus_per_slot=2), parts).slots("h", parts)
        assert slot.gpus == ("GPU-0", "GPU-1")

    def test_fewer_slots_than_gpus(self) -> None:
        assert [name for name, *_ in _slots(8, (_A, _B, _C), parallel=2)] == ["h/gpu:0", "h/gpu:1"]

    def test_cores_near_the_gpu_come_first(self) -> None:
        far, near = Device("0", "GPU-0", frozenset({4, 5, 6, 7})), Device("1", "GPU-1", frozenset({0, 1, 2, 3}))
        assert _slots(8, (far, near), parallel=2) == [("h/gpu:0", "4 5 6", "7"), ("h/gpu:1", "0 1 2", "3")]

    def test_cores_as_asked(self) -> None:
        assert _slots(8, (_A, _B), parallel=2, cores_per_slot=2) == [("h/gpu:0", "0 1", "2"), ("h/gpu:1", "3 4", "5")]
        assert _slots(2, (_A, _B, _C), parallel="auto", cores_per_slot=1) == [
            ("h/gpu:0", "0", "0"),
            ("h/gpu:1", "1", "1"),
        ]

    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            (
                {"parallel": 3},
                "--parallel 3: needs 3 GPUs (1 for each slot), this machine has 2; use --parallel 2 or less",
            ),
            (
                {"parallel": 2, "gpus_per_slot": 2},
                "--parallel 2: needs 4 GPUs (2 for each slot), this machine has 2; use --parallel 1 or less",
            ),
            ({"gpus_per_slot": 3}, "--gpus-per-slot: must be <= 2, the number of GPUs, got 3"),
        ],
    )
    def test_too_few_are_refused(self, options: dict[str, Any], complaint: str) -> None:
        with pytest.raises(JobError) as raised:
            _slots(8, (_A, _B), **options)
        assert str(raised.value) == complaint

    def test_a_process_uses_one_mig_instance(self) -> None:
        instances = Device("0:0", "MIG-a"), Device("0:1", "MIG-b")
        assert [name for name, *_ in _slots(8, instances, parallel="auto")] == ["h/gpu:0:0", "h/gpu:0:1"]
        with pytest.raises(JobError, match="--gpus-per-slot: must be 1 with MIG"):
            _slots(8, instances, gpus_per_slot=2)


class TestParts:
    _LIBRARY = (
        StandInGpu("GPU-a", cores=(0,)),
        StandInGpu("GPU-b", mig=[mig_instance(1), None, mig_instance(2)]),
        StandInGpu("GPU-c"),
    )

    @pytest.mark.parametrize(
        ("options", "environment", "places"),
        [
            ({}, {}, ["0", "1:0", "1:2", "2"]),
            ({}, {"CUDA_VISIBLE_DEVICES": "2,0"}, ["2", "0"]),
            ({}, {"CUDA_VISIBLE_DEVICES": "GPU-b"}, ["1:0", "1:2"]),
            ({}, {"CUDA_VISIBLE_DEVICES": ""}, []),
            ({"gpus": "2"}, {"CUDA_VISIBLE_DEVICES": "0"}, ["2"]),
            ({"gpus": "none"}, {}, []),
            ({"gpus": "all"}, {}, ["0", "1:0", "1:2", "2"]),
            ({"env": "CUDA_VISIBLE_DEVICES=0"}, {"CUDA_VISIBLE_DEVICES": "2"}, ["0"]),
            ({"env": "NVIDIA_VISIBLE_DEVICES=GPU-c"}, {}, ["2"]),
        ],
    )
    def test_gpus_that_the_job_and_the_environment_allow(
        self, options: dict[str, Any], environment: dict[str, str], places: list[str]
    ) -> None:
        with installed(StandInLibrary(*self._LIBRARY)):
            parts = Parts.here(_job(**options), environment)
        assert [device.place for device in parts.devices] == places
        assert all(device.near == {0} for device in parts.devices if device.uuid == "GPU-a")

    def test_cores_are_those_of_this_process(self) -> None:
        before = os.sched_getaffinity(0)
        try:
            os.sched_setaffinity(0, {min(before)})
            assert Parts.here(_job()).cores == (min(before),)
        finally:
            os.sched_setaffinity(0, before)

    def test_without_those_in_use(self) -> None:
        parts = Parts((_A, _B), (0, 1, 2))
        assert parts.without({"GPU-0", "core-1"}) == Parts((_B,), (0, 2))

    def test_slots_of_what_is_left_have_the_same_size(self) -> None:
        parts = Parts((), tuple(range(8)))
        shape = Shape.of(_job(parallel=2), parts)
        (slot,) = shape.slots("h", parts.without({"core-0", "core-1"}))
        assert slot.cores == {2, 3, 4}
        assert slot.load_cores == {5}
        assert shape.slots("h", parts.without({f"core-{core}" for core in range(5)})) == ()


def test_hardware_threads_of_a_core_are_neighbours(tmp_path: Path) -> None:
    # Two processors with two cores each, of two threads.
    for core, (package, siblings) in enumerate([(0, "0,4"), (0, "1,5"), (1, "2,6"), (1, "3,7")] * 2):
        topology = tmp_path / f"cpu{core}" / "topology"
        topology.mkdir(parents=True)
        (topology / "physical_package_id").write_text(f"{package}\n")
        (topology / "thread_siblings_list").write_text(f"{siblings}\n")
    assert neighbours(range(8), tmp_path) == (0, 4, 1, 5, 2, 6, 3, 7)
    assert neighbours({7, 1, 5, 2}, tmp_path) == (1, 5, 2, 7)


def test_cores_without_a_topology_are_in_order(tmp_path: Path) -> None:
    assert neighbours({3, 1, 2}, tmp_path) == (1, 2, 3)


class TestFacts:
    def test_of_this_host(self) -> None:
        machine = Machine.here()
        facts = HostFacts.here(machine, "Triton 2.0")
        assert (facts.server, facts.cores) == ("Triton 2.0", machine.cpus)
        assert facts.processor
        assert facts.differing_fields(facts) == ()
        assert facts.differing_fields(facts.model_copy(update={"driver": "1"})) == ("driver",)
        assert pickle.loads(pickle.dumps(facts)) == facts  # noqa: S301 (our own)

    def test_the_name_of_the_processor(self, tmp_path: Path) -> None:
        file = tmp_path / "cpuinfo"
        file.write_text("processor\t: 0\nmodel\t\t: 17\nmodel name\t: AMD EPYC  9654 96-Core\n\nmodel name\t: other\n")
        assert processor_name(file) == "AMD EPYC 9654 96-Core"
        file.write_text("processor : 0\nCPU part : 0xd4f\n")
        assert processor_name(file) == os.uname().machine
        assert processor_name(tmp_path / "nothing") == os.uname().machine


@pytest.mark.parametrize(
    ("slots", "about"),
    [
        ([Slot("a", "h"), Slot("b", "h")], "slots share the cores of this machine"),
        ([Slot("a", "h", cores=frozenset({0}), load_cores=frozenset({0}))], "load generators share the cores"),
        ([Slot("a", "h", cores=frozenset({0}), load_cores=frozenset({1}))], None),
        ([Slot("a", "h")], None),
    ],
)
def test_a_note_tells_of_cores_that_are_too_few(slots: list[Slot], about: str | None) -> None:
    notes: list[str] = []
    note_on(slots, notes.append)
    assert [note.startswith(about or "") for note in notes] == [True] * bool(about)
