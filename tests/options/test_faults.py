from __future__ import annotations

from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, FiniteFloat, TypeAdapter, ValidationError

from tuner.options.faults import in_words, most_telling


class Size(Enum):
    SMALL = "small"
    LARGE = "large"


def told(kind: Any, value: object) -> str:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_python(value)
    return in_words(most_telling(caught.value))


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        (int, "x", "'x' is no whole number"),
        (int, 1.5, "1.5 is no whole number"),
        (int, None, "None is no whole number"),
        (float, "x", "'x' is no number"),
        (FiniteFloat, "nan", "'nan' is no number"),
        (bool, "perhaps", "'perhaps' is neither true nor false"),
        (str, 1, "1 is no text"),
        (list[int], 1, "1 is no list"),
        (tuple[int, ...], 1, "1 is no list"),
        (dict[str, int], 1, "1 is no mapping"),
        (Annotated[int, Field(ge=1)], 0, "0 is too little; the least is 1"),
        (Annotated[float, Field(gt=0)], 0.0, "0.0 is too little; it must be more than 0"),
        (Annotated[float, Field(le=0.5)], 1.0, "1.0 is too much; the most is 0.5"),
        (Annotated[int, Field(lt=3)], 3, "3 is too much; it must be less than 3"),
        (Literal["grpc", "http"], "htp", "'htp' is not known; did you mean 'http'?"),
        (Literal[1, 2], 7, "7 is not known; there is 1, 2"),
        (Size, "larg", "'larg' is not known; did you mean 'large'?"),
        (
            Annotated[list[int], Field(min_length=1)],
            [],
            "List should have at least 1 item after validation, not 0 (it is [])",
        ),
    ],
)
def test_what_is_wrong_and_what_would_be_right(kind: Any, value: object, words: str) -> None:
    assert told(kind, value) == words
