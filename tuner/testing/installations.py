"""Installs a fake Triton on this machine, for launchers, `--triton-path` and `doctor`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tuner.core.atomic_file import write_atomically
from tuner.servers.installation import TritonInstallation
from tuner.testing.fake.runtime import FILE, VERSION

_PROGRAM_AT = Path("bin", "tritonserver")
_BACKENDS = ("python", "fake")
_PROGRAM = """\
#!{python}
import sys
from tuner.testing.fake.main import main
main(__file__, sys.argv[1:])
"""


def fake_installation(folder: Path, **control: Any) -> TritonInstallation:
    """Write a fake Triton installation into a folder, which `--triton-path` takes.

    Args:
        folder: The folder; created if it is missing.
        control: The server's behaviour (`tuner.testing.fake.runtime.Control`).
    """
    for backend in _BACKENDS:
        (folder / "backends" / backend).mkdir(parents=True, exist_ok=True)
    program = folder / _PROGRAM_AT
    program.parent.mkdir(exist_ok=True)
    program.write_text(_PROGRAM.format(python=sys.executable), encoding="utf-8")
    program.chmod(0o755)
    control_fake(folder, **control)
    version = str(control.get("version", VERSION))
    return TritonInstallation(program.absolute(), version, str(program.absolute()))


def control_fake(folder: Path, **control: Any) -> None:
    """Change the behaviour of all servers of a fake installation, running and future ones."""
    write_atomically((folder / _PROGRAM_AT).with_name(FILE), json.dumps(control))
