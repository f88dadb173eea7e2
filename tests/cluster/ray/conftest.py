"""A Ray cluster of two nodes, and executors on it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.ray_cluster import PATIENCE, Executors, RayCluster

from tuner.cluster.ray.executor import RayExecutor
from tuner.cluster.slot_context import SlotRecipe
from tuner.options.tune_job import TuneJob
from tuner.servers.installation import TritonInstallation
from tuner.testing.executor_contract import MODEL
from tuner.testing.repositories import ModelRepositoryFactory


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[RayCluster]:
    """The head and another node, each with a slot."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("needs pip install 'tritontune[cluster]'")
    cluster = RayCluster()
    try:
        cluster.add("head", slots=1)
        cluster.add("second", slots=1)
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="class")
def connected(ray_cluster: RayCluster) -> Iterator[RayCluster]:
    """The cluster, with the variables by which Ray connects to it."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ray_cluster.environment.items():
            patch.setenv(name, value)
        yield ray_cluster


@pytest.fixture
def notes() -> list[str]:
    """What executors have told the user."""
    return []


@pytest.fixture
def executors(connected: RayCluster, fake_triton: TritonInstallation, tmp_path: Path, notes: list[str]) -> Executors:
    """Makes executors on the cluster."""
    del connected
    (tmp_path / "repository").mkdir()
    repository = ModelRepositoryFactory(tmp_path / "repository")
    repository.add("identity", name=MODEL)

    def make(*, patience: dict[str, float] | None = None, **options: Any) -> RayExecutor:
        given = {"parallel": "auto", "executor": "ray", "triton_path": fake_triton.binary.parent.parent, **options}
        job = TuneJob.model_validate({"repository": repository.path, **given})
        recipe = SlotRecipe(job, (MODEL,), repository.path)
        return RayExecutor(recipe, note=notes.append, patience=replace(PATIENCE, **(patience or {})))

    return make
