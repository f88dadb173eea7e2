"""Machine code of a function, made when it is first called and kept on disk for the next time."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def compiled(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Compile a function; where there is no folder to keep the code in, each process compiles it anew."""

    @functools.wraps(function)
    def call(*arguments: _Arguments.args, **named: _Arguments.kwargs) -> _Result:
        return cast("_Result", machine_code()(*arguments, **named))

    @functools.cache
    def machine_code() -> Callable[..., object]:
        from numba import njit  # noqa: PLC0415 (it takes longer to import than most commands need, which never call it)

        try:
            return cast("Callable[..., object]", njit(cache=True)(function))
        except RuntimeError:  # numba finds neither the file's own folder nor a user's cache writable
            return cast("Callable[..., object]", njit(function))

    return call
