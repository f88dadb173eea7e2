"""Laws of a space: what holds in every candidate, and how an assignment that breaks a law is changed to keep it.

Samplers choose each parameter on its own, so `SearchSpace.normalize` changes an assignment that breaks a law. It
prefers to change the parameter that the law names last, and to lower it. Values that are all the model's own break
no law.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tuner.core.errors import SpaceError
from tuner.core.machine import Machine
from tuner.space.candidate import Assignment
from tuner.space.expressions import Expression
from tuner.space.parameter import Parameter, is_number
from tuner.space.spec import OFF, AtMostOne, LadderValue, LawSpec, Requires, names_of

# The most combinations of values to try, to repair an assignment and to see whether laws contradict each other.
_MOST = 20_000


@dataclass(frozen=True)
class Law:
    """A law with what it needs to be decided.

    Attributes:
        spec: The law as it is in the space file.
        names: The parameters in it that vary, in the order of the law.
        holds: Whether it holds for some values.
    """

    spec: LawSpec
    names: tuple[str, ...]
    holds: Callable[[Assignment], bool]


def laws_of(
    specs: Sequence[LawSpec],
    parameters: Sequence[Parameter],
    machine: Machine,
    fixed: Mapping[str, LadderValue] | None = None,
) -> tuple[Law, ...]:
    """The laws about parameters that vary; those whose parameters all have fixed values are left out.

    Args:
        specs: The laws of the space file.
        parameters: The parameters that vary.
        machine: The machine, for `cores` and `gpus`.
        fixed: The values of parameters that do not vary, by name.
    """
    varying = {p.name for p in parameters}
    known = {"cores": machine.cpus, "gpus": len(machine.gpus)}
    numbers = {name: float(number) for name, number in known.items() if number}
    numbers |= {name: float(value) for name, value in (fixed or {}).items() if is_number(value)}
    return tuple(
        Law(spec, names, _decides(spec, numbers))
        for spec in specs
        if (names := tuple(name for name in names_of(spec) if name in varying))
    )


def _decides(spec: LawSpec, fixed: Mapping[str, float]) -> Callable[[Assignment], bool]:
    if isinstance(spec, AtMostOne):
        return lambda chosen: sum(_is_set(chosen.get(name, OFF)) for name in spec.at_most_one) <= 1
    if isinstance(spec, Requires):
        return lambda chosen: all(
            _is_set(chosen.get(other, True))
            for name, others in spec.requires.items()
            if _is_set(chosen.get(name, OFF))
            for other in others
        )
    expression = Expression.parse(spec)

    def holds(chosen: Assignment) -> bool:
        numbers = {name: float(value) for name in expression.names if is_number(value := chosen.get(name, OFF))}
        return expression.holds({**fixed, **numbers})

    return holds


def _is_set(value: LadderValue) -> bool:
    return value is not False and value != OFF


def broken(laws: Sequence[Law], settled: Assignment, bases: Mapping[str, LadderValue]) -> list[Law]:
    """The laws that an assignment breaks.

    Args:
        laws: The laws.
        settled: The assignment, without parameters that have no effect.
        bases: The model's own values by parameter; a law about values that are all the model's own is not broken.
    """
    return [
        law
        for law in laws
        if not law.holds(settled)
        and any(name in settled and not _same(settled[name], bases[name]) for name in law.names)
    ]


def repaired(
    laws: Sequence[Law],
    wrong: Sequence[Law],
    chosen: Assignment,
    parameters: Mapping[str, Parameter],
    keeps: Callable[[Assignment], bool],
) -> Assignment | None:
    """An assignment near `chosen` that keeps all laws; None: there is none near it.

    Args:
        laws: All laws.
        wrong: The laws that `chosen` breaks.
        chosen: A value for every parameter.
        parameters: The parameters by name.
        keeps: Whether an assignment keeps all laws.
    """
    names = _connected(laws, wrong)
    tried = 0
    for numbers_only, count in itertools.product((True, False), range(1, len(names) + 1)):
        changed = names[-count:]
        choices = [_preferred(parameters[name], chosen[name], numbers_only=numbers_only) for name in changed]
        # Earlier names first keep their values, as the last one changes fastest.
        for values in itertools.product(*choices):
            if (tried := tried + 1) > _MOST:
                return None
            attempt = {**chosen, **dict(zip(changed, values, strict=True))}
            if keeps(attempt):
                return attempt
    return None


def _connected(laws: Sequence[Law], wrong: Sequence[Law]) -> list[str]:
    """The names of some laws, and of the laws that share names with these."""
    names = dict.fromkeys(name for law in wrong for name in law.names)
    while more := [name for law in laws if names.keys() & set(law.names) for name in law.names if name not in names]:
        names = dict.fromkeys([*more, *names])  # what only other laws name is changed last
    return list(names)


def _preferred(parameter: Parameter, value: LadderValue, *, numbers_only: bool) -> list[LadderValue]:
    """The values of a parameter in the order in which they replace one: itself, smaller ones, larger ones, others.

    At first only numbers are replaced, by numbers: `off` is the backend's default, which may be far from them.
    """
    others = [rung for rung in parameter.ladder if not _same(rung, value)]
    numbers = sorted(rung for rung in others if is_number(rung))
    words = [rung for rung in others if not is_number(rung) and rung != OFF]
    off = [rung for rung in others if rung == OFF]
    if not is_number(value):
        return [value] if numbers_only else [value, *words, *numbers, *off]
    lower = [rung for rung in reversed(numbers) if rung < value]
    found: list[LadderValue] = [value, *lower, *(rung for rung in numbers if rung > value)]
    return found if numbers_only else [*found, *off, *words]


def checked_laws(
    laws: Sequence[Law],
    asked: Collection[str],
    parameters: Sequence[Parameter],
    settled: Callable[[Sequence[Parameter]], Iterator[Assignment]],
    source: str = "search space",
) -> tuple[Law, ...]:
    """The laws that values other than the model's own can keep.

    A law of the backend that they cannot keep is dropped: it is about another use of the backend.

    Args:
        laws: The laws.
        asked: The laws of the space file, as text.
        parameters: The parameters that vary.
        settled: The assignments in which only some parameters vary.
        source: The name of the space file, for messages.

    Raises:
        SpaceError: laws of the space file cannot be kept; the message names them.
    """
    by_name = {p.name: p for p in parameters}
    kept = list(laws)
    for count in range(1, min(3, len(laws)) + 1):
        for together in itertools.combinations(laws, count):
            if not all(law in kept for law in together) or _can_be_kept(together, by_name, settled):
                continue
            ours = [law for law in together if str(law.spec) not in asked]
            if not ours:
                what = " and ".join(repr(str(law.spec)) for law in together)
                which = "they contradict each other: " if count > 1 else ""
                raise SpaceError(f"{source}: laws: {which}no candidate but the baseline keeps {what}")
            kept.remove(ours[-1])
    return tuple(kept)


def _can_be_kept(
    laws: Sequence[Law],
    parameters: Mapping[str, Parameter],
    settled: Callable[[Sequence[Parameter]], Iterator[Assignment]],
) -> bool:
    names = list(dict.fromkeys(name for law in laws for name in law.names))
    bases = {name: parameters[name].base for name in names}
    tried = itertools.islice(settled([parameters[name] for name in names]), _MOST)
    return any(
        all(law.holds(values) for law in laws)
        and any(name in values and not _same(values[name], base) for name, base in bases.items())
        for values in tried
    )


def _same(one: LadderValue, other: LadderValue) -> bool:
    return type(one) is type(other) and one == other
