"""Where a container's port can be reached from here."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

from tuner.servers.docker.site import Site


def address_of(attributes: Mapping[str, Any], port: int, site: Site) -> str:
    """`host:port` for a TCP port of a container: its own address where that is on a network of ours.

    That way is the shorter one: to a published port every byte goes through another process, `docker-proxy`, which
    adds some 0.2 ms to a request, and takes CPU time from the server.

    Args:
        attributes: Of the inspected container, which runs and publishes the port; of one that has ended already there
            is no address, and nobody answers at what is returned.
        port: Within the container.
        site: Where the engine is.
    """
    settings = attributes["NetworkSettings"]
    networks = {name: network for name, network in settings["Networks"].items() if network["IPAddress"]}
    for name, network in networks.items():
        if name in site.networks or _is_on_this_machine(network, site):
            return f"{network['IPAddress']}:{port}"
    if site.container and "host" not in site.networks and networks:
        # Our own network is another container's; nothing is published where we could reach it.
        return f"{next(iter(networks.values()))['IPAddress']}:{port}"
    published = (settings["Ports"] or {}).get(f"{port}/tcp") or [{"HostPort": "0"}]
    return f"{site.publish_on}:{published[0]['HostPort']}"


def _is_on_this_machine(network: Mapping[str, Any], site: Site) -> bool:
    """Whether we are the network's gateway. Another machine's networks may have the addresses of ours."""
    gateway = network["Gateway"]
    return not site.is_distant and bool(gateway) and _source_towards(network["IPAddress"]) == gateway


def _source_towards(ip: str) -> str | None:
    """From which of our addresses the kernel would send to that one; None: there is no way. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((ip, 1))
        except OSError:
            return None
        source: str = probe.getsockname()[0]
        return source
