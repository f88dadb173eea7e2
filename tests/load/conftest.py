from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.inference_peer import InferencePeer


@pytest.fixture
def server() -> Iterator[InferencePeer]:
    """A gRPC server in this process."""
    with InferencePeer() as server:
        yield server
