"""Versions of this system and of the packages that matter for a measurement."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

# Packages that propose candidates, send requests, or compute.
_PACKAGES = ("optuna", "numpy", "scipy", "numba", "grpcio", "tritonclient", "protobuf", "nvidia-pytriton")


def versions() -> dict[str, str]:
    """Versions, by name, of the installed packages that affect measurements."""
    packages = {}
    for package in _PACKAGES:
        try:
            packages[package] = version(package)
        except PackageNotFoundError:
            continue
    return packages


def system() -> str:
    """The distribution and the kernel."""
    kernel = f"{platform.system()} {platform.release()} {platform.machine()}"
    try:
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {kernel}"
    except (OSError, KeyError):
        return kernel
