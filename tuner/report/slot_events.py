"""The busy slots of a job, by its events."""

from __future__ import annotations

from tuner.jobs.event_words import EventWords
from tuner.jobs.events import (
    FINAL,
    Event,
    HostChanged,
    PointMeasured,
    SlotChanged,
    StateChanged,
    TrialBegan,
    TrialDropped,
    TrialEnded,
    WorkRequeued,
)
from tuner.report.slot_lines import SlotLines


def show_event(slots: SlotLines, event: Event, words: EventWords) -> None:
    """Bring the lines of slots up to date with the next event of a job.

    Args:
        slots: The lines.
        event: The event.
        words: Has seen all events before.
    """
    match event:
        case StateChanged() if event.state in {*FINAL, "starting"}:
            slots.clear()
        case TrialBegan() if event.slot:
            slots.began_trial(event.slot, event.trial, event.candidate)
        case PointMeasured():
            slots.tell(event.trial, words.point(event.model, event.point))
        case TrialEnded() | TrialDropped():
            slots.end_trial(event.trial)
        case SlotChanged() if event.work:
            slots.began(event.slot, event.work)
        case SlotChanged() | WorkRequeued():
            slots.end(event.slot)
        case HostChanged(event="lost"):
            slots.end_host(event.host)
        case _:
            pass
