from __future__ import annotations

from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, FiniteFloat, TypeAdapter, ValidationError

from tuner.options.validation_errors import describe, first_fault


class Size(Enum):
    SMALL = "small"
    LARGE = "large"


def told(kind: Any, value: object) -> str:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_python(value)
    return describe(first_fault(caught.value))


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        (int, "x", "must be a whole number, got 'x'"),
        (int, 1.5, "must be a whole number, got 1.5"),
        (int, None, "must be a whole number, got None"),
        (float, "x", "must be a number, got 'x'"),
        (FiniteFloat, "nan", "must be a number, got 'nan'"),
        (bool, "perhaps", "must be true or false, got 'perhaps'"),
        (str, 1, "must be text, got 1"),
        (list[int], 1, "must be a list, got 1"),
        (tuple[int, ...], 1, "must be a list, got 1"),
        (dict[str, int], 1, "must be a mapping, got 1"),
        (Annotated[int, Field(ge=1)], 0, "must be >= 1, got 0"),
        (Annotated[float, Field(gt=0)], 0.0, "must be > 0, got 0.0"),
        (Annotated[float, Field(le=0.5)], 1.0, "must be <= 0.5, got 1.0"),
        (Annotated[int, Field(lt=3)], 3, "must be < 3, got 3"),
        (Annotated[int, Field(ge=0)], "-1", "must be >= 0, got -1"),
        (Literal["grpc", "http"], "htp", "must be 'grpc' or 'http', got 'htp'"),
        (Literal[1, 2], 7, "must be 1 or 2, got 7"),
        (Size, "larg", "must be 'small' or 'large', got 'larg'"),
        (Annotated[list[int], Field(min_length=1)], [], "must not be empty, got []"),
        (Annotated[str, Field(pattern="^a{2}$")], "b", "String should match pattern '^a{2}$', got 'b'"),
    ],
)
def test_what_is_wrong_and_what_would_be_right(kind: Any, value: object, words: str) -> None:
    assert told(kind, value) == words
