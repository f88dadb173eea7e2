from __future__ import annotations

import pytest

from tuner.core.errors import (
    ConfigError,
    InterruptedRunError,
    LaunchError,
    RepositoryError,
    SLOError,
    TritontuneError,
    TuningError,
    nearest,
)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (RepositoryError, 2),
        (ConfigError, 2),
        (TuningError, 1),
        (LaunchError, 1),
        (SLOError, 3),
        (InterruptedRunError, 130),
    ],
)
def test_each_kind_has_its_exit_code(kind: type[TritontuneError], code: int) -> None:
    assert kind.exit_code == code


def test_names_the_nearest() -> None:
    assert nearest("mpl", ["mlp", "bert"]) == "; did you mean 'mlp'?"


def test_names_all_when_none_is_near() -> None:
    assert nearest("resnet", ["mlp", "bert"]) == " (available: bert, mlp)"


def test_says_nothing_when_there_is_nothing() -> None:
    assert not nearest("resnet", [])
