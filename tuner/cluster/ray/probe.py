"""What a node must have before anything of ours runs on it."""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

DISTRIBUTION = "tritontune"


def make_probe() -> Callable[[str], tuple[str, str | None]]:
    """A function that returns the versions of Python and of tritontune there; None: it is not installed.

    Ray sends the code of a function within a function, but only the name of any other: there, nothing of ours may be
    installed.
    """

    def probe(distribution: str) -> tuple[str, str | None]:
        import importlib.metadata  # noqa: PLC0415 (it takes its imports with it)
        import platform  # noqa: PLC0415

        try:
            return platform.python_version(), importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            return platform.python_version(), None

    return probe


def why_unsuitable(python: str, tritontune: str | None) -> str:
    """Why a host with these versions cannot be used; empty: it can."""
    ours = _our_version()
    if tritontune is None:
        return f"tritontune is not installed for its Python; pip install '{DISTRIBUTION}[cluster]=={ours}' there"
    if tritontune != ours:
        return f"it has tritontune {tritontune}, and this machine {ours}; install the same version"
    if _minor(python) != _minor(platform.python_version()):
        return f"it has Python {python}, and this machine {platform.python_version()}; use the same minor version"
    return ""


def _our_version() -> str:
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "unknown"


def _minor(python: str) -> list[str]:
    return python.split(".")[:2]
