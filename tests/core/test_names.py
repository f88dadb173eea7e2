from __future__ import annotations

from pathlib import Path

import pytest
from support.builders import identity
from typing_extensions import Self

from tuner.config.repository import ModelRepository
from tuner.core.errors import JobError, RepositoryError
from tuner.core.names import why_no_folder
from tuner.options.endpoint import Endpoint
from tuner.servers import served
from tuner.servers.served import served_repository
from tuner.study.run_folder import RunFolder
from tuner.study.study import Study
from tuner.testing.repositories import ModelRepositoryFactory

BAD = ["../../x", "..", ".", "", "/etc/x", "a/b", "a\0b", "a\nb", "x" * 300]


@pytest.mark.parametrize("name", BAD)
def test_a_name_that_leads_elsewhere_is_none(name: str) -> None:
    assert why_no_folder(name) is not None


@pytest.mark.parametrize("name", ["mlp", "my model", "größer", "a..b", "...", "-x", "a\udcffb", "x" * 255])
def test_others_are_names(name: str) -> None:
    assert why_no_folder(name) is None


class _Served:
    """A server that tells of models as it likes."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def loaded(self) -> list[str]:
        return [self._name]


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("asked", ["by name", "all"])
def test_what_a_server_tells_makes_no_folder_elsewhere(
    name: str,
    asked: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(served, "TritonClient", lambda _: _Served(name))
    into = tmp_path / "a/b/c"
    into.mkdir(parents=True)
    with pytest.raises(JobError, match=r"^--url: model name .* at host:8001 (is|contains) "):
        served_repository(Endpoint("host:8001"), [name] if asked == "by name" else [], into)
    assert [path for path in tmp_path.rglob("*") if path not in (into, *into.parents)] == []


@pytest.mark.parametrize("name", [*BAD, "study.db", ".work", "job.yaml", ".lock"])
def test_a_run_has_no_folder_of_that_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="cannot hold model"):
        RunFolder(tmp_path).model(name)


def test_a_study_of_a_model_elsewhere_is_refused(tmp_path: Path) -> None:
    """The folder of a run may be of somebody else."""
    Study.create_or_resume(tmp_path / "study.db", identity().model_copy(update={"model": "../../x"}))
    with pytest.raises(JobError, match=r"the model name '../../x' contains a slash$"):
        Study.models(tmp_path / "study.db")


@pytest.mark.parametrize("name", BAD)
def test_a_repository_has_no_model_elsewhere(name: str, model_repository: ModelRepositoryFactory) -> None:
    model_repository.add("slow")
    with pytest.raises(RepositoryError, match="no model .*: the name "):
        ModelRepository.open(model_repository.path).model(name)
