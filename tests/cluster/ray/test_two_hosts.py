"""Two hosts and the network between them, in namespaces of this machine."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import two_hosts
from support.pages import ROOT

from tuner.servers.installation import TritonInstallation

_ALONE = ["unshare", "--net", "--mount", "--propagation", "private"]


@pytest.mark.slow
def test_the_repository_travels_and_a_cut_network_is_a_lost_host(
    tmp_path: Path, fake_triton: TritonInstallation
) -> None:
    if importlib.util.find_spec("ray") is None:
        pytest.skip("needs pip install 'tritontune[cluster]'")
    if not shutil.which("ip") or subprocess.run([*_ALONE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("cannot make network namespaces here")
    done = subprocess.run(
        [*_ALONE, sys.executable, two_hosts.__file__, str(tmp_path), str(fake_triton.binary.parent.parent)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=280,
    )
    seen = json.loads(done.stdout)
    size = len(two_hosts.WEIGHTS)
    assert seen["cached"][-1] == size
    assert len(seen["cached"]) == 3
    assert size < seen["sent"] < 1.5 * size
    assert seen["requests"][0] > 0
    assert seen["sent while measuring"] < 2_000_000
    assert seen["error"] == "HostLostError"
    assert seen["requests on the first"][0] > 0
    sending = [note for note in seen["notes"] if "sending 3 files, 64 MiB" in note]
    assert len(sending) == 2
