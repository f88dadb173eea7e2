from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tuner.config.config import EMPTY, ModelConfig
from tuner.config.diff import unified_diff


def config(text: str, source: str = "repo/mlp/config.pbtxt") -> ModelConfig:
    return ModelConfig.parse(text, source)


def test_equal_configs_have_no_difference() -> None:
    assert unified_diff(config("max_batch_size: 1"), config("max_batch_size: 1")) == ""
    assert unified_diff(config(""), config("", "elsewhere")) == ""


def test_the_difference_of_an_edit() -> None:
    before = config('name: "mlp"\nmax_batch_size: 1 # one\n')
    after = before.edited({"max_batch_size": 2, "dynamic_batching": EMPTY})
    assert unified_diff(before, after) == (
        "--- repo/mlp/config.pbtxt\tbefore\n"
        "+++ repo/mlp/config.pbtxt\tafter\n"
        "@@ -1,2 +1,3 @@\n"
        ' name: "mlp"\n'
        "-max_batch_size: 1 # one\n"
        "+max_batch_size: 2 # one\n"
        "+dynamic_batching { }\n"
    )


def test_configs_of_two_places_are_labelled_by_them() -> None:
    lines = unified_diff(config("", "a"), config("name: 'x'\n", "b")).splitlines()
    assert lines == ["--- a", "+++ b", "@@ -0,0 +1 @@", "+name: 'x'"]


@pytest.mark.skipif(shutil.which("patch") is None, reason="needs patch")
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("name: 'x'", "name: 'y'"),
        ("name: 'x'\n", "name: 'x'"),
        ("", "name: 'x'"),
        ("name: 'x'\n", ""),
        ("name: 'x\\n'\f\v\n# \u2028 \x85 \x1c\n", "name: 'y'\f\v\n# \u2028 \x85 \x1c\n"),
        ("name: 'x'\r\nbackend: 'b'\r\n", "name: 'y'\r\nbackend: 'b'\r\n"),
    ],
)
def test_patch_makes_the_one_of_the_other(tmp_path: Path, before: str, after: str) -> None:
    target = tmp_path / "config.pbtxt"
    target.write_bytes(before.encode())
    diff = unified_diff(config(before, "config.pbtxt"), config(after, "config.pbtxt"))
    command = ["patch", "--binary", "--posix", str(target)]
    subprocess.run(command, input=diff.encode(), check=True, cwd=tmp_path, capture_output=True, timeout=20)
    assert (target.read_bytes().decode() if target.exists() else "") == after
