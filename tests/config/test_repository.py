from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tuner.config.repository import ModelRepository
from tuner.core.errors import ConfigError, RepositoryError


def write(path: Path, content: str | bytes = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two models, one of them without a config, and things that are no models."""
    path = tmp_path / "repository"
    write(path / "mlp/config.pbtxt", "max_batch_size: 8\n")
    write(path / "mlp/1/model.py", "code")
    write(path / "mlp/10/model.py", "new code")
    write(path / "mlp/2/model.py", "more code")
    write(path / "mlp/labels.txt", "cat")
    write(path / "auto/3/model.onnx", "weights")
    write(path / "notes/readme.md")
    write(path / "readme.md")
    (path / "empty").mkdir()
    return path


def test_models_are_folders_with_a_config_or_a_version(repository: Path) -> None:
    opened = ModelRepository.open(repository)
    assert opened.path == repository
    assert [(model.name, model.path, model.versions) for model in opened.models] == [
        ("auto", repository / "auto", (3,)),
        ("mlp", repository / "mlp", (1, 2, 10)),
    ]


def test_only_what_triton_takes_for_a_version_is_one(repository: Path) -> None:
    for name in ("0", "01", "00", "v1", ".8", "configs", "latest", "\u0661", "2_old"):
        (repository / "mlp" / name).mkdir()
    write(repository / "mlp" / "4")
    model = ModelRepository.open(repository).model("mlp")
    assert model.versions == (0, 1, 2, 10)
    # Version 2 is there beside its backup.
    assert not model.misnamed


def test_folders_that_triton_takes_for_versions_that_are_not_there(repository: Path) -> None:
    for name in ("11_old", "+12", " 13", "1e3", "-4", "14"):
        (repository / "mlp" / name).mkdir()
    model = ModelRepository.open(repository).model("mlp")
    assert model.versions == (1, 2, 10, 14)
    assert model.misnamed == {"11_old": 11, "+12": 12, " 13": 13, "-4": -4}


def test_a_folder_of_backups_of_versions_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "m" / "1_old").mkdir(parents=True)
    (tmp_path / "lost+found").mkdir()
    with pytest.raises(RepositoryError, match=": no models: "):
        ModelRepository.open(tmp_path)


def test_a_model_needs_no_versions_and_they_may_be_empty(repository: Path) -> None:
    write(repository / "bare/config.pbtxt", "")
    (repository / "ensemble/1").mkdir(parents=True)
    opened = ModelRepository.open(repository)
    assert opened.model("bare").versions == ()
    assert opened.model("ensemble").versions == (1,)


def test_a_config_is_read_when_it_is_asked_for(repository: Path) -> None:
    write(repository / "broken/config.pbtxt", "max_batch_size 8")
    opened = ModelRepository.open(repository)
    config = opened.model("mlp").config
    assert config is not None
    assert config.proto.max_batch_size == 8
    assert config.source == str(repository / "mlp/config.pbtxt")
    assert opened.model("auto").config is None
    with pytest.raises(ConfigError, match=r"broken/config\.pbtxt:1:16: expected ':'"):
        _ = opened.model("broken").config


def test_a_config_is_read_once(repository: Path) -> None:
    model = ModelRepository.open(repository).model("mlp")
    before = model.config
    write(repository / "mlp/config.pbtxt", "max_batch_size: 99\n")
    assert model.config is before


def test_a_config_that_leads_nowhere_is_an_error(repository: Path) -> None:
    (repository / "auto/config.pbtxt").symlink_to("missing")
    with pytest.raises(ConfigError, match=r"auto/config\.pbtxt: cannot be read: No such file"):
        _ = ModelRepository.open(repository).model("auto").config


def test_links_to_repositories_models_versions_and_files_are_followed(repository: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "linked").mkdir(parents=True)
    (other / "linked/1").symlink_to(repository / "mlp/1")
    (other / "linked/config.pbtxt").symlink_to(repository / "mlp/config.pbtxt")
    (other / "whole").symlink_to(repository / "mlp")
    (tmp_path / "link").symlink_to(other)
    opened = ModelRepository.open(tmp_path / "link")
    linked, whole = opened.models
    assert (linked.versions, whole.versions) == ((1,), (1, 2, 10))
    assert linked.config is not None
    assert linked.config.proto.max_batch_size == 8
    assert whole.fingerprint() == ModelRepository.open(repository).model("mlp").fingerprint()


def test_a_read_only_repository_is_read(
    open_folder: Path, as_plain_user: Callable[[], AbstractContextManager[None]]
) -> None:
    write(open_folder / "mlp/config.pbtxt", "max_batch_size: 8")
    write(open_folder / "mlp/1/model.py")
    for path in (*open_folder.rglob("*"), open_folder):
        path.chmod(0o555 if path.is_dir() else 0o444)
    with as_plain_user():
        model = ModelRepository.open(open_folder).model("mlp")
        assert model.config is not None
        assert model.size_bytes() > 0
        assert model.fingerprint()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing", "missing: no such folder"),
        ("readme.md/x", "readme.md/x: no such folder"),
        ("readme.md", "readme.md: is a file; a model repository is a folder of model folders"),
        ("mlp/config.pbtxt", "is a file; a model repository is a folder of model folders; did you mean {}?"),
        ("mlp", "mlp: is the folder of one model; did you mean its parent {}?"),
        ("auto", "auto: is the folder of one model; did you mean its parent {}?"),
        (
            "empty",
            "empty: no models: no folder in it has a config.pbtxt or a version folder such as 1",
        ),
        ("notes", "notes: no models: "),
        ("loop", "loop: cannot be read: Too many levels of symbolic links"),
    ],
)
def test_what_is_no_repository_is_an_error_that_says_what_would_be(repository: Path, path: str, message: str) -> None:
    (repository / "loop").symlink_to("loop")
    with pytest.raises(RepositoryError) as raised:
        ModelRepository.open(repository / path)
    assert message.format(repository) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_parent_of_the_current_folder_is_named(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository / "mlp")
    with pytest.raises(RepositoryError, match=rf"did you mean its parent {repository}\?"):
        ModelRepository.open(Path())


def test_a_folder_of_empty_versions_is_not_taken_for_a_model(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    with pytest.raises(RepositoryError, match=": no models: "):
        ModelRepository.open(tmp_path)


def test_an_unknown_model_is_an_error_with_the_nearest_name(repository: Path) -> None:
    with pytest.raises(RepositoryError) as raised:
        ModelRepository.open(repository).model("mpl")
    assert str(raised.value) == f"{repository}: no model 'mpl'; did you mean 'mlp'?"


def test_what_may_not_be_read_is_an_error_only_when_it_is_asked_for(
    open_folder: Path, as_plain_user: Callable[[], AbstractContextManager[None]]
) -> None:
    write(open_folder / "mlp/1/model.py")
    write(open_folder / "secret/1/model.py")
    (open_folder / "secret").chmod(0)
    write(open_folder / "closed/repository/mlp/1/model.py")
    (open_folder / "closed").chmod(0)
    with as_plain_user():
        opened = ModelRepository.open(open_folder)
        assert [model.name for model in opened.models] == ["mlp"]
        with pytest.raises(RepositoryError, match=r"secret: cannot be read: Permission denied$"):
            opened.model("secret")
        with pytest.raises(RepositoryError, match=r"closed: cannot be read: Permission denied$"):
            ModelRepository.open(open_folder / "closed")
        with pytest.raises(RepositoryError, match=r"repository: cannot be read: Permission denied$"):
            ModelRepository.open(open_folder / "closed/repository")


def test_the_size_is_that_of_all_files(repository: Path) -> None:
    write(repository / "mlp/1/__pycache__/model.pyc", "cached")
    (repository / "mlp/1/weights").symlink_to(write(repository.parent / "weights", "12345"))
    (repository / "mlp/1/dangling").symlink_to("missing")
    (repository / "mlp/1/round").symlink_to("..")
    size = len("max_batch_size: 8\n" + "code" + "new code" + "more code" + "cat" + "12345")
    assert ModelRepository.open(repository).model("mlp").size_bytes() == size


def fingerprint(repository: Path) -> str:
    return ModelRepository.open(repository).model("mlp").fingerprint()


def test_the_fingerprint_is_that_of_all_but_the_config(repository: Path) -> None:
    before = fingerprint(repository)
    assert len(before) == 64
    write(repository / "mlp/config.pbtxt", "max_batch_size: 16\n")
    write(repository / "mlp/1/__pycache__/model.pyc", "cached")
    (repository / "mlp/3").mkdir()
    os.utime(repository / "mlp/1/model.py", (1, 1))
    assert fingerprint(repository) == before


@pytest.mark.parametrize("path", ["1/model.py", "labels.txt", "1/config.pbtxt", "new"])
def test_the_fingerprint_changes_with_contents_and_files(repository: Path, path: str) -> None:
    before = fingerprint(repository)
    write(repository / "mlp" / path, "changed")
    assert fingerprint(repository) != before


def test_the_fingerprint_changes_with_names(repository: Path) -> None:
    before = fingerprint(repository)
    (repository / "mlp/labels.txt").rename(repository / "mlp/names.txt")
    assert fingerprint(repository) != before


def test_the_fingerprint_of_a_large_file_is_of_its_size_and_ends(repository: Path) -> None:
    weights = repository / "mlp/1/weights"
    size = 65 * 2**20
    with weights.open("wb") as file:
        file.truncate(size)

    def patched(offset: int, content: bytes) -> str:
        with weights.open("r+b") as file:
            file.seek(offset)
            file.write(content)
        return fingerprint(repository)

    before = fingerprint(repository)
    assert patched(size // 2, b"x") == before
    first = patched(2**20 - 1, b"x")
    last = patched(size - 2**20, b"x")
    longer = patched(size, b"\0")
    assert len({before, first, last, longer}) == 4


def test_a_file_that_cannot_be_read_is_an_error(
    open_folder: Path, as_plain_user: Callable[[], AbstractContextManager[None]]
) -> None:
    write(open_folder / "mlp/1/model.py").chmod(0)
    with as_plain_user(), pytest.raises(RepositoryError, match=r"1/model\.py: cannot be read: Permission denied$"):
        fingerprint(open_folder)


def test_a_model_that_is_gone_is_an_error(repository: Path) -> None:
    model = ModelRepository.open(repository).model("auto")
    (repository / "auto").rename(repository / "moved")
    with pytest.raises(RepositoryError, match=r"auto: cannot be read: No such file or directory$"):
        model.size_bytes()
