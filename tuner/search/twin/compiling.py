"""Compiles functions to machine code on their first call, and caches it on disk for later processes.

This module imports numba, which takes longer than most commands. So import it only where a simulation begins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

from numba import njit

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

# `_nrt`: whether references to arrays are counted; numba's type stubs lack it.
_INLINED: dict[str, Any] = {"forceinline": True, "_nrt": False}


def compiled(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Compile a function on its first call; without a writable cache folder, each process compiles it anew."""
    try:
        return cast("Callable[_Arguments, _Result]", njit(cache=True)(function))
    except RuntimeError:  # neither the file's folder nor the user's cache folder is writable
        return cast("Callable[_Arguments, _Result]", njit(function))


def inlined(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Make a function a part of each compiled function that calls it.

    It must be in the file of its callers, as numba compiles a cached function again only if that file changes. It must
    not allocate memory, as references to arrays are not counted: counting took four fifths of a simulation's time.
    """
    return cast("Callable[_Arguments, _Result]", njit(**_INLINED)(function))
