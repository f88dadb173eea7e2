from __future__ import annotations

import re

import pytest
from support.docker_image import IMAGE

from tuner.core.errors import JobError, TuningError
from tuner.core.machine import Machine
from tuner.core.nvml import Gpu
from tuner.options.tune_job import TuneJob
from tuner.servers import choose_launcher as choose
from tuner.servers.choose_launcher import DEFAULT_IMAGE, choose_launcher
from tuner.servers.docker.launcher import DockerLauncher
from tuner.servers.process import ProcessLauncher

NOBODY = "unix:///nowhere/docker.sock"


def _choose(**options: object) -> tuple[object, list[str]]:
    notes: list[str] = []
    return choose_launcher(TuneJob.make({"repository": "repo", **options}), notes.append), notes


def _refusal(**options: object) -> str:
    with pytest.raises(JobError) as caught:
        _choose(**options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def no_triton_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("tuner.servers.wheel.Wheel.find", lambda: None)


@pytest.fixture
def a_gpu_here(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(index=0, uuid="GPU-1", name="some GPU", memory_bytes=1 << 30)
    monkeypatch.setattr(Machine, "here", lambda: Machine(cpus=2, gpus=(gpu,), processor="x86_64"))


def test_the_default_image_is_a_pinned_release_of_nvidias() -> None:
    assert re.fullmatch(r"nvcr\.io/nvidia/tritonserver:\d\d\.\d\d-py3", DEFAULT_IMAGE)


@pytest.mark.usefixtures("each_triton")
@pytest.mark.parametrize("server", ["auto", "process"])
def test_without_an_image_a_process(server: str) -> None:
    launcher, notes = _choose(server=server)
    assert isinstance(launcher, ProcessLauncher)
    assert notes == []


@pytest.mark.usefixtures("fake_on_path")
@pytest.mark.parametrize(
    "option", [{"image": "foo:1"}, {"network": "host"}, {"user": "me"}, {"mount": ["/x:/y"]}, {"memory": "1GiB"}]
)
def test_auto_takes_no_process_in_place_of_the_docker_that_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, option: dict[str, object]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", NOBODY)
    told = _refusal(server="auto", **option)
    assert told.startswith(f"--{next(iter(option))} needs Docker: no Docker engine")


@pytest.mark.docker
@pytest.mark.parametrize("server", ["auto", "docker"])
def test_with_an_image_docker(server: str) -> None:
    launcher, notes = _choose(server=server, image=IMAGE)
    assert isinstance(launcher, DockerLauncher)
    assert launcher.gpus == "none"
    assert launcher.description.startswith(f"Triton 2.51.0, image {IMAGE} (sha256:")
    assert notes == []


@pytest.mark.docker
@pytest.mark.usefixtures("no_triton_here")
def test_auto_falls_back_to_docker_where_there_is_no_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    # The default itself cannot be pulled everywhere.
    monkeypatch.setattr(choose, "DEFAULT_IMAGE", IMAGE)
    launcher, notes = _choose()
    assert isinstance(launcher, DockerLauncher)
    assert notes == [f"no Triton on this machine; using {IMAGE} in Docker"]


@pytest.mark.usefixtures("no_triton_here")
def test_neither_a_triton_nor_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", NOBODY)
    told = _refusal()
    assert told.startswith("no Triton on this machine: install one by pip install 'tritontune[server]'")
    assert "; Docker cannot be used instead: no Docker engine: /nowhere/docker.sock does not exist" in told
    assert "Docker engine" not in _refusal(server="process")


@pytest.mark.docker
@pytest.mark.usefixtures("a_gpu_here")
def test_gpus_are_left_out_where_the_engine_cannot_give_them_and_nobody_asked() -> None:
    launcher, (note,) = _choose(image=IMAGE)
    assert isinstance(launcher, DockerLauncher)
    assert launcher.gpus == "none"
    assert note.startswith("containers run without a GPU: --gpus all: Docker cannot give GPUs to containers here: ")
    assert "GPUs" not in launcher.description


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"server": "process", "image": "x"}, "--image needs Docker"),
        (
            {"server": "process", "shm_size": "2GiB"},
            "--shm-size needs Docker; leave it out, or use --server docker",
        ),
        ({"server": "process", "docker_arg": ["init=true"]}, "--docker-arg needs Docker"),
        ({"server": "docker", "image": "x", "triton_path": "y"}, "--image and --triton-path cannot be combined"),
        ({"server": "auto", "user": "x", "triton_path": "y"}, "--user and --triton-path cannot be combined"),
        ({"server": "docker", "triton_path": "y"}, "--triton-path is for a Triton on this machine"),
    ],
)
def test_options_that_contradict_each_other(options: dict[str, object], complaint: str) -> None:
    assert _refusal(**options).startswith(complaint)


def test_docker_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", NOBODY)
    assert _refusal(server="docker", image=IMAGE).startswith("--server docker: no Docker engine")
    # What only Docker can do is not left out in silence.
    assert _refusal(memory="1GiB", image=IMAGE).startswith("--image needs Docker: no Docker engine")


@pytest.mark.docker
@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"gpus": "all"}, "--gpus all: Docker cannot give GPUs to containers here: install nvidia-container-toolkit"),
        ({"network": "absent"}, "--server docker: Docker cannot start the container: network absent not found"),
        ({"user": "absent"}, "--server docker: Docker cannot start the container: unable to find user absent"),
        ({"mount": ["/absent:/x"]}, "bind source path does not exist: /absent"),
        ({"mount": ["absent:/x"]}, "--mount: no Docker volume 'absent'"),
        ({"memory": "1MiB"}, "Minimum memory limit allowed is 6MB"),
        ({"docker_arg": ["ulimits=3"]}, "--docker-arg: ulimits should be a list"),
        ({"docker_arg": ["cpu_quota=much"]}, "--docker-arg: Invalid type for cpu_quota param: expected int"),
        ({"docker_arg": ["cap_add=[ABSENT]"]}, 'unknown capability: "CAP_ABSENT"'),
        ({"triton_arg": ["--absent=1"]}, f"--image {IMAGE}: Triton does not start: "),
        ({"image": "tritontune-debian:bookworm"}, "--image tritontune-debian:bookworm is not a Triton image"),
        (
            {"docker_arg": ["platform=linux/arm64"]},
            f"--image {IMAGE}: Docker does not have the image: image with reference {IMAGE} was found",
        ),
    ],
)
def test_what_the_engine_refuses_is_one_line(options: dict[str, object], complaint: str) -> None:
    assert complaint in _refusal(server="docker", **{"image": IMAGE, **options})


@pytest.mark.docker
def test_an_image_that_cannot_be_got_is_no_reason_to_take_another_triton() -> None:
    assert _refusal(image="Tritontune").startswith("--image: Tritontune cannot be pulled: ")
    with pytest.raises(TuningError, match="connection refused"):
        _choose(server="docker", image="127.0.0.1:9/absent:1")


@pytest.mark.usefixtures("each_triton")
def test_what_a_process_refuses() -> None:
    assert _refusal(gpus="0").startswith("--gpus 0: this machine has no GPU (NVML finds none)")
    assert _refusal(triton_arg=["--absent=1"]).endswith("unrecognized option '--absent=1'")
    assert _refusal(env=["TMPDIR=/x"]).startswith("--env TMPDIR: each server gets its own folder")
