from __future__ import annotations

from pathlib import Path

import pytest
from support.command_line import tritontune
from support.effective import EFFECTIVE

from tuner.testing.repositories import ModelRepositoryFactory


def _listed(folder: Path, config: str, *options: object) -> str:
    """What is printed for a model, whose Triton must not be needed."""
    (folder / "m" / "1").mkdir(parents=True)
    (folder / "m" / "config.pbtxt").write_text(config)
    done = tritontune("run", folder, "--list-space", "--server", "process", *options)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("key", [key for key in EFFECTIVE if "KIND_CPU" in EFFECTIVE[key]])
def test_the_space_of_each_backend_is_printed_without_a_launch(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    text = _listed(tmp_path, EFFECTIVE[key])
    backend = key if key != "tensorflow" else "tensorflow_savedmodel"
    assert text.startswith(
        f"m: backend {'tensorflow' if key == 'tensorflow' else backend}, by its config; space auto\n"
    )
    assert "instance_group.count" in text
    assert "not searched: on request: name it in a space file\n" in text


def test_it_says_values_places_and_laws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(4)))
    monkeypatch.setattr("tuner.core.machine._quota", lambda: None)
    text = _listed(tmp_path, EFFECTIVE["onnxruntime"])
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "intra_op_thread_count off*, 1, 2, 4" in lines
    assert any(line.startswith('parameters["intra_op_thread_count"].string_value') for line in lines)
    assert "instance_group.count * intra_op_thread_count <= cores" in lines
    assert "not searched: none of its instances is on a GPU" in lines


def test_a_file_and_its_notes(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(
        "schema: 1\nparameters:\n  pinned: {field: optimization.output_pinned_memory.enable, ladder: [true, false]}\n"
        "  mode: {field: 'parameters[\"mode\"].string_value', ladder: [off, a, b],"
        " changes_numerics: [b], does: Chooses.}\n"
    )
    text = _listed(tmp_path / "models", EFFECTIVE["python"], "--space", file)
    assert "not searched: it has no effect: only the TensorRT backend reads it" in text
    assert "mode: b left out: it may change what the model answers; allow it with --allow-numerics" in text
    assert "Chooses" in text


def test_own_host_policies_are_searched_on_any_machine(tmp_path: Path) -> None:
    text = _listed(tmp_path, EFFECTIVE["python"], "--host-policy", "mine,cpu-cores=0-1")
    assert "off*, mine\n" in "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--space", "autp"], "--space: 'autp' is neither a file nor a shipped search space; did you mean 'auto'?"),
        (["--out", "x"], "--list-space and --out cannot be combined"),
        (["--json"], "--list-space and --json cannot be combined"),
        (["--host-policy", "mine"], "'mine' is not a host policy; write NAME,numa-node=N or NAME,cpu-cores=A-B"),
    ],
)
def test_bad_requests_get_one_line(tmp_path: Path, options: list[str], complaint: str) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "config.pbtxt").write_text(EFFECTIVE["python"])
    done = tritontune("run", tmp_path, "--list-space", *options)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.usefixtures("each_triton")
def test_a_server_tells_what_the_own_config_does_not(tmp_path: Path) -> None:
    models = ModelRepositoryFactory(tmp_path)
    model = models.add(config="")
    done = tritontune("run", tmp_path, "--list-space")
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"{model}: starting a server, as Triton completes the config\n"
    assert done.stdout.startswith(f"{model}: backend python, as the server completed it; space auto\n")
    assert list(tmp_path.iterdir()) == [tmp_path / model]
