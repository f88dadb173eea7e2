"""The user of a container: by default ours, so that it can read our files, and we can remove its files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

# Limits that NVIDIA's images recommend at their start: backends pin memory, and need deep stacks.
_ULIMITS: Mapping[str, int] = {"memlock": -1, "stack": 64 << 20}


@dataclass(frozen=True)
class ContainerUser:
    """The user of a container, with groups and limits.

    Attributes:
        user: `uid:gid` in the container; None: the image's default.
        groups: Supplementary group ids.
        user_namespace: `host`, or empty for the engine's default.
        ulimits: Resource limits, soft and hard.
        environment: Environment variables to set.
    """

    user: str | None = None
    groups: tuple[int, ...] = ()
    user_namespace: str = ""
    ulimits: Mapping[str, int] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


def our_identity(security_options: Sequence[str], *, raise_limits: bool, user: str | None = None) -> ContainerUser:
    """The user of this process in a container, unless another one is named.

    Args:
        security_options: `SecurityOptions` of `docker info`, such as `name=rootless`.
        raise_limits: Raise limits as NVIDIA recommends; an engine with limits of its own cannot do so.
        user: Another user, as `docker run --user` takes it.
    """
    names = {option.partition(",")[0].removeprefix("name=") for option in security_options}
    if user is not None:
        return ContainerUser(user=user, ulimits=_ULIMITS if raise_limits and "rootless" not in names else {})
    if "rootless" in names:
        # In a rootless engine, root in the container is the engine's user, and limits cannot be raised.
        return ContainerUser(user="0:0")
    uid, gid = os.getuid(), os.getgid()
    return ContainerUser(
        user=f"{uid}:{gid}",
        groups=tuple(sorted({*os.getgroups()} - {gid})),
        user_namespace="host" if "userns" in names else "",
        ulimits=_ULIMITS if raise_limits else {},
        # The image does not know this user, so it has no home directory.
        environment={"HOME": "/tmp"} if uid else {},  # noqa: S108 (the container's own)
    )
