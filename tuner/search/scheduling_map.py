"""Maps assignments to scheduling, which the simulator models, and settings of all other parameters."""

from __future__ import annotations

from dataclasses import replace

from tuner.config.instances import instance_count
from tuner.search.twin.scheduling import FIELDS, QUEUE_DELAY, Scheduling
from tuner.space.bounds import DYNAMIC_BATCHING, INSTANCE_COUNT, MAX_BATCH_SIZE, PREFERRED_BATCH_SIZE
from tuner.space.candidate import Assignment
from tuner.space.parameter import is_number
from tuner.space.space import SearchSpace
from tuner.space.spec import OFF, LadderValue


class SchedulingMap:
    """The map of one search space.

    Attributes:
        unknown: The parameters that the simulator does not model.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        config = space.effective.proto
        self._own = Scheduling.of(config)
        # A count applies to each instance group, and Triton multiplies it by the GPUs of the group.
        per_count = [group.count for group in config.instance_group if group.count] or [1]
        self._groups = max(1, instance_count(config) // max(per_count))
        self._by_field = {p.field: p for p in space.parameters}
        self.unknown = tuple(p for p in space.parameters if p.field not in FIELDS)
        self._settings: dict[tuple[LadderValue, ...], int] = {}

    def of(self, assignment: Assignment) -> tuple[Scheduling, int]:
        """The scheduling of an assignment, and the number of its setting.

        A setting is one combination of values of the parameters that are not modelled; the baseline's has number 0.
        """
        return self._scheduling(assignment), self._setting(assignment)

    def _setting(self, assignment: Assignment) -> int:
        if not self._settings:
            self._settings[self._unknown_of(self._space.baseline)] = 0
        return self._settings.setdefault(self._unknown_of(assignment), len(self._settings))

    def _unknown_of(self, assignment: Assignment) -> tuple[LadderValue, ...]:
        return tuple(assignment.get(p.name, p.base) for p in self.unknown)

    def _scheduling(self, assignment: Assignment) -> Scheduling:
        scheduling = self._own
        if is_number(count := self._value(INSTANCE_COUNT, assignment) or OFF):
            scheduling = replace(scheduling, instances=int(count) * self._groups)
        if is_number(size := self._value(MAX_BATCH_SIZE, assignment) or OFF):
            scheduling = replace(scheduling, max_batch_size=int(size))
        preferred = self._value(PREFERRED_BATCH_SIZE, assignment)
        delay_us = self._value(QUEUE_DELAY, assignment)
        sizes = preferred if isinstance(preferred, tuple) else (preferred or OFF,)
        batching = self._value(DYNAMIC_BATCHING, assignment)
        if batching is None:
            batching = scheduling.dynamic_batching or any(v not in {None, OFF} for v in (preferred, delay_us))
        return replace(
            scheduling,
            dynamic_batching=batching not in {OFF, False} and scheduling.max_batch_size > 0,
            preferred=scheduling.preferred if preferred is None else tuple(int(s) for s in sizes if is_number(s)),
            delay_us=scheduling.delay_us if delay_us is None else int(delay_us) if is_number(delay_us) else 0,
        )

    def _value(self, field: str, assignment: Assignment) -> LadderValue | None:
        """The value of a field in an assignment, else in the baseline; None when the field is not varied."""
        parameter = self._by_field.get(field)
        return None if parameter is None else assignment.get(parameter.name, parameter.base)
