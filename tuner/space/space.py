"""The search space of one model: its candidates, and their patches."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from tuner.config.completion import batching_is_completed, described, stated
from tuner.config.config import ModelConfig
from tuner.config.patch import NO_CHANGES, Patch, argument_name, argument_value
from tuner.core.machine import Machine
from tuner.space.bounds import (
    DYNAMIC_BATCHING,
    INSTANCE_COUNT,
    MAX_BATCH_SIZE,
    PREFERRED_BATCH_SIZE,
    Surroundings,
    bound,
)
from tuner.space.candidate import Assignment, Candidate
from tuner.space.compose import as_composed, compose
from tuner.space.conditions import Terms
from tuner.space.knowledge import scheduling
from tuner.space.laws import Law, broken, checked_laws, laws_of, repaired
from tuner.space.parameter import Parameter, is_number
from tuner.space.place import AS_IS, as_setting, edited, edited_file
from tuner.space.spec import OFF, ON, LadderValue, SpaceSpec

_NOTHING = SpaceSpec.model_construct(schema_=1, backend="", parameters={}, laws=[], leave_out=[])


@dataclass(frozen=True)
class SearchSpace:
    """The candidates for one model.

    A sampler sees a flat space: an index of the ladder for every parameter. `assignment` converts indices to the form
    that all equal candidates share, without parameters that have no effect.

    Attributes:
        parameters: The parameters that can vary, in the order of the space file.
        left_out: Why each other parameter cannot vary, by name.
        base: The config that candidates edit: the user's config; without a file, the effective config.
        effective: The effective config, without values that Triton derives from other fields; see `stated`.
        machine: The machine that the server runs on.
        notes: Values that are left out, with the reason, one line each.
        model: The model's name.
        originals: The user's own files, arguments and variables that candidates change, without the model's config.
        spec: The space file, joined with what is known of the backend, as it is stored; see `tuner.space.compose`.
        not_searched: Why parameters of the backend that the space file does not name are not searched, by name.
        laws: What holds in every candidate.
    """

    parameters: tuple[Parameter, ...]
    left_out: Mapping[str, str]
    base: ModelConfig
    effective: ModelConfig
    machine: Machine
    notes: tuple[str, ...] = ()
    model: str = ""
    originals: Patch = NO_CHANGES
    spec: SpaceSpec = _NOTHING
    not_searched: Mapping[str, str] = field(default_factory=dict)
    laws: tuple[Law, ...] = ()

    @classmethod
    def build(
        cls,
        spec: SpaceSpec,
        own: ModelConfig | None,
        effective: ModelConfig,
        machine: Machine,
        *,
        batch_size: int = 1,
        model: str = "",
        originals: Patch | None = None,
        terms: Terms | None = None,
    ) -> SearchSpace:
        """Fit a space file to a model, a machine and a job.

        Args:
            spec: The space file.
            own: The user's config; None: the model has no file.
            effective: The effective config of the baseline.
            machine: The machine that the server runs on.
            batch_size: Inferences in each request.
            model: The model's name.
            originals: The user's own values at places other than the model's config; the config in it is ignored.
            terms: What the job and its server allow; None: `spec` is composed already, as it is stored.

        Raises:
            SpaceError: a parameter names a field that its file does not have, the space is for another backend, or no
                candidate can keep its laws.
        """
        config = stated(effective, own)
        others = (originals or NO_CHANGES).with_config("")
        composed = as_composed(spec)
        if terms is not None or spec.backend:
            composed = compose(spec, config, machine, terms or Terms())
            others = _with_settings(others, composed.spec, (terms or Terms()).arguments)
        bounded = bound(composed.spec, Surroundings(own, config, machine, batch_size, model, others))
        asked = {*spec.parameters, *scheduling().parameters} if spec.backend else {*composed.spec.parameters}
        space = cls(
            bounded.parameters,
            {**composed.left_out, **{name: why for name, why in bounded.left_out.items() if name in asked}},
            own or config,
            config,
            machine,
            (*composed.notes, *bounded.notes),
            model,
            others,
            composed.spec,
            {**composed.not_searched, **{name: why for name, why in bounded.left_out.items() if name not in asked}},
        )
        laws = laws_of(composed.spec.laws, bounded.parameters, machine, bounded.fixed)
        return replace(space, laws=checked_laws(laws, composed.own_laws, space.parameters, space.settled))

    @property
    def baseline(self) -> Assignment:
        """The assignment of the baseline."""
        return self.assignment({})

    def assignment(self, indices: Mapping[str, int]) -> Assignment:
        """The assignment of ladder indices; parameters without an index keep the model's own value."""
        return self.normalize({p.name: p.ladder[indices[p.name]] for p in self.parameters if p.name in indices})

    def switched_on(self, field: str) -> dict[str, LadderValue]:
        """The parameters of a field that can be on, with the value `on`."""
        return {p.name: ON for p in self.parameters if p.field == field and ON in p.ladder}

    def normalize(self, wanted: Assignment) -> Assignment:
        """The normal form: missing parameters get the model's own value, and those without effect are removed.

        Raises:
            ValueError: a value is not in its parameter's ladder.
        """
        chosen = {p.name: p.ladder[p.index(wanted.get(p.name, p.base))] for p in self.parameters}
        settled = self._settled(chosen)
        if not self.laws or not (wrong := self._broken(settled)):
            return settled
        kept = repaired(
            self.laws, wrong, chosen, {p.name: p for p in self.parameters}, lambda c: not self._broken(self._settled(c))
        )
        return self._settled(kept if kept is not None else self._bases)

    def _broken(self, settled: Assignment) -> list[Law]:
        return broken(self.laws, settled, self._bases)

    @cached_property
    def _bases(self) -> dict[str, LadderValue]:
        return {p.name: p.base for p in self.parameters}

    def _settled(self, chosen: Assignment) -> Assignment:
        """A value for every parameter without those that have no effect, and within Triton's rules."""
        while True:
            idle = [p for p in self.parameters if not self._counts(p, chosen)]
            # What has no effect has the model's own value, on which the effect of others may depend.
            reset = {p.name: p.base for p in idle if p.index(chosen[p.name]) != p.index(p.base)}
            if not reset:
                break
            chosen = {**chosen, **reset}
        without = {p.name for p in idle}
        counting = {name: value for name, value in chosen.items() if name not in without}
        return self._within_max_batch_size(counting)

    def settled(self, varying: Sequence[Parameter]) -> Iterator[Assignment]:
        """The assignments in which only some parameters and their conditions vary; they may break laws."""
        needed = {p.name: p for each in varying for p in (each, *self._conditions_of(each))}
        for values in itertools.product(*(p.ladder for p in needed.values())):
            yield self._settled({**self._bases, **dict(zip(needed, values, strict=True))})

    def recall(self, stored: Assignment) -> Assignment:
        """The normal form of a stored trial's assignment, even if another version of tritontune had other ladders.

        A value that is not in its ladder is replaced by the model's own value.
        """
        values = {p.name: stored[p.name] for p in self.parameters if p.name in stored and p.has(stored[p.name])}
        return self.normalize(values)

    def indices(self, assignment: Assignment) -> dict[str, int]:
        """Ladder indices of an assignment, one for every parameter."""
        return {p.name: p.index(assignment.get(p.name, p.base)) for p in self.parameters}

    def candidate(self, assignment: Assignment) -> Candidate:
        """The candidate of an assignment in its normal form, as `assignment` returns it."""
        base = self.base
        off = any(p.field == DYNAMIC_BATCHING and assignment.get(p.name) == OFF for p in self.parameters)
        if off and batching_is_completed(self.effective, base):
            base = described(base, self.effective)
        return Candidate(assignment, edited(base, self._edits(assignment)), self._others(assignment))

    def may_differ(self, assignment: Assignment) -> bool:
        """Whether a candidate may give other answers than the baseline, by the marks of its values."""
        return any(assignment.get(p.name, p.base) in p.marked for p in self.parameters)

    def launches_slowly(self, assignment: Assignment) -> bool:
        """Whether the launch of a candidate may take minutes, as it builds engines."""
        return any(p.slow_launch and not p.is_base(assignment.get(p.name, p.base)) for p in self.parameters)

    def alone(self, assignment: Assignment) -> Iterator[tuple[str, Assignment]]:
        """The values of an assignment to launch alone first, each by its parameter's name, and its candidate."""
        for p in self.parameters:
            value = assignment.get(p.name, p.base)
            if p.try_alone and not p.is_base(value):
                yield p.name, self.normalize({p.name: value})

    def size(self) -> int:
        """Number of index combinations; several may give the same candidate."""
        return math.prod(len(p.ladder) for p in self.parameters)

    def assignments(self, fixed: Assignment | None = None) -> Iterator[Assignment]:
        """Every distinct assignment.

        Args:
            fixed: Values of parameters that do not vary.
        """
        kept = fixed or {}
        names = [p.name for p in self.parameters]
        seen = set()
        for values in itertools.product(*((kept[p.name],) if p.name in kept else p.ladder for p in self.parameters)):
            settled = self._settled(dict(zip(names, values, strict=True)))
            # An assignment that breaks a law is changed to one that is here, too.
            if (key := tuple(settled.items())) not in seen and not (self.laws and self._broken(settled)):
                seen.add(key)
                yield settled

    def _counts(self, parameter: Parameter, chosen: Assignment) -> bool:
        if any(chosen[other] not in values for other, values in parameter.when.items() if other in chosen):
            return False
        if parameter.field == MAX_BATCH_SIZE:
            # Without dynamic batching each request is executed alone.
            return self._batches_dynamically(chosen)
        return all(chosen[parent.name] != OFF for parent in self._parents_of(parameter))

    def _parents_of(self, parameter: Parameter) -> Iterator[Parameter]:
        """The parameters that are messages which hold the field of another one."""
        place = parameter.place
        return (
            p
            for p in self.parameters
            if p.place.path("") == place.path("") and p.place.field and place.field.startswith(p.place.field + ".")
        )

    def _conditions_of(self, parameter: Parameter) -> Iterator[Parameter]:
        """The parameters on which it depends whether another one has an effect."""
        yield from self._parents_of(parameter)
        yield from (p for p in self.parameters if p.name in parameter.when)
        if parameter.field == MAX_BATCH_SIZE:
            yield from (p for p in self.parameters if p.field == DYNAMIC_BATCHING)

    def _batches_dynamically(self, chosen: Assignment) -> bool:
        for p in self.parameters:
            if p.field == DYNAMIC_BATCHING:
                return chosen[p.name] != OFF
        settings = (p for p in self.parameters if p.field.startswith(DYNAMIC_BATCHING + "."))
        return self.effective.holds(DYNAMIC_BATCHING) or any(chosen[p.name] != OFF for p in settings)

    def _within_max_batch_size(self, counting: dict[str, LadderValue]) -> Assignment:
        """Drop preferred sizes above the limit, which Triton refuses, and a list of the limit alone, its default."""
        by_field = {p.field: p for p in self.parameters if p.name in counting}
        preferred = by_field.get(PREFERRED_BATCH_SIZE)
        if preferred is None:
            return counting
        maximum = by_field.get(MAX_BATCH_SIZE)
        limit = counting[maximum.name] if maximum else self.effective.proto.max_batch_size
        value = counting[preferred.name]
        sizes = value if isinstance(value, tuple) else (value,)
        if not is_number(limit) or not all(is_number(size) for size in sizes):
            return counting
        fitting = tuple(size for size in sizes if is_number(size) and size <= limit)
        if fitting == sizes and fitting != (limit,):
            return counting
        without = {name: v for name, v in counting.items() if name != preferred.name}
        return {**counting, preferred.name: OFF} if OFF in preferred.ladder else without

    def _changes(self, assignment: Assignment) -> Iterator[tuple[Parameter, LadderValue]]:
        """The parameters of which an assignment has another value than the model."""
        for p in self.parameters:
            value = assignment.get(p.name, p.base)
            if value not in {p.base, AS_IS} or type(value) is not type(p.base):
                yield p, value

    def _others(self, assignment: Assignment) -> Patch:
        """The files, arguments and variables of an assignment, without the model's config."""
        if not any(p.place.own_field == "" or p.arguments for p in self.parameters):
            return self.originals
        server_args, env = dict(self.originals.server_args), dict(self.originals.env)
        changes: dict[str, dict[str, LadderValue]] = {}
        for p, value in self._changes(assignment):
            for argument in p.arguments.get(str(value), ()):
                server_args[argument_name(argument)] = argument_value(argument)
            if p.place.server_arg:
                server_args[p.place.server_arg] = as_setting(value)
            elif p.place.env:
                env[p.place.env] = as_setting(value)
            elif not p.field:
                changes.setdefault(p.place.path(self.model), {})[p.place.field] = value
        files = dict(self.originals.files)
        for path, values in changes.items():
            files[path] = edited_file(path, files[path], values)
        return Patch(files=files, server_args=server_args, env=env)

    def _edits(self, assignment: Assignment) -> dict[str, LadderValue]:
        edits: dict[str, LadderValue] = {}
        for p, value in self._changes(assignment):
            if not p.field:
                continue
            kinds = self.effective.values("instance_group[*].kind")
            if p.field == INSTANCE_COUNT and kinds and not self.base.holds("instance_group"):
                # A new group gets the kind that Triton has chosen.
                edits["instance_group[*].kind"] = str(kinds[0])
            edits[p.field] = value
        return edits


def _with_settings(originals: Patch, spec: SpaceSpec, given: Sequence[str]) -> Patch:
    """The user's own values, also at the places of parameters that the space file does not name itself.

    Args:
        originals: The values at the places that it names.
        spec: The composed space.
        given: The user's arguments of `tritonserver`.
    """
    own = {argument_name(text): argument_value(text) for text in given}
    needed = [
        argument_name(text)
        for parameter in spec.parameters.values()
        for texts in parameter.arguments.values()
        for text in texts
    ]
    needed += [parameter.server_arg for parameter in spec.parameters.values() if parameter.server_arg]
    arguments = {name: own.get(name) for name in needed}
    return originals.model_copy(update={"server_args": {**arguments, **originals.server_args}})
