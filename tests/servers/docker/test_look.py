from __future__ import annotations

import pytest

from tuner.core.errors import JobError
from tuner.servers.docker.engine_location import EngineLocation
from tuner.servers.docker.look import check_network

CONTAINER = "c" * 64


@pytest.mark.parametrize(
    ("networks", "network", "own"),
    [(("bridge",), "host", "bridge"), ((), "tuning", "host"), (("a", "b"), "tuning", "a, b")],
)
def test_a_network_that_is_not_reached_from_our_container_is_told(
    networks: tuple[str, ...], network: str, own: str
) -> None:
    with pytest.raises(
        JobError, match=f"--network {network}: not reachable from tritontune's own container, which is on {own}; "
    ):
        check_network(EngineLocation(container=CONTAINER, networks=networks), network)


@pytest.mark.parametrize(
    ("location", "network"),
    [
        (EngineLocation(), "host"),
        (EngineLocation(), "tuning"),
        (EngineLocation(container=CONTAINER), "host"),
        (EngineLocation(container=CONTAINER, networks=("bridge", "tuning")), "tuning"),
        (EngineLocation(container=CONTAINER, networks=("bridge",)), None),
    ],
)
def test_a_network_that_is_reached(location: EngineLocation, network: str | None) -> None:
    check_network(location, network)
    assert location.network is None or location.network in location.networks
