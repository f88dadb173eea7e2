"""What a node must have before anything of ours runs on it."""

from __future__ import annotations

import platform
from importlib.metadata import version

import pytest

from tuner.cluster.ray.probe import make_probe, why_unsuitable

OURS = version("tritontune")
PYTHON = platform.python_version()


def test_the_probe_tells_versions() -> None:
    assert make_probe()("tritontune") == (PYTHON, OURS)
    assert make_probe()("tritontune-that-is-not-there") == (PYTHON, None)


def test_equal_versions_are_suitable() -> None:
    assert why_unsuitable(PYTHON, OURS) == ""


@pytest.mark.parametrize(
    ("python", "tritontune", "reason"),
    [
        (PYTHON, None, f"tritontune is not installed for its Python; pip install 'tritontune[cluster]=={OURS}' there"),
        (PYTHON, "9.9", f"it has tritontune 9.9, and this machine {OURS}; install the same version"),
        ("3.9.1", OURS, f"it has Python 3.9.1, and this machine {PYTHON}; use the same minor version"),
    ],
)
def test_other_versions_are_not(python: str, tritontune: str | None, reason: str) -> None:
    assert why_unsuitable(python, tritontune) == reason
