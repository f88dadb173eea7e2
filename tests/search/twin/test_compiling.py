from __future__ import annotations

import pytest
from numba.core import caching

from tuner.search.twin.compiling import compiled


def double(value: float) -> float:
    return 2 * value


def test_a_compiled_function_does_what_it_did() -> None:
    assert compiled(double)(3.0) == 6.0


def test_without_a_place_to_keep_it_it_is_compiled_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    assert compiled(double)(4.0) == 8.0
