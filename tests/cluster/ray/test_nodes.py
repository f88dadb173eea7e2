"""Nodes of a Ray cluster, and what they offer, without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tuner.cluster.ray.nodes import Node, nodes_of, offer_of
from tuner.cluster.slots import Device, Parts
from tuner.options.tune_job import TuneJob


def listed(id_: str = "a1b2c3d4", *, alive: bool = True, host: str = "worker", **given: Any) -> dict[str, Any]:
    """A node as `ray.nodes()` lists it."""
    resources = given.pop("resources", {"CPU": 4.0})
    node = {"NodeID": id_, "Alive": alive, "NodeManagerAddress": "192.0.2.7", "NodeManagerHostname": host}
    return {**node, "NodeName": "192.0.2.7", "Resources": resources, **given}


def job(**options: Any) -> TuneJob:
    return TuneJob.model_validate({"repository": Path("repository"), "executor": "ray", **options})


def parts(gpus: int = 0, cores: int = 8) -> Parts:
    return Parts(tuple(Device(str(n), f"GPU-{n}") for n in range(gpus)), tuple(range(cores)))


def test_a_node_is_a_host_of_its_machine_s_name() -> None:
    assert nodes_of([listed(resources={"CPU": 4.0, "GPU": 2.0})]) == (Node("a1b2c3d4", "worker", "192.0.2.7", 2, 4),)


def test_a_name_that_the_user_gave_a_node_names_its_host() -> None:
    assert [node.name for node in nodes_of([listed(NodeName="rack-2")])] == ["rack-2"]


def test_hosts_of_one_name_are_told_apart() -> None:
    nodes = nodes_of([listed("aaaaaaaa"), listed("bbbbbbbb")])
    assert [node.name for node in nodes] == ["worker-aaaaaa", "worker-bbbbbb"]


def test_a_node_that_was_started_again_has_the_name_of_the_lost_one() -> None:
    listed_twice = [listed("aaaaaaaa"), listed("bbbbbbbb")]
    assert [(node.id, node.name) for node in nodes_of(listed_twice, {"aaaaaaaa"})] == [("bbbbbbbb", "worker")]
    assert [node.name for node in nodes_of([listed("aaaaaaaa")], {"aaaaaaaa"})] == ["worker"]


def test_dead_nodes_and_those_without_resources_are_none() -> None:
    assert nodes_of([listed(alive=False), listed("b", resources={"memory": 1e9})]) == ()


def test_nodes_are_in_order_of_their_names() -> None:
    assert [node.name for node in nodes_of([listed("b", host="b"), listed("a", host="a")])] == ["a", "b"]


@pytest.mark.parametrize(("gpus", "options", "slots"), [(4, {}, 4), (4, {"gpus_per_slot": 2}, 2)])
def test_a_node_with_gpus_offers_slots_of_them(gpus: int, options: dict[str, Any], slots: int) -> None:
    offer = offer_of(Node("id", "worker", "", gpus=gpus, cpus=8), job(**options), parts(gpus))
    assert [request.options for request in offer.requests] == [
        {"num_gpus": gpus // slots, "num_cpus": 0, "resources": {}}
    ] * slots


def test_ray_chooses_the_devices_of_a_slot() -> None:
    request = offer_of(Node("id", "worker", "", gpus=2), job(gpus_per_slot=2), parts(2)).requests[0]
    slot = request.slot_with([("3", "GPU-three"), ("5", "GPU-five")])
    assert (slot.name, slot.host, slot.gpus) == ("worker/gpu:3,5", "worker", ("GPU-three", "GPU-five"))


def test_gpus_that_only_ray_knows_are_slots_too() -> None:
    assert len(offer_of(Node("id", "worker", "", gpus=2), job(), parts(0)).requests) == 2


def test_a_node_with_too_few_gpus_says_so() -> None:
    offer = offer_of(Node("id", "worker", "", gpus=1), job(gpus_per_slot=2), parts(1))
    assert (offer.requests, offer.reason) == ((), "--gpus-per-slot: must be <= 1, the number of GPUs, got 2")


def test_a_node_s_resource_says_how_many_slots_its_cores_are() -> None:
    offer = offer_of(Node("id", "worker", "", cpus=8, places=2), job(), parts(cores=8))
    assert [request.options["resources"] for request in offer.requests] == [{"tritontune": 1}] * 2
    first, second = (request.slot.cores | request.slot.load_cores for request in offer.requests)
    assert not first & second


def test_slots_of_cores_ask_ray_for_them_and_for_those_of_the_load_generator() -> None:
    offer = offer_of(Node("id", "worker", "", cpus=8), job(cores_per_slot=2), parts(cores=8))
    assert [request.options["num_cpus"] for request in offer.requests] == [3, 3]
    assert all(len(request.slot.cores) == 2 for request in offer.requests)


def test_ray_may_schedule_fewer_cores_than_there_are() -> None:
    assert len(offer_of(Node("id", "worker", "", cpus=4), job(cores_per_slot=2), parts(cores=8)).requests) == 1


def test_a_node_of_cores_is_one_slot_by_default() -> None:
    (request,) = offer_of(Node("id", "worker", "", cpus=8), job(), parts()).requests
    assert (request.options["num_cpus"], request.slot.name, str(request)) == (8, "worker/all", "CPU: 8")
