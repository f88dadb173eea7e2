"""Which hosts are compared with each other."""

from __future__ import annotations

from tuner.cluster.ray.admission import Admission, admit, reference_of
from tuner.cluster.slots import HostFacts

L4 = HostFacts(gpus=("NVIDIA L4",), driver="550", processor="AMD EPYC", cores=8, server="Triton 2.51.0")
H100 = L4.model_copy(update={"gpus": ("NVIDIA H100",)})
NEWER = L4.model_copy(update={"driver": "570"})


def test_equal_hosts_are_admitted() -> None:
    assert admit(L4, L4, mixed=False) == Admission()


def test_another_gpu_is_left_out_and_the_fix_named() -> None:
    assert admit(H100, L4, mixed=False).reason == (
        "its gpus are NVIDIA H100, those of the reference host NVIDIA L4; --mixed uses it in a class of its own"
    )


def test_every_fact_counts() -> None:
    others = {"gpus": (), "driver": "", "processor": "Intel", "cores": 4, "server": "Triton 2.50.0"}
    assert all(admit(L4.model_copy(update={name: value}), L4, mixed=False).reason for name, value in others.items())


def test_mixed_hosts_are_classes_of_their_own() -> None:
    assert admit(H100, L4, mixed=True) == Admission(host_class="gpus NVIDIA H100")
    other = H100.model_copy(update={"driver": ""})
    assert admit(other, L4, mixed=True) == Admission(host_class="gpus NVIDIA H100, driver none")
    assert admit(L4, L4, mixed=True) == Admission()


def test_the_reference_is_the_kind_with_most_slots() -> None:
    assert reference_of([(H100, 2), (L4, 2), (NEWER, 1), (L4, 1)]) == L4


def test_of_kinds_with_equally_many_slots_the_first_is_the_reference() -> None:
    assert reference_of([(H100, 2), (L4, 1), (L4, 1)]) == H100
