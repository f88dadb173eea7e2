"""The address at which a container's port is reached from this process."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

from tuner.servers.docker.engine_location import EngineLocation


def address_of(attributes: Mapping[str, Any], port: int, location: EngineLocation) -> str:
    """`host:port` of a TCP port of a container: the container's own address if it is on a network of ours.

    A published port is slower: every byte passes the process `docker-proxy`, which adds some 0.2 ms to a request, and
    takes CPU time from the server.

    Args:
        attributes: `docker inspect` of the container, which runs and publishes the port. For one that has ended, the
            returned address is not valid.
        port: The port within the container.
        location: Where the engine is.
    """
    settings = attributes["NetworkSettings"]
    networks = {name: network for name, network in settings["Networks"].items() if network["IPAddress"]}
    for name, network in networks.items():
        if name in location.networks or _is_on_this_machine(network, location):
            return f"{network['IPAddress']}:{port}"
    if location.container and "host" not in location.networks and networks:
        # We share the network of another container, so published ports are out of reach.
        return f"{next(iter(networks.values()))['IPAddress']}:{port}"
    published = (settings["Ports"] or {}).get(f"{port}/tcp") or [{"HostPort": "0"}]
    return f"{location.publish_on}:{published[0]['HostPort']}"


def _is_on_this_machine(network: Mapping[str, Any], location: EngineLocation) -> bool:
    """Whether this machine is the network's gateway. Networks of another machine may have the same addresses."""
    gateway = network["Gateway"]
    return not location.is_distant and bool(gateway) and _source_towards(network["IPAddress"]) == gateway


def _source_towards(ip: str) -> str | None:
    """The source address that the kernel would use to reach `ip`; None: no route. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((ip, 1))
        except OSError:
            return None
        source: str = probe.getsockname()[0]
        return source
