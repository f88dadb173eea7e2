from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite("support.load_engine_contract")

from support.inference_peer import InferencePeer  # noqa: E402 (after the line above)
from support.load_engine_contract import Serve  # noqa: E402 (the same)
from support.services import triton_services  # noqa: E402 (the same)

from tuner.servers.installation import TritonInstallation  # noqa: E402 (the same)


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
