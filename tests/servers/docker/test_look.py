from __future__ import annotations

import pytest

from tuner.core.errors import JobError
from tuner.servers.docker.look import check_network
from tuner.servers.docker.site import Site

CONTAINER = "c" * 64


@pytest.mark.parametrize(
    ("networks", "network", "own"),
    [(("bridge",), "host", "bridge"), ((), "tuning", "host"), (("a", "b"), "tuning", "a, b")],
)
def test_a_network_that_is_not_reached_from_our_container_is_told(
    networks: tuple[str, ...], network: str, own: str
) -> None:
    with pytest.raises(JobError, match=f"--network {network}: tritontune is in a container on {own}, which does not"):
        check_network(Site(container=CONTAINER, networks=networks), network)


@pytest.mark.parametrize(
    ("site", "network"),
    [
        (Site(), "host"),
        (Site(), "tuning"),
        (Site(container=CONTAINER), "host"),
        (Site(container=CONTAINER, networks=("bridge", "tuning")), "tuning"),
        (Site(container=CONTAINER, networks=("bridge",)), None),
    ],
)
def test_a_network_that_is_reached(site: Site, network: str | None) -> None:
    check_network(site, network)
    assert site.network is None or site.network in site.networks
