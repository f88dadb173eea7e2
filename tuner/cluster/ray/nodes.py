"""The nodes of a Ray cluster, and what a slot of a node asks Ray for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tuner.cluster.slots import Device, Parts, Shape, Slot
from tuner.core.errors import JobError
from tuner.options.gpus import NONE
from tuner.options.placement import AUTO
from tuner.options.tune_job import TuneJob

SLOTS_OF_A_NODE = "tritontune"
"""The custom resource that says how many slots a node without GPUs has: `ray start --resources '{"tritontune": 2}'`."""


@dataclass(frozen=True)
class Node:
    """A living node.

    Attributes:
        id: Its id, which differs after each start of Ray on it.
        name: The name of its host, unique in the cluster.
        address: Its IP address.
        gpus: Its GPUs that Ray schedules.
        cpus: Its cores that Ray schedules.
        places: The slots that `SLOTS_OF_A_NODE` gives it; None: it does not say.
    """

    id: str
    name: str
    address: str
    gpus: int = 0
    cpus: int = 0
    places: int | None = None


@dataclass(frozen=True)
class Request:
    """What the actor of a slot asks Ray for.

    Attributes:
        slot: The slot; Ray chooses its GPUs.
        gpus: Whole GPUs.
        cpus: Cores.
        places: Units of `SLOTS_OF_A_NODE`.
    """

    slot: Slot
    gpus: int = 0
    cpus: int = 0
    places: int = 0

    @property
    def options(self) -> dict[str, Any]:
        """Options of a Ray actor."""
        resources = {SLOTS_OF_A_NODE: self.places} if self.places else {}
        return {"num_gpus": self.gpus, "num_cpus": self.cpus, "resources": resources}

    def slot_with(self, devices: Sequence[tuple[str, str]]) -> Slot:
        """The slot with the GPUs that Ray gave: Ray's names, and UUIDs."""
        if not self.gpus:
            return self.slot
        name = f"{self.slot.host}/gpu:{','.join(name for name, _ in devices)}"
        return replace(self.slot, name=name, gpus=tuple(uuid for _, uuid in devices))

    def __str__(self) -> str:
        parts = {"GPU": self.gpus, "CPU": self.cpus, SLOTS_OF_A_NODE: self.places}
        return ", ".join(f"{name}: {amount}" for name, amount in parts.items() if amount)


def nodes_of(listed: Iterable[Mapping[str, Any]], lost: Collection[str] = ()) -> tuple[Node, ...]:
    """The living nodes that have something for slots, in order of their names.

    Args:
        listed: What `ray.nodes()` lists.
        lost: Ids of nodes whose slots are lost. Ray may list them for a while when Ray was started there again.
    """
    listed = [each for each in listed if each["Alive"]]
    going_on = {_name(each) for each in listed if each["NodeID"] not in lost}
    living = [each for each in listed if each["NodeID"] not in lost or _name(each) not in going_on]
    names = Counter(map(_name, living))
    nodes = []
    for each in living:
        name, resources = _name(each), each.get("Resources", {})
        node = Node(
            id=each["NodeID"],
            name=name if names[name] == 1 else f"{name}-{each['NodeID'][:6]}",
            address=each["NodeManagerAddress"],
            gpus=int(resources.get("GPU", 0)),
            cpus=int(resources.get("CPU", 0)),
            places=int(resources[SLOTS_OF_A_NODE]) if SLOTS_OF_A_NODE in resources else None,
        )
        if node.gpus or node.cpus or node.places:
            nodes.append(node)
    return tuple(sorted(nodes, key=lambda node: node.name))


def _name(listed: Mapping[str, Any]) -> str:
    """The name that the user gave a node (`ray start --node-name`), else that of its machine."""
    given, address = listed.get("NodeName", ""), listed["NodeManagerAddress"]
    return str(given if given and given != address else listed["NodeManagerHostname"] or address)


@dataclass(frozen=True)
class Offer:
    """What a node has for slots of a job.

    Attributes:
        requests: One for each slot.
        reason: Why there is none.
    """

    requests: tuple[Request, ...] = ()
    reason: str = ""


def offer_of(node: Node, job: TuneJob, parts: Parts) -> Offer:
    """What a node offers for a job.

    Args:
        node: The node. Ray chooses the devices of each slot; the slots that are made here give its cores.
        job: The job.
        parts: The parts of its machine.
    """
    gpus = node.gpus if node.places is None and job.gpus != NONE else 0
    # Ray may be told of GPUs that the driver does not know.
    devices = parts.devices[:gpus] if len(parts.devices) >= gpus else tuple(Device(str(n), str(n)) for n in range(gpus))
    parts, most = Parts(devices, parts.cores), AUTO if node.places is None else node.places
    try:
        slots = Shape.of(job.model_copy(update={"parallel": most}), parts).slots(node.name, parts)
    except JobError as error:
        return Offer(reason=str(error))
    if gpus:
        return Offer(tuple(Request(gpus=len(slot.gpus), slot=slot) for slot in slots))
    if node.places is not None:
        return Offer(tuple(Request(places=1, slot=slot) for slot in slots))
    requests, left = [], node.cpus
    for slot in slots:
        cores = min(len(slot.cores | slot.load_cores) or node.cpus, node.cpus)
        if cores > left:
            break
        left -= cores
        requests.append(Request(cpus=cores, slot=slot))
    return Offer(tuple(requests), f"Ray schedules {node.cpus} of its cores, which are too few for a slot")
