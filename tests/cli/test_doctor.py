"""`tritontune doctor`'s word on ways to a server, which need not be here."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuner.cli import doctor
from tuner.cli.doctor import Check, State, checks
from tuner.core.errors import JobError
from tuner.options.groups import ServerOptions
from tuner.servers.choose_launcher import DEFAULT_IMAGE
from tuner.servers.installation import NoTritonError, TritonInstallation


@pytest.fixture
def no_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(path: Path | None, *_: object) -> TritonInstallation:
        raise (
            JobError(f"--triton-path {path}: is none") if path else NoTritonError("no Triton on this machine: install")
        )

    monkeypatch.setattr(doctor, "find_triton", find)


def _told(monkeypatch: pytest.MonkeyPatch, problems: dict[str | None, str], **options: object) -> dict[str, Check]:
    monkeypatch.setattr(doctor, "engine_problem", problems.get)
    asked = ServerOptions.make(options)
    return {check.name: check for check in checks(None, asked) if check.name in {"triton", "docker", "backends"}}


@pytest.mark.usefixtures("no_triton")
def test_an_engine_is_enough_where_there_is_no_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the image of tritontune itself, with the engine's socket in it."""
    told = _told(monkeypatch, {DEFAULT_IMAGE: "not there"})
    assert told["triton"].state is State.NOT_NEEDED
    assert told["triton"].detail == "none on this machine: a run uses the image in Docker"
    assert told["docker"] == Check(
        "docker",
        State.OK,
        f"engine reachable; a run uses {DEFAULT_IMAGE} (pulled first), or the image of --image",
    )


@pytest.mark.usefixtures("no_triton")
def test_neither_is_to_be_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    told = _told(monkeypatch, {None: "no Docker engine"})
    assert told["triton"] == Check("triton", State.FIX, "no Triton on this machine: install")
    assert told["docker"] == Check("docker", State.NOT_NEEDED, "no Docker engine")


@pytest.mark.usefixtures("no_triton")
def test_what_was_named_should_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    told = _told(monkeypatch, {"mine:1": "image 'mine:1' is not on this machine"}, image="mine:1")
    assert [told[name].state for name in ("triton", "docker")] == [State.FIX, State.FIX]
    told = _told(monkeypatch, {}, triton_path=Path("/nowhere"))
    assert told["triton"] == Check("triton", State.FIX, "--triton-path /nowhere: is none")
    assert "not used" in told["docker"].detail


def test_an_engine_beside_a_triton_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    here = TritonInstallation(Path("/opt/tritonserver"), "2.51.0", "here")
    monkeypatch.setattr(doctor, "find_triton", lambda *_: here)
    told = _told(monkeypatch, {})
    assert told["triton"].detail == "Triton 2.51.0 (here): /opt/tritonserver"
    assert told["docker"].detail == "engine reachable; not used, unless --image names an image"


def _models(monkeypatch: pytest.MonkeyPatch, folder: Path, **options: object) -> list[Check]:
    (folder / "triton/backends/python").mkdir(parents=True)
    here = TritonInstallation(folder / "triton/tritonserver", "2.51.0", "here")
    monkeypatch.setattr(doctor, "find_triton", lambda *_: here)
    monkeypatch.setattr(doctor, "engine_problem", lambda _: None)
    monkeypatch.setattr(doctor, "_leftovers", lambda: Check("leftovers", State.OK, ""))
    return [each for each in checks(folder / "models", ServerOptions.make(options)) if each.name == "model"]


def test_it_refuses_what_run_refuses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    configs = {
        "a": 'backend: "python"',
        "b": 'backend: "onnxruntime"',
        "c": 'backend: "python" max_batch_size: 2 dynamic_batching { preferred_batch_size: 4 }',
        "d": 'platform: "ensemble" ensemble_scheduling { }',
    }
    for name, config in configs.items():
        (tmp_path / "models" / name / "1").mkdir(parents=True)
        (tmp_path / "models" / name / "config.pbtxt").write_text(config, encoding="utf-8")
    (tmp_path / "models/a/2_old").mkdir()
    told = _models(monkeypatch, tmp_path)
    assert [each.state for each in told] == [State.FIX, State.FIX, State.FIX, State.NOT_NEEDED]
    for each, word in zip(told, ("2_old", "onnxruntime", "preferred_batch_size", "it is an ensemble"), strict=True):
        assert word in each.detail


def test_backends_may_lie_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "models/m/1").mkdir(parents=True)
    (tmp_path / "models/m/config.pbtxt").write_text('backend: "onnxruntime"', encoding="utf-8")
    (tmp_path / "more/onnxruntime").mkdir(parents=True)
    (told,) = _models(monkeypatch, tmp_path, triton_arg=[f"--backend-directory={tmp_path / 'more'}"])
    assert told == Check("model", State.OK, "m: versions 1")


def test_how_triton_is_to_be_started_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[object, ...]] = []

    def find(*asked: object) -> TritonInstallation:
        seen.append(asked)
        return TritonInstallation(Path("/opt/tritonserver/bin/tritonserver"), "2.51.0", "here")

    monkeypatch.setattr(doctor, "find_triton", find)
    _told(monkeypatch, {}, triton_arg=["--exit-timeout-secs=5"], env=["LICENSE=abc"], triton_path="/opt/tritonserver")
    assert seen == [(Path("/opt/tritonserver"), ("--exit-timeout-secs=5",), {"LICENSE": "abc"})]


def test_what_killed_runs_left_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "remove_abandoned_work", lambda: ("/tmp/work-of-x",))  # noqa: S108 (no file)
    monkeypatch.setattr(doctor, "remove_process_leftovers", lambda: ("a", "b", "c", "d"))
    monkeypatch.setattr(doctor, "engine_problem", lambda _: "there is none")
    told = doctor._leftovers()
    assert told.detail == "removed what killed runs left: 4 servers (a, b, c and 1 more); 1 folder (/tmp/work-of-x)"
