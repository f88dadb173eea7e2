"""As whom a container runs: as us, so that what it writes is ours to remove, and our files are for it to read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

# As NVIDIA's images ask for when they start: backends pin memory, and have deep stacks.
_ULIMITS: Mapping[str, int] = {"memlock": -1, "stack": 64 << 20}


@dataclass(frozen=True)
class Identity:
    """A user, and what that user may have.

    Attributes:
        user: `uid:gid` within the container; None: as the image says.
        groups: Further groups.
        user_namespace: `host`, or empty for the engine's own choice.
        ulimits: Resource limits, soft and hard alike.
        environment: Variables to set.
    """

    user: str | None = None
    groups: tuple[int, ...] = ()
    user_namespace: str = ""
    ulimits: Mapping[str, int] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


def our_identity(security_options: Sequence[str], *, raise_limits: bool, user: str | None = None) -> Identity:
    """Us, within a container, unless another is named.

    Args:
        security_options: What the engine says of itself in `docker info`, such as `name=rootless`.
        raise_limits: Ask for what NVIDIA recommends; an engine that is itself under limits cannot give that.
        user: In our place, as `docker run --user` takes it.
    """
    names = {option.partition(",")[0].removeprefix("name=") for option in security_options}
    if user is not None:
        return Identity(user=user, ulimits=_ULIMITS if raise_limits and "rootless" not in names else {})
    if "rootless" in names:
        # There, root within is the user to whom the engine belongs, and no limit can be raised.
        return Identity(user="0:0")
    uid, gid = os.getuid(), os.getgid()
    return Identity(
        user=f"{uid}:{gid}",
        groups=tuple(sorted({*os.getgroups()} - {gid})),
        user_namespace="host" if "userns" in names else "",
        ulimits=_ULIMITS if raise_limits else {},
        # The image does not know this user, who so has no home.
        environment={"HOME": "/tmp"} if uid else {},  # noqa: S108 (the container's own)
    )
