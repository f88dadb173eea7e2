"""Slots, what jobs need, and which job starts when."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.nvml import StandInGpu, StandInLibrary, installed, mig_instance

from tuner.core.errors import JobError
from tuner.service.slots import HostSlot, LocalHost, Need, Obstacle, cpu_slots, plan_starts, wait_in_words

_GPUS = tuple(HostSlot(f"gpu:{number}", "H100", f"GPU-{number}{number}") for number in range(3))
_WITH_GPUS = LocalHost("gpus", "three GPUs", _GPUS)
_WITHOUT = LocalHost("cpus", "8 cores", cpu_slots(range(8), 4))


class TestNeeds:
    @pytest.mark.parametrize(
        ("options", "named", "any_of"),
        [
            ({}, set(), 3),
            ({"gpus": "none"}, set(), 3),
            ({"gpus": 1}, {"gpu:1"}, 0),
            ({"gpus": "0,2"}, {"gpu:0", "gpu:2"}, 0),
            ({"gpus": ["0", "2"]}, {"gpu:0", "gpu:2"}, 0),
            ({"gpus": "all"}, {"gpu:0", "gpu:1", "gpu:2"}, 0),
            ({"gpus": "GPU-11"}, {"gpu:1"}, 0),
            ({"gpus": "9"}, set(), 3),  # the job itself says that there is none
            ({"gpus": "what?"}, {"gpu:0", "gpu:1", "gpu:2"}, 0),
            ({"env": {"CUDA_VISIBLE_DEVICES": "1"}}, {"gpu:1"}, 0),
            ({"env": ["OTHER=1", "NVIDIA_VISIBLE_DEVICES=0,1"]}, {"gpu:0", "gpu:1"}, 0),
            ({"env": "CUDA_VISIBLE_DEVICES="}, set(), 3),
            ({"env": ["CUDA_VISIBLE_DEVICES"]}, set(), 3),  # the service's own, which LocalHost.here knows
            ({"url": "Triton:8001"}, {"server triton:8001"}, 3),
            ({"url": "grpcs://triton"}, {"server triton:8001"}, 3),
            ({"url": "::"}, {"server ::"}, 3),
        ],
    )
    def test_of_gpus(self, options: dict[str, Any], named: set[str], any_of: int) -> None:
        need = _WITH_GPUS.need("tune", options, None)
        assert need.named == named
        assert need.any_of == tuple(slot.name for slot in _GPUS[:any_of])

    @pytest.mark.parametrize(
        ("options", "count"),
        [
            ({"parallel": 2}, 2),
            ({"parallel": "2"}, 2),
            ({"parallel": "auto"}, 3),
            ({"parallel": 1, "gpus_per_slot": 2}, 2),
            ({"parallel": 2, "gpus_per_slot": 2}, 4),
            ({"parallel": "many"}, 1),  # the job itself says what is wrong
            ({"parallel": "auto", "executor": "local"}, 3),
        ],
    )
    def test_of_trials_at_once(self, options: dict[str, Any], count: int) -> None:
        need = _WITH_GPUS.need("tune", options, None)
        assert need == Need(any_of=("gpu:0", "gpu:1", "gpu:2"), count=count)

    def test_gpus_by_name_are_the_slots_of_trials_at_once(self) -> None:
        need = _WITH_GPUS.need("tune", {"parallel": 2, "gpus": "0,2"}, None)
        assert need == Need(frozenset({"gpu:0", "gpu:2"}))

    def test_on_cores_gpus_per_slot_count_for_nothing(self) -> None:
        assert _WITHOUT.need("tune", {"parallel": 2, "gpus_per_slot": 4}, None).count == 2

    def test_a_job_on_ray_needs_its_cluster_alone(self) -> None:
        options = {"executor": "ray", "ray_address": "head:6379", "parallel": "auto"}
        assert _WITH_GPUS.need("tune", options, None) == Need(any_of=("cluster head:6379",))
        night = _WITH_GPUS.need("nightly", options, "t")
        assert night == Need(frozenset({"nights of t"}), ("cluster head:6379",))
        shared = LocalHost("gpus", "three GPUs", _GPUS, jobs_per_cluster=2).need("tune", options, None)
        assert shared == Need(any_of=("cluster head:6379 (1)", "cluster head:6379 (2)"))

    def test_of_cores(self) -> None:
        for options in ({}, {"gpus": "none"}, {"gpus": "all"}, {"gpus": "0"}):
            assert _WITHOUT.need("measure", options, None) == Need(any_of=("cpu:0", "cpu:1"))

    def test_nights_of_a_target_never_overlap(self) -> None:
        one, other = (_WITHOUT.need("nightly", {"repository": "/m"}, target) for target in ("one", "other"))
        assert one.named == {"nights of one"}
        assert other.named == {"nights of other"}
        assert _WITHOUT.need("nightly", {"repository": "/m"}, None).named == {"nights of /m"}


class TestAssignment:
    def test_a_job_gets_the_gpu_of_its_slot(self) -> None:
        assert _WITH_GPUS.gpus_for({"gpu:1", "server x"}, {}) == "GPU-11"
        assert _WITH_GPUS.cores_for({"gpu:1"}) == frozenset()
        assert _WITH_GPUS.gpus_for({"gpu:0", "gpu:2"}, {"parallel": 2}) == "GPU-00,GPU-22"
        assert _WITH_GPUS.gpus_for({"cluster head:6379"}, {"executor": "ray"}) is None
        assert _WITHOUT.cores_for({"cluster head:6379"}) == frozenset()

    @pytest.mark.parametrize("options", [{"gpus": "1"}, {"url": "x:1"}, {"env": {"CUDA_VISIBLE_DEVICES": "1"}}])
    def test_but_its_own_options_count(self, options: dict[str, Any]) -> None:
        assert _WITH_GPUS.gpus_for({"gpu:1"}, options) is None

    def test_a_job_gets_the_cores_of_its_slot(self) -> None:
        assert _WITHOUT.gpus_for({"cpu:1"}, {}) is None
        assert _WITHOUT.cores_for({"cpu:1"}) == {4, 5, 6, 7}

    def test_cores_belong_to_slots(self) -> None:
        assert _WITHOUT.sharing(frozenset({3, 4})) == ("cpu:0", "cpu:1")
        assert _WITHOUT.sharing(frozenset({7})) == ("cpu:1",)
        assert _WITHOUT.sharing(frozenset()) == _WITH_GPUS.sharing(frozenset({1})) == ()
        assert LocalHost("h", "", cpu_slots(range(8), None)).sharing(frozenset({7})) == ("cpu:0",)


class TestThisHost:
    def test_without_gpus_it_has_one_slot_of_all_cores(self) -> None:
        host = LocalHost.here()
        assert [(slot.name, slot.cores) for slot in host.slots] == [("cpu:0", frozenset())]
        assert host.slots[0].description == "all CPU cores"
        assert host.name

    def test_its_cores_can_be_split(self) -> None:
        host = LocalHost.here(1)
        assert len(host.slots) == len(os.sched_getaffinity(0))
        assert {core for slot in host.slots for core in slot.cores} == os.sched_getaffinity(0)
        with pytest.raises(JobError, match=r"cores_per_slot: must be <= \d+, the number of this machine's cores"):
            LocalHost.here(10_000)

    def test_cores_that_do_not_fill_a_slot_stay_free(self) -> None:
        slots = cpu_slots([0, 1, 2, 4, 5, 8, 9, 10], 3)
        assert [slot.description for slot in slots] == ["CPU cores 0-2", "CPU cores 4-5,8"]

    def test_each_gpu_and_each_mig_instance_is_a_slot(self) -> None:
        library = StandInLibrary(
            StandInGpu("GPU-a"),
            StandInGpu("GPU-b", mig=[mig_instance(1), None, mig_instance(2)]),
            StandInGpu("GPU-c"),
        )
        with installed(library):
            host = LocalHost.here(environment={})
            some = LocalHost.here(environment={"CUDA_VISIBLE_DEVICES": "2"})
            one_more = LocalHost.here(environment={"CUDA_VISIBLE_DEVICES": "GPU-b"})
            none = LocalHost.here(environment={"CUDA_VISIBLE_DEVICES": ""})
        names = ["gpu:0", "gpu:1:0", "gpu:1:2", "gpu:2"]
        assert [slot.name for slot in host.slots] == names
        assert host.slots[1].gpu == "MIG-1aaaaaaa-0000"
        assert host.need("tune", {"gpus": "1"}, None).named == {"gpu:1:0", "gpu:1:2"}
        assert host.need("tune", {"gpus": "MIG-2aaaaaaa-0000"}, None).named == {"gpu:1:2"}
        assert [slot.name for slot in some.slots] == ["gpu:2"]
        assert [slot.name for slot in one_more.slots] == names[1:3]
        assert [slot.name for slot in none.slots] == ["cpu:0"]


class TestThePlan:
    def test_jobs_start_in_order_as_far_as_slots_are_free(self) -> None:
        any_gpu = Need(any_of=("gpu:0", "gpu:1"))
        plan = plan_starts([(1, any_gpu), (2, any_gpu), (3, any_gpu)], {})
        assert plan.starts == {1: {"gpu:0"}, 2: {"gpu:1"}}
        assert plan.waits == {3: (Obstacle("gpu:0", 1), Obstacle("gpu:1", 2))}

    def test_a_later_job_starts_on_what_an_earlier_one_does_not_need(self) -> None:
        queue = [(8, Need(frozenset({"gpu:0"}))), (9, Need(any_of=("gpu:0", "gpu:1")))]
        plan = plan_starts(queue, {"gpu:0": 7})
        assert plan.starts == {9: {"gpu:1"}}
        assert plan.waits == {8: (Obstacle("gpu:0", 7),)}

    def test_what_a_waiting_job_needs_by_name_is_reserved_for_it(self) -> None:
        queue = [(8, Need(frozenset({"gpu:0", "gpu:1"}))), (9, Need(any_of=("gpu:0", "gpu:1")))]
        plan = plan_starts(queue, {"gpu:0": 7})
        assert plan.starts == {}
        assert plan.waits[9] == (Obstacle("gpu:0", 7), Obstacle("gpu:1", 8, reserved=True))

    def test_free_slots_are_kept_for_a_job_that_needs_several(self) -> None:
        slots = ("gpu:0", "gpu:1", "gpu:2")
        queue = [(8, Need(any_of=slots, count=2)), (9, Need(any_of=slots))]
        plan = plan_starts(queue, {"gpu:0": 7, "gpu:1": 6})
        assert plan.starts == {}
        assert plan.waits[9] == (Obstacle("gpu:0", 7), Obstacle("gpu:1", 6), Obstacle("gpu:2", 8, reserved=True))
        assert plan_starts(queue, {"gpu:1": 6}).starts == {8: {"gpu:0", "gpu:2"}}

    def test_two_jobs_on_one_running_server_take_turns(self) -> None:
        need = Need(frozenset({"server h:1"}), ("cpu:0", "cpu:1"))
        plan = plan_starts([(1, need), (2, need), (3, Need(any_of=need.any_of))], {})
        assert plan.starts == {1: {"server h:1", "cpu:0"}, 3: {"cpu:1"}}
        assert plan.waits == {2: (Obstacle("server h:1", 1),)}

    def test_the_reason_names_the_slot_and_the_job(self) -> None:
        about = {12: "mlp, running since 14:05 UTC"}
        assert wait_in_words([Obstacle("gpu:0", 12)], {}) == "GPU 0 is held by job 12"
        assert wait_in_words([Obstacle("cpu:0", 12)], about) == "cpu:0 is held by job 12 (mlp, running since 14:05 UTC)"
        several = [Obstacle("gpu:0", 12), Obstacle("gpu:1", 13, reserved=True), *[Obstacle("gpu:2", 14)] * 4]
        assert wait_in_words(several, {}) == (
            "GPU 0 is held by job 12; GPU 1 is reserved for job 13; GPU 2 is held by job 14; "
            "GPU 2 is held by job 14; and 2 more"
        )


_SLOTS = ("s0", "s1", "s2")
_NAMES = st.frozensets(st.sampled_from((*_SLOTS, "server x", "server y")), max_size=3)
_NEEDS = st.builds(Need, _NAMES, st.sampled_from([(), _SLOTS, _SLOTS[:2]]), st.integers(1, 4)).filter(
    # Jobs need slots by name, or any, not both.
    lambda need: (need.named or need.any_of) and not (need.any_of and need.named & {*_SLOTS})
)


@given(st.lists(_NEEDS, max_size=12), st.dictionaries(st.sampled_from((*_SLOTS, "server x")), st.just(99), max_size=3))
def test_no_name_is_ever_held_twice_and_who_waits_has_an_obstacle(needs: list[Need], held: dict[str, int]) -> None:
    queue = list(enumerate(needs, start=1))
    plan = plan_starts(queue, held)
    given_out = [name for names in plan.starts.values() for name in names]
    assert len(given_out) == len(set(given_out))
    assert not set(given_out) & held.keys()
    assert {*plan.starts, *plan.waits} == dict(queue).keys()
    for job, need in queue:
        if job in plan.starts:
            own = plan.starts[job]
            assert need.named <= own
            assert len(own - need.named) == min(need.count, len(need.any_of))
        else:
            assert plan.waits[job]
            for obstacle in plan.waits[job]:
                # What it waits for is in use, or kept for one before it.
                assert obstacle.job == 99 or obstacle.job < job or obstacle.job in plan.starts
    # The first of the queue never waits for what is free.
    if queue and 1 in plan.waits:
        assert all(obstacle.name in held for obstacle in plan.waits[1])


@given(
    st.integers(0, 10_000),
    st.sampled_from([Need(frozenset(_SLOTS)), *(Need(any_of=_SLOTS, count=n) for n in (2, 3, 4))]),
)
def test_a_big_job_starts_when_those_that_run_now_have_ended(seed: int, big: Need) -> None:
    """However many small jobs come after it."""
    choose, numbers = random.Random(seed), count(2)  # noqa: S311 (no secret)
    held: dict[str, int] = dict.fromkeys(choose.sample(_SLOTS, choose.randint(1, 3)), 0)
    running: dict[int, frozenset[str]] = {0: frozenset(held)}
    queue: dict[int, Need] = {1: big}
    ended = 0
    while 1 not in running:
        queue.update((next(numbers), Need(any_of=_SLOTS)) for _ in range(choose.randint(0, 3)))
        plan = plan_starts(sorted(queue.items()), _holders(running))
        for job, names in plan.starts.items():
            running[job] = names
            del queue[job]
        if 1 not in running:
            running.pop(choose.choice(sorted(running)))
            ended += 1
        assert ended <= len(_SLOTS)


def _holders(running: Mapping[int, frozenset[str]]) -> dict[str, int]:
    return {name: job for job, names in running.items() for name in names}
