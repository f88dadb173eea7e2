"""Measurements that take little time, for tests to which it does not matter how precise the numbers are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

from tuner.jobs import model_finals, model_tuning
from tuner.measure.rules import LevelRules
from tuner.recommend import certify, finals, verify_at_rate

_RULES = (
    (model_tuning, "_SWEEP_RULES"),
    (model_finals, "_VERIFY_RULES"),
    (model_tuning, "_RATE_RULES"),
    (model_finals, "_AT_RATE_RULES"),
    (model_finals, "_CERTIFY_RULES"),
)


@contextmanager
def rough_measurements(*, min_s: float = 0.3, max_s: float = 0.4) -> Iterator[None]:
    """A level, or a round of verifying, takes less than a second in commands and jobs of this process.

    Few rounds are enough, and a rate of which a test cannot tell in a few repeats is given up.
    """
    with ExitStack() as patches:
        for module, name in _RULES:
            patches.enter_context(mock.patch.object(module, name, LevelRules(min_s=min_s, max_s=max_s)))
        patches.enter_context(mock.patch.object(finals, "_PRECISE", 0.5))
        patches.enter_context(mock.patch.object(verify_at_rate, "_PRECISE", 0.5))
        patches.enter_context(mock.patch.object(verify_at_rate, "_LEAST_ROUNDS", 1))
        patches.enter_context(mock.patch.object(certify, "_REPEATS", 3))
        yield
