"""What the events of a job tell of its hosts and slots."""

from __future__ import annotations

from dataclasses import dataclass, field

from tuner.client.resources import JobHost, JobSlot
from tuner.cluster.host_changes import HostEvent
from tuner.jobs.events import (
    FINAL,
    Event,
    HostChanged,
    ModelBegan,
    SlotChanged,
    StateChanged,
    TrialBegan,
    TrialDropped,
    TrialEnded,
    WorkRequeued,
)


@dataclass
class _Host:
    """A host so far."""

    state: HostEvent = "admitted"
    reason: str = ""
    host_class: str = ""
    description: str = ""
    slots: dict[str, JobSlot] = field(default_factory=dict)


class HostsView:
    """The hosts of a job, in order of their first event; empty while a job uses one slot only."""

    def __init__(self) -> None:
        self._hosts: dict[str, _Host] = {}

    @property
    def hosts(self) -> tuple[JobHost, ...]:
        """The hosts as the REST API has them."""
        return tuple(
            JobHost(
                name=name,
                state="admitted" if host.state == "back" else host.state,
                reason=host.reason,
                host_class=host.host_class,
                description=host.description,
                slots=tuple(host.slots.values()),
            )
            for name, host in self._hosts.items()
        )

    def fold(self, event: Event) -> None:
        """Add the next event of the job."""
        match event:
            case StateChanged(state="starting"):
                self._hosts.clear()  # another attempt finds its hosts anew
            case StateChanged() if event.state in FINAL:
                self._free()
            case ModelBegan():
                self._free()
            case HostChanged():
                self._changed(event)
            case TrialBegan() if event.slot:
                self._free(event.model, event.trial)
                work = f"trial {event.trial}: {event.candidate}"
                self._put(JobSlot(name=event.slot, model=event.model, trial=event.trial, work=work))
            case SlotChanged():
                self._put(JobSlot(name=event.slot, model=event.model if event.work else None, work=event.work))
            case TrialEnded() | TrialDropped():
                self._free(event.model, event.trial)
            case WorkRequeued():
                self._put(JobSlot(name=event.slot))
            case _:
                pass

    def _changed(self, event: HostChanged) -> None:
        host = self._hosts.setdefault(event.host, _Host())
        host.state, host.reason = event.event, event.reason
        host.description = event.description or host.description
        host.host_class = event.host_class or host.host_class
        if event.event == "lost":
            host.slots = {name: JobSlot(name=name) for name in host.slots}
        for name in event.slots:
            host.slots.setdefault(name, JobSlot(name=name))

    def _put(self, slot: JobSlot) -> None:
        host = self._hosts.setdefault(slot.name.rpartition("/")[0], _Host())
        host.slots[slot.name] = slot

    def _free(self, model: str | None = None, trial: int | None = None) -> None:
        """Free the slot of a trial, or all slots."""
        for host in self._hosts.values():
            for slot in host.slots.values():
                if model is None or (slot.model, slot.trial) == (model, trial):
                    host.slots[slot.name] = JobSlot(name=slot.name)
