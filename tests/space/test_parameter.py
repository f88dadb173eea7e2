from __future__ import annotations

import pytest

from tuner.space.parameter import Parameter, ladder_with
from tuner.space.place import AS_IS, Place
from tuner.space.spec import OFF, LadderValue


def _parameter(*ladder: LadderValue) -> Parameter:
    return Parameter("p", Place("p"), ladder, ladder[0], {})


@pytest.mark.parametrize(
    ("ladder", "base", "expected"),
    [
        ((1, 2, 4), 2, (1, 2, 4)),
        ((1, 2, 4), 3, (1, 2, 3, 4)),
        ((OFF, 2, 4), 1, (OFF, 1, 2, 4)),
        ((1, 2), 9, (1, 2, 9)),
        ((1, 2), OFF, (OFF, 1, 2)),
        ((1, 2), AS_IS, (AS_IS, 1, 2)),
        ((OFF, 4), (4, 8), (OFF, 4, (4, 8))),
        ((True, False), True, (True, False)),
    ],
)
def test_the_models_own_value_joins_the_ladder(
    ladder: tuple[LadderValue, ...], base: LadderValue, expected: tuple[LadderValue, ...]
) -> None:
    assert ladder_with(ladder, base) == expected


def test_true_is_not_one() -> None:
    parameter = _parameter(1, True)
    assert (parameter.index(1), parameter.index(True)) == (0, 1)


def test_a_value_that_is_not_in_the_ladder() -> None:
    with pytest.raises(ValueError, match="p: 3 is not one of off, 1, 2"):
        _parameter(OFF, 1, 2).index(3)


@pytest.mark.parametrize(("value", "expected"), [(1, 2), (2, 2), (5, 4), (100, 8)])
def test_the_nearest_number_is_the_largest_that_is_no_larger(value: int, expected: int) -> None:
    assert _parameter(OFF, 2, 4, 8).nearest(value) == expected


def test_no_number_is_near_words() -> None:
    assert _parameter(OFF, "on").nearest(3) is None
