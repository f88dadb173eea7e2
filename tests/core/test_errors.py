from __future__ import annotations

import pickle
from collections.abc import Iterator
from importlib import import_module
from pkgutil import walk_packages

import pytest

import tuner
from tuner.core.errors import (
    Cause,
    ConfigError,
    InterruptedRunError,
    LaunchError,
    OutputsDifferError,
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


def _kinds(kind: type[TritontuneError] = TritontuneError) -> Iterator[type[TritontuneError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _kinds(below)


def _all_kinds() -> list[type[TritontuneError]]:
    for module in walk_packages(tuner.__path__, "tuner."):
        if not module.name.startswith("tuner.testing"):
            import_module(module.name)
    return sorted(set(_kinds()), key=lambda kind: kind.__qualname__)


def test_all_errors_come_whole_from_another_process() -> None:
    kinds = _all_kinds()
    assert len(kinds) > 30
    for kind in kinds:
        error = kind.__new__(kind)
        error.args, error.__dict__ = ("one line",), {"cause": Cause.CRASHED, "last_words": "a\nb", "status": 404}
        copy = pickle.loads(pickle.dumps(error))  # noqa: S301 (our own)
        assert (type(copy), copy.args, vars(copy)) == (kind, error.args, vars(error))
        assert (str(copy), copy.exit_code) == (str(error), error.exit_code)


def test_an_error_comes_from_another_process_with_what_it_was_made_of() -> None:
    made = LaunchError("no memory", cause=Cause.OUT_OF_MEMORY, last_words="CUDA error")
    differ = OutputsDifferError("OUT differs by 3 %", values_only=True)
    copy, other = pickle.loads(pickle.dumps((made, differ)))  # noqa: S301 (our own)
    assert (str(copy), copy.cause, copy.last_words) == ("no memory", Cause.OUT_OF_MEMORY, "CUDA error")
    assert (str(other), other.cause, other.values_only) == ("OUT differs by 3 %", Cause.OUTPUTS_DIFFER, True)
