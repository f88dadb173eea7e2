"""Comparisons of parameters in space files, such as `instance_group.count * intra_op_thread_count <= cores`."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

MACHINE_NAMES = ("cores", "gpus")
"""Numbers of the machine that an expression can name."""

_Numbers = Mapping[str, float]
_Value = Callable[[_Numbers], float]

_COMPARISONS: Mapping[type[ast.cmpop], Callable[[float, float], bool]] = {
    ast.LtE: operator.le,
    ast.Lt: operator.lt,
    ast.GtE: operator.ge,
    ast.Gt: operator.gt,
    ast.Eq: operator.eq,
}
_ARITHMETIC: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
}
_HOW = "write comparisons (<=, <, >=, >, ==) of names and numbers with +, - and *, such as a * b <= cores"


@dataclass(frozen=True)
class Expression:
    """A comparison, or a chain of comparisons, of parameters.

    Attributes:
        text: The text.
        names: The names in it, in order of first appearance.
    """

    text: str
    names: tuple[str, ...]
    _compared: tuple[tuple[_Value, Callable[[float, float], bool], _Value], ...] = field(compare=False, repr=False)

    @classmethod
    def parse(cls, text: str) -> Expression:
        """Parse the text of an expression.

        Raises:
            ValueError: it is not such an expression; the message is one line.
        """
        try:
            body = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise ValueError(f"{text!r} is not an expression; {_HOW}") from None
        if not isinstance(body, ast.Compare):
            raise ValueError(f"{text!r} is not a comparison; {_HOW}")  # noqa: TRY004 (pydantic wants ValueError)
        names: dict[str, None] = {}
        try:
            values = [_value(node, names) for node in (body.left, *body.comparators)]
            operators = [_COMPARISONS[type(kind)] for kind in body.ops]
        except _UnknownNodeError as error:
            raise ValueError(f"{text!r}: {str(error)!r} is not allowed; {_HOW}") from None
        except KeyError:
            raise ValueError(f"{text!r} has another comparison; {_HOW}") from None
        return cls(text, tuple(names), tuple(zip(values, operators, values[1:], strict=False)))

    def with_numbers(self, numbers: _Numbers) -> str:
        """Its text with numbers in place of some names."""
        return (
            self.text
            if not numbers
            else ast.unparse(_Numbered(numbers).visit(ast.parse(self.text.strip(), mode="eval")))
        )

    def holds(self, numbers: _Numbers) -> bool:
        """Whether it is true for some numbers, or a name has no number."""
        if any(name not in numbers for name in self.names):
            return True
        return all(compare(left(numbers), right(numbers)) for left, compare, right in self._compared)


class _Numbered(ast.NodeTransformer):
    def __init__(self, numbers: _Numbers) -> None:
        self._numbers = numbers

    def _visited(self, node: ast.Name | ast.Attribute) -> ast.expr:
        number = self._numbers.get(_name(node))
        return node if number is None else ast.Constant(number)

    visit_Name = visit_Attribute = _visited  # noqa: N815 (the names that `ast` calls)


class _UnknownNodeError(Exception):
    """Something that expressions do not have."""


def _value(node: ast.expr, names: dict[str, None]) -> _Value:
    """A function of the numbers that computes a part of an expression; adds the names in it to `names`."""
    if isinstance(node, ast.Constant) and type(node.value) in {int, float}:
        constant = float(node.value)  # type: ignore[arg-type]  # checked above
        return lambda _: constant
    if isinstance(node, ast.Name | ast.Attribute):
        name = _name(node)
        names.setdefault(name)
        return lambda numbers: numbers[name]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        positive = _value(node.operand, names)
        return lambda numbers: -positive(numbers)
    if isinstance(node, ast.BinOp) and (combine := _ARITHMETIC.get(type(node.op))):
        left, right = _value(node.left, names), _value(node.right, names)
        return lambda numbers: combine(left(numbers), right(numbers))
    raise _UnknownNodeError(ast.unparse(node))


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_name(node.value)}.{node.attr}"
    raise _UnknownNodeError(ast.unparse(node))
