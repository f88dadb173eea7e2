from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.inference_peer import InferencePeer
from support.services import triton_services

from tuner.servers.installation import TritonInstallation
from tuner.testing.engine_contract import Serve


@pytest.fixture
def server() -> Iterator[InferencePeer]:
    """A gRPC server in this process."""
    with InferencePeer() as server:
        yield server


# It outlives the tests of this folder, idly.
@pytest.fixture(scope="session")
def triton_serve(triton_installation: TritonInstallation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """A real Triton with all models but `doomed`, for which there is a new one each time."""
    with triton_services(triton_installation, tmp_path_factory.mktemp("services")) as serve:
        yield serve


@pytest.fixture(scope="session")
def fake_serve(fake_triton: TritonInstallation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """The same models on a fake one."""
    with triton_services(fake_triton, tmp_path_factory.mktemp("fake_services")) as serve:
        yield serve
