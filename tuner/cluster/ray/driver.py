"""The driver: the process of a run that uses Ray.

It finds the nodes, opens a slot in an actor on each place that they offer, and passes work and outcomes on. A place
that is lost is tried again as long as its node lives, and nodes that join are used, too. When the run's process ends,
however it ends, the driver ends all work. When the driver ends, however it ends, Ray ends its actors.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from typing import Any

import ray
from ray import exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tuner.cluster.files.transfer import Source
from tuner.cluster.host_changes import HostChange
from tuner.cluster.ray.admission import admit, reference_of
from tuner.cluster.ray.host_link import HostLink
from tuner.cluster.ray.losses import reason_of
from tuner.cluster.ray.messages import (
    Changed,
    Close,
    Connected,
    Done,
    Drain,
    Failed,
    Joined,
    Lost,
    Note,
    Progress,
    Ready,
    Run,
    Start,
)
from tuner.cluster.ray.nodes import Node, Offer, Request, nodes_of, offer_of
from tuner.cluster.ray.parts import in_parts
from tuner.cluster.ray.probe import DISTRIBUTION, make_probe, why_unsuitable
from tuner.cluster.ray.slot_actor import SlotActor
from tuner.cluster.slots import Host, HostFacts, Slot
from tuner.config.repository import ModelRepository
from tuner.core.errors import TritontuneError

# Seconds between looks at the cluster, and at what is to be started.
_NODES_S = 3.0
_STEP_S = 0.2
# How often each place is tried before a run without any slot ends.
_TRIES = 2
_WAITING, _OPENING, _OPEN, _UP, _OUT = "waiting", "opening", "open", "up", "out"


@dataclass(eq=False)
class _Place:
    """A place for a slot on a node.

    Attributes:
        node: The node.
        request: What its actor asks Ray for.
        state: `waiting` to be opened; `opening`; `open`, but not yet compared with others; `up`; `out` for good.
        not_before: When it may be opened (`time.monotonic`).
        losses: How often it was lost in a row.
        actor: Its actor.
        slot: Its slot, once known.
        host: The host as this slot sees it, once open.
        input_data: The path of the input data on its host; None: they are made up.
        number: The number of the piece of work under way.
        since: When its opening began.
    """

    node: Node
    request: Request
    state: str = _WAITING
    not_before: float = 0.0
    losses: int = 0
    actor: Any = None
    slot: Slot | None = None
    host: Host | None = None
    input_data: str | None = None
    number: int | None = None
    since: float = 0.0


@dataclass
class _Known:
    """What is known of a node: its places, or why it is left out; None: it is being asked."""

    node: Node
    places: list[_Place] | None = None
    asked: float = field(default_factory=time.monotonic)


class Driver:
    """Opens slots on the nodes of a cluster that is connected.

    Args:
        start: What to open.
        send: Sends a message to the process of the run.
    """

    def __init__(self, start: Start, send: Callable[[Any], None]) -> None:
        self._start = start
        self._patience = start.patience
        self._send = send
        self._lock = threading.RLock()
        self._known: dict[str, _Known] = {}
        self._reference = start.reference
        self._hosts: dict[str, Host] = {}
        self._reasons: dict[str, str] = {}
        self._drained: set[str] = set()
        self._lost: set[str] = set()
        self._living: set[str] = set()
        self._ready = False
        self._closed = threading.Event()
        self._actors = ray.remote(SlotActor)
        self._probe = ray.remote(make_probe())
        self._links: dict[str, HostLink] = {}
        self._sending = threading.Lock()
        self._source: Source | None = None

    def watch(self) -> None:
        """Find nodes and start what is to be started, until `close`."""
        looked = 0.0
        while not self._closed.is_set():
            if time.monotonic() - looked >= _NODES_S:
                self._look()
                looked = time.monotonic()
            with self._lock:
                self._fill()
                self._settle()
            self._closed.wait(_STEP_S)

    def run(self, order: Run) -> None:
        """Begin a piece of work."""
        with self._lock:
            place = self._place_of(order.slot)
            if place is None or place.number is not None:
                self._send(Done(order.number, lost=f"slot {order.slot} is lost"))
                return
            place.number = order.number
            work = pickle.loads(order.work)  # noqa: S301 (of the run)
            if place.input_data is not None:
                options = work.terms.options.model_copy(update={"input_data": place.input_data})
                work = replace(work, terms=replace(work.terms, options=options))
            place.actor.run.remote(order.number, *in_parts(work))

    def drain(self, host: str) -> None:
        """Give up a host; what it carries out is finished."""
        with self._lock:
            self._drained.add(host)

    def close(self) -> None:
        """End all work, and all actors."""
        self._closed.set()
        with self._lock:
            actors = [place.actor for place in self._places() if place.actor is not None]
            links = list(self._links.values())
        closing = [actor.close.remote() for actor in actors]
        if closing:
            with contextlib.suppress(Exception):
                ray.wait(closing, num_returns=len(closing), timeout=self._patience.close_s)
        for actor in actors:
            _end(actor)
        leaving = [reference for reference in (link.close() for link in links) if reference is not None]
        if leaving:
            with contextlib.suppress(Exception):
                ray.wait(leaving, num_returns=len(leaving), timeout=1.0)
        for link in links:
            link.kill()

    def _places(self) -> list[_Place]:
        return [place for known in self._known.values() for place in known.places or ()]

    def _place_of(self, slot: str) -> _Place | None:
        fitting = (place for place in self._places() if place.state == _UP and place.slot and place.slot.name == slot)
        return next(fitting, None)

    # Nodes

    def _look(self) -> None:
        """Ask nodes that joined, and forget those that are gone."""
        try:
            with self._lock:
                lost = {place.node.id for place in self._places() if place.losses and place.state != _UP}
            nodes = {node.id: node for node in nodes_of(ray.nodes(), lost)}
        except Exception:  # noqa: BLE001 (the head is away; the actors may live on)
            return
        with self._lock:
            self._living = set(nodes)
            for gone in set(self._known) - set(nodes):
                if all(place.state in {_WAITING, _OUT} for place in self._known[gone].places or ()):
                    del self._known[gone]
                    self._links.pop(gone, None)
            new = [node for node in nodes.values() if node.id not in self._known]
            for node in new:
                self._known[node.id] = _Known(node)
        for node in new:
            threading.Thread(target=self._ask, args=(node,), daemon=True).start()
        with self._lock:
            if not self._known:
                self._reasons[""] = "no node has GPUs or CPUs"

    def _ask(self, node: Node) -> None:
        """Find out what a node offers."""
        offer = self._offer(node)
        with self._lock:
            known = self._known.get(node.id)
            if known is None:
                return
            known.places = [_Place(node, request) for request in offer.requests]
            if not known.places:
                self._leave_out(node, offer.reason)

    def _offer(self, node: Node) -> Offer:
        strategy = NodeAffinitySchedulingStrategy(node.id, soft=False)
        probe = self._probe.options(num_cpus=0, max_retries=0, scheduling_strategy=strategy)
        try:
            versions = ray.get(probe.remote(DISTRIBUTION), timeout=self._patience.probe_s)
        except Exception as error:  # noqa: BLE001 (any of Ray's)
            return Offer(reason=reason_of(error, silent_s=self._patience.probe_s))
        if reason := why_unsuitable(*versions):
            return Offer(reason=reason)
        job, link = self._start.recipe.job, HostLink(node, self._patience.probe_s)
        try:
            parts = link.parts(job)
        except TritontuneError as error:
            return Offer(reason=str(error))
        except Exception as error:  # noqa: BLE001 (any of Ray's)
            return Offer(reason=reason_of(error, silent_s=self._patience.probe_s))
        with self._lock:
            self._links[node.id] = link
        return offer_of(node, job, parts)

    def _leave_out(self, node: Node, reason: str) -> None:
        """Use none of the places of a node."""
        known = self._known.get(node.id)
        for place in (known and known.places) or ():
            if place.state in {_WAITING, _OPEN}:
                place.state = _OUT
        if self._reasons.get(node.name) != reason:
            self._reasons[node.name] = reason
            self._send(Changed(HostChange(node.name, "left_out", reason)))

    # Places

    def _fill(self) -> None:
        """Open as many places as are wanted."""
        most = self._start.most_slots
        places = self._places()
        used = sum(place.state in {_OPENING, _OPEN, _UP} for place in places)
        for place in sorted(places, key=lambda each: (each.losses, each.node.name)):
            if most is not None and used >= most:
                break
            if place.node.id not in self._living or place.node.name in self._drained:
                continue
            if place.state != _WAITING or place.not_before > time.monotonic():
                continue
            place.state, place.since = _OPENING, time.monotonic()
            used += 1
            threading.Thread(target=self._serve, args=(place,), daemon=True).start()

    def _settle(self) -> None:
        """Choose the reference host, and say whether the run may begin."""
        places = self._places()
        opened = [place for place in places if place.state == _OPEN]
        opening = [place for place in places if place.state == _OPENING]
        asked = [known for known in self._known.values() if known.places is None]
        if opened and self._reference is None:
            first = min(place.since for place in opened)
            if (opening or asked) and time.monotonic() - first < self._patience.settle_s:
                return
            hosts: dict[str, list[_Place]] = {}
            for place in sorted(opened, key=lambda each: each.node.name):
                hosts.setdefault(place.node.id, []).append(place)
            sizes = [(_facts(each[0]), len(self._known[node].places or ())) for node, each in hosts.items()]
            self._reference = reference_of(sizes)
        if self._reference is not None:
            for place in sorted(opened, key=lambda each: _facts(each) != self._reference):
                self._admit(place, self._reference)
        self._report(waiting=bool(opening or asked))

    def _report(self, *, waiting: bool) -> None:
        """Say that the run may begin, or that it cannot."""
        if self._ready:
            return
        if any(place.state == _UP for place in self._places()):
            self._ready = True
            self._send(Ready())
        elif (
            not waiting
            and self._reasons
            and not any(place.state == _WAITING and place.losses < _TRIES for place in self._places())
        ):
            reasons = [f"{name}: {reason}" if name else reason for name, reason in self._reasons.items()]
            self._send(Failed(f"no host of the Ray cluster can be used: {'; '.join(reasons)}"))
            self._ready = True

    def _admit(self, place: _Place, reference: HostFacts) -> None:
        """Use a place that is open, if its host is like the reference."""
        admission = admit(_facts(place), reference, mixed=self._start.mixed)
        if admission.reason or place.host is None or place.slot is None:
            self._leave_out(place.node, admission.reason)
            return
        name = place.node.name
        before = self._hosts.get(name)
        slots = tuple(slot for slot in (before.slots if before else ()) if slot.name != place.slot.name)
        host = replace(place.host, name=name, slots=(*slots, place.slot), host_class=admission.host_class)
        self._hosts[name] = host
        place.state, place.losses = _UP, 0
        self._send(Joined(host, place.slot))
        if before is None:
            names = tuple(each.request.slot.name for each in self._known[place.node.id].places or ())
            change = HostChange(name, "admitted", "", host.host_class, names, f"{host.machine}, {host.description}")
            self._send(Changed(change))
        elif name in self._lost:
            self._lost.discard(name)
            self._send(Changed(HostChange(name, "back")))

    def _serve(self, place: _Place) -> None:
        """Open a place and pass on what its actor tells, until it is lost, left out or given up."""
        reason, for_good = "", False
        try:
            reason, for_good = self._listen(place, self._begin(place))
        except TritontuneError as error:
            reason, for_good = str(error), True
            with self._lock:
                self._leave_out(place.node, reason)
        except Exception as error:  # noqa: BLE001 (any of Ray's)
            silent_s = self._patience.place_s if place.slot is None else self._patience.silence_s
            reason = reason_of(error, silent_s=silent_s)
            if place.slot is None and isinstance(error, exceptions.GetTimeoutError):
                reason = f"Ray did not start an actor on it within {silent_s:.0f} s ({place.request})"
        actor = place.actor
        self._give_up(place, reason, for_good=for_good)
        if actor is not None and not self._closed.is_set():
            _end(actor)

    def _begin(self, place: _Place) -> Any:
        """Start the actor of a place, and let it open its slot."""
        options: dict[str, Any] = {
            **place.request.options,
            "max_restarts": 0,
            "max_task_retries": 0,
            "max_concurrency": 100,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(place.node.id, soft=False),
        }
        place.slot = None
        place.actor = actor = self._actors.options(**options).remote(2 * self._patience.silence_s)
        devices = ray.get(actor.devices.remote(), timeout=self._patience.place_s)
        place.slot = slot = place.request.slot_with(devices)
        link = self._links[place.node.id]
        if self._start.input_data is not None:
            place.input_data = link.input_data(self._start.input_data)
        repository = link.repository(
            self._files, self._start.recipe.job.repository_on_hosts, lambda text: self._send(Note(text))
        )
        place.since = time.monotonic()
        actor.open.remote(*in_parts((replace(self._start.recipe, repository=repository), slot)))
        return actor

    def _files(self) -> Source:
        """The files of the run's repository, hashed when a host needs them first."""
        with self._sending:
            if self._source is None:
                repository = ModelRepository.open(self._start.recipe.repository)
                self._source = Source.of(repository, lambda text: self._send(Note(text)))
            return self._source

    def _listen(self, place: _Place, actor: Any) -> tuple[str, bool]:
        """Pass on what an actor tells.

        Returns:
            Why the place is given up, and whether this is for good.
        """
        after = 0
        while not self._closed.is_set():
            for number, kind, contents in ray.get(actor.poll.remote(after), timeout=self._patience.silence_s):
                after = number
                if (ended := self._heard(place, kind, contents)) is not None:
                    return ended
            with self._lock:
                if place.state == _OUT or (place.node.name in self._drained and place.number is None):
                    return "", True
                if place.state == _OPENING and time.monotonic() - place.since > self._patience.open_s:
                    return f"its slot did not open within {self._patience.open_s:.0f} s", False
        return "the run ends", True

    def _heard(self, place: _Place, kind: str, contents: Any) -> tuple[str, bool] | None:
        """Pass on one thing that an actor told; returns why the place is given up, if it is."""
        if kind == "note":
            self._send(Note(f"host {place.node.name}: {contents}"))
        elif kind == "opened":
            with self._lock:
                place.host, place.state = pickle.loads(contents), _OPEN  # noqa: S301 (our own actor)
        elif kind == "refused":
            lost, words = contents
            if not lost:
                with self._lock:
                    place.state = _OUT
                    self._leave_out(place.node, words)
            return words, not lost
        elif kind == "broken":
            return contents[1], False
        elif kind in {"began", "measured"}:
            self._send(Progress(contents[0], kind == "began", contents[1]))
        else:
            number, result, files = contents
            with self._lock:
                place.number = None
            self._send(Done(number, files=files, **{"outcome" if kind == "done" else "error": result}))
        return None

    def _give_up(self, place: _Place, reason: str, *, for_good: bool) -> None:
        if place.slot is not None:
            reason = reason.removeprefix(f"{place.slot.name}: ")
        with self._lock:
            was_up, number, name = place.state == _UP, place.number, place.node.name
            place.actor, place.number = None, None
            if place.state != _OUT:
                place.state = _OUT if for_good else _WAITING
            place.losses += 1
            pause = min(self._patience.pause_s * 2 ** (place.losses - 1), self._patience.longest_pause_s)
            place.not_before = time.monotonic() + pause
            if was_up and place.slot is not None:
                self._send(Lost(place.slot.name))
            if number is not None:
                self._send(
                    Done(number, lost=f"{place.request.slot.name if place.slot is None else place.slot.name}: {reason}")
                )
            if for_good or self._closed.is_set():
                return
            self._reasons[name] = reason
            if was_up and not any(each.state == _UP and each.node.name == name for each in self._places()):
                self._lost.add(name)
                self._send(Changed(HostChange(name, "lost", reason)))
            elif number is None:
                self._send(Note(f"host {name}: {reason}; it is tried again"))


def _facts(place: _Place) -> HostFacts:
    if place.host is None:
        raise ValueError("the place is not open")
    return place.host.facts


def _end(actor: Any) -> None:
    with contextlib.suppress(Exception):
        ray.kill(actor, no_restart=True)


def main(descriptor: int) -> None:
    """The driver's process.

    Args:
        descriptor: The socket to the process of the run.
    """
    connection = Connection(descriptor)
    writing = threading.Lock()

    def send(message: Any) -> None:
        with writing, contextlib.suppress(OSError):  # the run has ended; its end is noticed below
            connection.send(message)

    start: Start = connection.recv()
    try:
        ray.init(
            start.address or "auto",
            namespace=f"tritontune-{socket.gethostname()}-{os.getppid()}",
            log_to_driver=False,
            logging_level="ERROR",
        )
    except Exception as error:  # noqa: BLE001 (any of Ray's)
        send(Failed(" ".join(str(error).split())[:500]))
        sys.exit(1)
    send(Connected())
    driver = Driver(start, send)
    watching = threading.Thread(target=driver.watch, daemon=True)
    watching.start()
    try:
        while not isinstance(order := connection.recv(), Close):
            if isinstance(order, Run):
                driver.run(order)
            elif isinstance(order, Drain):
                driver.drain(order.host)
    except (EOFError, OSError):
        pass  # the run was killed
    driver.close()
    connection.close()
    os._exit(0)  # Ray ends what is left as it sees this end; its own shutdown may wait for a head that is gone
