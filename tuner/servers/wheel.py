"""The Triton in the pip wheel `nvidia-pytriton`, and how to run it outside of a container."""

from __future__ import annotations

import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from typing_extensions import Self

from tuner.core.errors import JobError

DISTRIBUTION = "nvidia-pytriton"

_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_LIBPYTHON = f"libpython{_PYTHON}.so.1.0"  # the name that the wheel's Python backend was linked against


@dataclass(frozen=True)
class Wheel:
    """The paths of the wheel's parts.

    Attributes:
        triton: The folder of Triton.
        libraries: The folder of the wheel's shared libraries.
        stub: The program that runs a Python model, for the running Python.
        libpython: The library of the running Python, which the stub loads.
    """

    triton: Path
    libraries: Path
    stub: Path
    libpython: Path

    @classmethod
    def find(cls) -> Self | None:
        """Find the wheel in this environment; None if it is not installed.

        Raises:
            JobError: the wheel is installed, but cannot be used with the running Python.
        """
        package = importlib.util.find_spec("pytriton")
        if package is None or package.origin is None:
            return None
        site = Path(package.origin).parents[1]
        triton = site / "pytriton" / "tritonserver"
        return cls(triton, site / "nvidia_pytriton.libs", _find_stub(triton), _find_libpython())

    @property
    def binary(self) -> Path:
        """The path of `tritonserver`."""
        return self.triton / "bin" / "tritonserver"

    @property
    def description(self) -> str:
        """Name and version of the wheel."""
        return f"{DISTRIBUTION} {metadata.version(DISTRIBUTION)}"

    def link_parts(self, folder: Path) -> None:
        """Create the folders that the server and its stubs search, with links to the parts."""
        backend, lib = folder / "backends" / "python", folder / "lib"
        backend.mkdir(parents=True)
        lib.mkdir()
        for part in self.triton.glob("backends/python/*.*"):
            (backend / part.name).symlink_to(part)
        (backend / self.stub.name).symlink_to(self.stub)
        # Only this library: others of a conda environment would replace the system's.
        (lib / self.libpython.name).symlink_to(self.libpython)

    def arguments(self, folder: Path) -> tuple[str, ...]:
        """The server's arguments for the folders that `link_parts` created."""
        return f"--backend-directory={folder / 'backends'}", f"--cache-directory={self.triton / 'caches'}"

    def environment(self, folder: Path, variables: Mapping[str, str]) -> Mapping[str, str]:
        """Environment variables with which models import the packages of the running Python first."""
        packages = [path for path in sys.path if Path(path).name in {"site-packages", "dist-packages"}]
        return {
            "LD_LIBRARY_PATH": _with(variables.get("LD_LIBRARY_PATH"), self.libraries, folder / "lib"),
            "PYTHONPATH": _with(variables.get("PYTHONPATH"), *packages),
            # The stub's Python takes its virtual environment from the first python3 on PATH.
            "PATH": _with(variables.get("PATH"), Path(sys.executable).parent),
        }


def _with(present: str | None, *first: Path | str) -> str:
    return os.pathsep.join([*map(str, first), *([present] if present else [])])


def _find_stub(triton: Path) -> Path:
    stubs = triton / "python_backend_stubs"
    stub = stubs / _PYTHON / "triton_python_backend_stub"
    if not stub.is_file():
        versions = sorted((path.name for path in stubs.glob("3.*")), key=lambda name: int(name.partition(".")[2]))
        raise JobError(
            f"{DISTRIBUTION} supports Python {', '.join(versions)}, but this is {_PYTHON}; "
            "install tritontune with one of those"
        )
    return stub


def _find_libpython() -> Path:
    for folder in _library_folders():
        if (folder / _LIBPYTHON).is_file():
            return folder / _LIBPYTHON
    raise JobError(
        f"{DISTRIBUTION} needs {_LIBPYTHON}, which this Python does not have; "
        f"on Debian and Ubuntu: apt install libpython{_PYTHON}"
    )


def _library_folders() -> Iterator[Path]:
    for prefix in (sys.base_prefix, "/usr", "/usr/local"):
        for name in ("lib", "lib64"):
            yield Path(prefix, name)
            yield Path(prefix, name, sysconfig.get_config_var("MULTIARCH") or "")
    yield Path(sysconfig.get_config_var("LIBDIR"))
