"""Machine code of a function, made when it is first called and kept on disk for the next time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from numba import njit

_Function = TypeVar("_Function", bound=Callable[..., object])


def compiled(function: _Function) -> _Function:
    """Compile a function; where there is no folder to keep the code in, each process compiles it anew."""
    try:
        return cast("_Function", njit(cache=True)(function))
    except RuntimeError:  # numba finds neither the file's own folder nor a user's cache writable
        return cast("_Function", njit(function))
