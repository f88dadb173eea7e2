"""Versions of this system and of the packages that matter for a measurement."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

# What proposes, sends and computes.
_PACKAGES = ("optuna", "numpy", "scipy", "numba", "grpcio", "tritonclient", "protobuf", "nvidia-pytriton")


def versions() -> dict[str, str]:
    """Of the packages that matter for what is measured, as far as they are installed."""
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
