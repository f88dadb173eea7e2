"""Files of a launch that travel."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuner.cluster.ray.launch_files import LONGEST, files_in, write_files


def test_files_arrive_as_they_were(tmp_path: Path) -> None:
    folder = tmp_path / "launch"
    (folder / "other/1").mkdir(parents=True)
    (folder / "server.log").write_bytes(b"\xff ready")
    (folder / "other/1/model.json").write_text("{}")
    write_files(tmp_path / "here", files_in(folder))
    assert files_in(tmp_path / "here") == (("other/1/model.json", b"{}"), ("server.log", b"\xff ready"))


def test_a_missing_folder_has_no_files(tmp_path: Path) -> None:
    assert files_in(tmp_path / "missing") == ()


def test_of_a_long_log_the_beginning_and_the_end_travel(tmp_path: Path) -> None:
    (tmp_path / "server.log").write_bytes(b"begin" + b"x" * (LONGEST + 95) + b"end")
    ((_, contents),) = files_in(tmp_path)
    assert contents.startswith(b"begin")
    assert contents.endswith(b"end")
    assert b"[... 103 bytes were left out by tritontune ...]" in contents
    assert len(contents) < LONGEST + 100


@pytest.mark.parametrize("name", ["../elsewhere", "/elsewhere", "a/../../elsewhere"])
def test_a_host_cannot_write_elsewhere(name: str, tmp_path: Path) -> None:
    write_files(tmp_path / "launch", [(name.replace("/elsewhere", f"{tmp_path}/elsewhere", 1), b"x")])
    write_files(tmp_path / "launch", [(name, b"x")])
    assert [path.name for path in tmp_path.rglob("*")] == ["launch"]
