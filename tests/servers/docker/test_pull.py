from __future__ import annotations

from collections.abc import Iterator

import docker
import pytest
from support.registry import Registry, registry

from tuner.core.errors import TuningError
from tuner.servers.docker import pull as docker_pull
from tuner.servers.docker.pull import ImageNameError, Pull, ensure_image

pytestmark = pytest.mark.docker

MIB = 1 << 20


@pytest.fixture
def served(engine: docker.DockerClient) -> Iterator[Registry]:
    """A registry, of whose image the engine keeps nothing."""
    with registry(3 * MIB, 2 * MIB) as serving:
        yield serving
        for image in engine.images.list(name=f"{serving.address}/*"):
            engine.images.remove(image.id or "", force=True)


def _pulled(image: str) -> list[Pull]:
    seen: list[Pull] = []
    ensure_image(image, seen.append)
    return seen


def test_tells_how_far_it_is_until_it_is_there(served: Registry, engine: docker.DockerClient) -> None:
    first, *_, last = seen = _pulled(served.image())
    assert first == Pull(served.image())
    assert last == Pull(served.image(), 2, 2, served.layer_bytes, served.layer_bytes, ended=True)
    done = [pull.done_bytes for pull in seen]
    assert done == sorted(done)
    assert any(0 < pull.done_bytes < served.layer_bytes for pull in seen)
    assert [pull.ended for pull in seen].count(True) == 1
    assert engine.images.get(served.image()).attrs["RepoDigests"]


def test_what_is_there_is_not_pulled_again(served: Registry) -> None:
    _pulled(served.image())
    served.refuses = True
    assert _pulled(served.image()) == []


def test_by_its_digest(served: Registry, engine: docker.DockerClient) -> None:
    _pulled(served.image())
    (name,) = engine.images.get(served.image()).attrs["RepoDigests"]
    engine.images.remove(served.image(), force=True)
    assert _pulled(name)[-1].ended
    assert engine.images.get(name).attrs["RepoDigests"] == [name]


@pytest.mark.parametrize("name", ["{}/tritontune-pulled:2", "{}/another:1"])
def test_an_image_that_there_is_not(name: str, served: Registry) -> None:
    image = name.format(served.address)
    with pytest.raises(ImageNameError) as caught:
        _pulled(image)
    assert str(caught.value).startswith(f"--image: {image} cannot be pulled: ")
    assert "\n" not in str(caught.value)


def test_an_image_that_is_not_for_us(served: Registry) -> None:
    served.refuses = True
    with pytest.raises(ImageNameError, match="cannot be pulled: .*(unauthorized|authentication|no basic auth)"):
        _pulled(served.image())


def test_a_name_that_is_none() -> None:
    with pytest.raises(ImageNameError, match="--image: Upper:1 cannot be pulled: .*must be lowercase"):
        _pulled("Upper:1")


def test_a_registry_that_nobody_reaches() -> None:
    with pytest.raises(TuningError, match="image 127.0.0.1:9/x:1 is not on this machine and cannot be pulled: "):
        _pulled("127.0.0.1:9/x:1")


def test_an_engine_that_falls_silent(served: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker_pull, "_SILENCE_S", 1)
    served.stalls = True
    with pytest.raises(TuningError, match="cannot be pulled: the engine reported nothing for"):
        _pulled(served.image())
