"""Machine code of functions, made when one is first called and kept on disk for the next process.

Importing this module imports numba, which takes longer than most commands do: import it where a simulation begins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

from numba import njit

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

# `_nrt`: whether references to arrays are counted; numba's types do not have it.
_INLINED: dict[str, Any] = {"forceinline": True, "_nrt": False}


def compiled(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Compile a function on its first call; without a writable cache folder, each process compiles it anew."""
    try:
        return cast("Callable[_Arguments, _Result]", njit(cache=True)(function))
    except RuntimeError:  # numba finds neither the file's own folder nor a user's cache writable
        return cast("Callable[_Arguments, _Result]", njit(function))


def inlined(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Make a function a part of each compiled function that calls it.

    It must be in the file of its callers: numba compiles a cached function again only when that file changes. It must
    not allocate: it borrows its arguments, since counting references to arrays took four fifths of a simulation's time.
    """
    return cast("Callable[_Arguments, _Result]", njit(**_INLINED)(function))
