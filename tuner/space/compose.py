"""Joins a space file with what is known of the model's backend, for a model, a machine and a job.

The result is a plain space: its parameters have fields and ladders of their own, so that a stored study gives the same
space with another version of tritontune.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tuner.config.config import ModelConfig
from tuner.core.errors import ConfigError, SpaceError
from tuner.core.machine import Machine
from tuner.space.conditions import Conditions, Terms
from tuner.space.expressions import MACHINE_NAMES, Expression
from tuner.space.knowledge import (
    AUTO,
    COMMON,
    Backend,
    KnownParameter,
    backend_of,
    joined,
    knowledge,
    scheduling,
)
from tuner.space.parameter import is_number
from tuner.space.place import Place, value_at
from tuner.space.spec import (
    OFF,
    ON,
    AtMostOne,
    LadderValue,
    LawSpec,
    ParameterSpec,
    Requires,
    Scalar,
    SpaceSpec,
)

MOST_BY_DEFAULT = 5
"""How many parameters of a backend are searched unless a space file names more, as each makes the search longer."""

ON_REQUEST = "on request"
"""How the reason begins why a parameter is not searched that a space file can name."""

_ACCELERATOR = re.compile(r"execution_accelerator\[[^\]]*\]$")
_ALLOW = "it may change what the model answers; allow it with --allow-numerics"


@dataclass(frozen=True)
class Composed:
    """A plain space, and what is not in it.

    Attributes:
        spec: The space.
        left_out: Why parameters that the space file names cannot vary, by name.
        not_searched: Why the backend's other parameters are not searched, by name.
        notes: Values that are left out, with the reason, one line each.
        own_laws: The laws of the space file, as text.
    """

    spec: SpaceSpec
    left_out: Mapping[str, str]
    not_searched: Mapping[str, str]
    notes: tuple[str, ...]
    own_laws: tuple[str, ...]


def compose(spec: SpaceSpec, effective: ModelConfig, machine: Machine, terms: Terms) -> Composed:
    """Join a space file with what is known of the model's backend.

    Args:
        spec: The space file.
        effective: The effective config of the model.
        machine: The machine of the server.
        terms: What the job and its server allow.

    Raises:
        SpaceError: the space file is for another backend.
    """
    backend = backend_of(effective)
    if spec.backend not in {"", AUTO, backend}:
        has = effective.proto.backend or effective.proto.platform
        raise SpaceError(f"search space: backend: {spec.backend!r} is not the model's backend, which is {has!r}")
    return _Composition(spec, backend, effective, machine, terms).composed()


def as_composed(spec: SpaceSpec) -> Composed:
    """A space that was composed before."""
    return Composed(spec, {}, {}, (), tuple(map(str, spec.laws)))


class _Composition:
    def __init__(self, spec: SpaceSpec, backend: str, effective: ModelConfig, machine: Machine, terms: Terms) -> None:
        self._spec = spec
        self._effective = effective
        self._machine = machine
        self._terms = terms
        self._backend = backend
        self._conditions = Conditions(effective, machine, terms)
        self._files: tuple[Backend, ...] = (knowledge(backend), knowledge(COMMON)) if backend else (knowledge(COMMON),)
        self._known: dict[str, KnownParameter] = {}
        for file in reversed(self._files):
            self._known.update(file.parameters)
        self._chosen: dict[str, ParameterSpec] = {}
        self._left_out: dict[str, str] = {}
        self._not_searched: dict[str, str] = {}
        self._notes: list[str] = []

    def composed(self) -> Composed:
        for name, parameter in self._wanted().items():
            if reason := self._refusal(name, parameter):
                self._left_out[name] = reason
            else:
                self._take(name, parameter)
        if self._spec.backend:
            self._add_defaults()
        self._drop_without_accelerator()
        self._drop_dangling()
        own = [made for law in self._spec.laws if (made := self._plain_law(law)) is not None]
        known = [
            made
            for file in (self._files if self._spec.backend else ())
            for law in file.laws
            if (made := self._plain_law(law)) is not None
        ]
        # Validated before, or made from valid parts.
        plain = SpaceSpec.model_construct(
            schema_=1, backend="", parameters=self._chosen, laws=[*own, *known], leave_out=[]
        )
        return Composed(plain, self._left_out, self._not_searched, tuple(self._notes), tuple(map(str, own)))

    def _wanted(self) -> dict[str, ParameterSpec]:
        """The parameters of scheduling, if the file includes a backend, and those that the file names."""
        wanted: dict[str, ParameterSpec] = {}
        if self._spec.backend:
            own = self._files[0].parameters if self._backend else {}
            for name, parameter in scheduling().parameters.items():
                wanted[name] = joined(parameter, own[name]) if name in own else parameter
        for name, parameter in self._spec.parameters.items():
            known = wanted.get(name) or self._known.get(name)
            if known is not None and self._spec.backend:
                wanted[name] = joined(known, parameter)
            elif parameter.ladder is not None:
                wanted[name] = parameter
            else:
                self._left_out[name] = f"the backend {self._backend or 'of the model'} has no such parameter"
        for name in self._spec.leave_out:
            if wanted.pop(name, None) is not None:
                self._not_searched[name] = "the space file leaves it out"
        return wanted

    def _plain_law(self, law: LawSpec) -> LawSpec | None:
        """A law about chosen parameters, with the model's own numbers for others; None: it always holds."""
        if isinstance(law, AtMostOne):
            names = [name for name in law.at_most_one if name in self._chosen]
            return AtMostOne(at_most_one=names) if len(names) > 1 else None
        if isinstance(law, Requires):
            pairs = {
                name: kept
                for name, others in law.requires.items()
                if name in self._chosen and (kept := [other for other in others if other in self._chosen])
            }
            return Requires(requires=pairs) if pairs else None
        expression = Expression.parse(law)
        numbers: dict[str, float] = {}
        for name in expression.names:
            if name in self._chosen or name in MACHINE_NAMES:
                continue
            own = self._own(name)
            if own is None or not is_number(own):
                return None
            numbers[name] = own
        return expression.with_numbers(numbers) if self._chosen.keys() & set(expression.names) else None

    def _add_defaults(self) -> None:
        """Add the backend's parameters that are searched by default, and say why the others are not."""
        added = 0
        for name, parameter in {k: v for file in self._files for k, v in file.parameters.items()}.items():
            if name in self._chosen or name in self._left_out:
                continue
            reason = self._refusal(name, parameter)
            if not reason and name in self._spec.leave_out:
                reason = "the space file leaves it out"
            if not reason and parameter.search == "on_request":
                has_values = parameter.ladder or parameter.each_node
                reason = f"{ON_REQUEST}: name it in a space file{'' if has_values else ', with a ladder'}"
            if not reason and added >= MOST_BY_DEFAULT:
                reason = f"{ON_REQUEST}: at most {MOST_BY_DEFAULT} parameters of a backend are searched by default"
            if reason:
                self._not_searched[name] = reason
            else:
                self._take(name, parameter)
                added += 1

    def _take(self, name: str, parameter: ParameterSpec) -> None:
        """Add a parameter, with its ladder cut for the machine and the job."""
        made = self._on_machine(parameter)
        if not self._terms.allow_numerics:
            gone = [value for value in made.values if made.may_differ(value)]
            if gone:
                kept = [value for value in made.ladder or [] if not made.may_differ(_plain(value))]
                made = made.model_copy(update={"ladder": kept})
                if name in self._spec.parameters:
                    self._notes.append(f"{name}: {', '.join(map(str, gone))} left out: {_ALLOW}")
        self._chosen[name] = made

    def _on_machine(self, parameter: ParameterSpec) -> ParameterSpec:
        """A plain parameter with its ladder for the machine."""
        values: dict[str, Any] = {name: getattr(parameter, name) for name in ParameterSpec.model_fields}
        if isinstance(parameter, KnownParameter) and parameter.each_node and parameter.ladder is None:
            given = self._conditions.policies
            nodes = self._machine.nodes if len(self._machine.nodes) > 1 else ()
            policies = {f"node{node.number}": node.number for node in nodes}
            values["ladder"] = [OFF, *dict.fromkeys([*given, *policies])]
            values["arguments"] = {
                name: [f"--host-policy={name},numa-node={number}"]
                for name, number in policies.items()
                if name not in given
            }
        limit = {"cores": self._machine.cpus, "gpus": len(self._machine.gpus) or None, None: None}[parameter.upto]
        if limit is not None:
            numbers = [value for value in parameter.ladder or [] if not isinstance(value, list) and is_number(value)]
            words = [value for value in parameter.ladder or [] if value not in numbers or isinstance(value, bool)]
            values["ladder"] = [*words, *(value for value in numbers if value < limit), limit]
        return ParameterSpec.model_construct(**{**values, "upto": None})

    def _refusal(self, name: str, parameter: ParameterSpec) -> str:
        """Why a parameter cannot vary; empty: it can."""
        place = Place.of(name, parameter)
        if reason := self._conditions.inert(place, self._files):
            return f"it has no effect: {reason}"
        known = parameter if isinstance(parameter, KnownParameter) else None
        if known and (reason := self._conditions.unmet(known.needs)):
            return reason
        if (place.server_arg or place.env) and self._terms.is_remote:
            return "the server at --url keeps its arguments"
        if known and known.relaunch_only and not self._terms.relaunches:
            return "it needs a server for each candidate (--isolation relaunch)"
        if known and not self._terms.allow_numerics:
            values = known.values
            if values and all(value == OFF or known.may_differ(value) for value in values):
                return _ALLOW
        return ""

    def _drop_dangling(self) -> None:
        """Leave out parameters whose condition is a parameter that does not vary, unless the model meets it."""
        while dangling := [
            (name, other) for name, p in self._chosen.items() for other in p.when if self._is_fixed(other)
        ]:
            for name, other in dangling:
                if name not in self._chosen:
                    continue
                when = dict(self._chosen[name].when)
                values = when.pop(other)
                if self._has(other, values):
                    self._chosen[name] = self._chosen[name].model_copy(update={"when": when})
                else:
                    needed = f"it has an effect only with {other} {' or '.join(map(str, values))}"
                    self._drop(name, f"{needed}, and {other} does not vary", other)

    def _drop_without_accelerator(self) -> None:
        """Leave out fields of an accelerator that does not vary, as they would add it."""
        for name in [name for name in self._chosen if name in self._known]:
            place = Place.of(name, self._chosen[name])
            for above, parameter in self._known.items():
                parent = Place.of(above, parameter).own_field
                within = _ACCELERATOR.search(parent) and place.own_field.startswith(parent + ".")
                if within and self._is_fixed(above) and not self._effective.holds(parent):
                    self._drop(name, f"{above} does not vary", above)

    def _is_fixed(self, name: str) -> bool:
        return name not in self._chosen

    def _drop(self, name: str, reason: str, other: str) -> None:
        """Remove a parameter, as another one does not vary."""
        del self._chosen[name]
        why = self._left_out.get(other) or self._not_searched.get(other)
        reasons = self._left_out if name in self._spec.parameters else self._not_searched
        reasons[name] = f"{reason}: {why}" if why else reason

    def _has(self, name: str, values: list[Scalar]) -> bool:
        """Whether the model's own value of a parameter of the backend is one of some values."""
        own = self._own(name)
        return own is not None and any(type(own) is type(value) and own == value for value in values)

    def _own(self, name: str) -> LadderValue | None:
        """The model's own value of a parameter; None: it is unknown."""
        known = scheduling().parameters.get(name) or self._known.get(name)
        own = self._spec.parameters.get(name)
        known = joined(known, own) if known and own else known or own
        if known is None or not (path := Place.of(name, known).own_field):
            return None
        try:
            return value_at(path, self._effective, may_be_on=ON in (known.ladder or []), has_numbers=True)
        except ConfigError:
            return None


def _plain(value: Scalar | list[int] | list[float] | list[str]) -> Any:
    return tuple(value) if isinstance(value, list) else value
