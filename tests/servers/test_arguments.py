from __future__ import annotations

from pathlib import Path

import pytest

from tuner.core.mark import Mark
from tuner.servers.arguments import triton_arguments
from tuner.servers.protocols import Launch
from tuner.testing.repositories import ModelRepositoryFactory, config_text

INCOMPLETE = "--disable-auto-complete-config"


def arguments(repository: ModelRepositoryFactory, model: str, *also: str) -> tuple[str, ...]:
    request = Launch(repository.path, model, Path("log"), 30, also)
    return triton_arguments(request, mark=Mark.new(), repository=Path("/models"), grpc_port=1)


def test_the_model_and_what_it_calls_are_loaded(model_repository: ModelRepositoryFactory) -> None:
    for name in ("a", "b", "c"):
        model_repository.add("identity", name=name)
    loaded = [each for each in arguments(model_repository, "b", "a") if each.startswith("--load-model")]
    assert loaded == ["--load-model=b", "--load-model=a"]


@pytest.mark.parametrize(
    ("model", "also", "complete"),
    [
        ("identity", (), True),
        ("identity", ("slow",), True),
        ("identity", ("auto_complete",), False),
        ("auto_complete", (), False),
        # It may call any of the others.
        ("calls", (), False),
    ],
)
def test_configs_are_completed_where_one_that_may_be_loaded_needs_it(
    model_repository: ModelRepositoryFactory, model: str, also: tuple[str, ...], *, complete: bool
) -> None:
    for source in ("identity", "slow", "calls"):
        model_repository.add(source)
    model_repository.add("auto_complete", config="")
    assert (INCOMPLETE in arguments(model_repository, model, *also)) is complete


def test_a_model_that_calls_others_needs_no_completion_where_none_does(
    model_repository: ModelRepositoryFactory,
) -> None:
    for source in ("identity", "calls"):
        model_repository.add(source, config=config_text())
    assert INCOMPLETE in arguments(model_repository, "calls")
