from __future__ import annotations

from pathlib import Path

import pytest

from tuner.config import beside
from tuner.config.beside import copy_hint, place_beside
from tuner.config.repository import ModelRepository
from tuner.config.staging import stage

REACHING = 'sys.path.append(os.path.join(os.path.dirname(__file__), "..", "..", "..", "common"))\nimport vocabulary\n'


@pytest.fixture
def users(tmp_path: Path) -> Path:
    """A repository whose model may reach for `common`, and what lies beside it."""
    home = tmp_path / "home"
    (home / "models/mlp/1").mkdir(parents=True)
    (home / "common/sub/__pycache__").mkdir(parents=True)
    (home / "common/helpers.py").write_text("X = 1")
    (home / "common/sub/words.txt").write_text("a b")
    (home / "vocabulary.py").write_text("WORDS = 3")
    (home / "other").mkdir()
    return home / "models"


def placed(users: Path, into: Path) -> tuple[str, ...]:
    repository = ModelRepository.open(users)
    return place_beside(repository, stage(repository, into / "served/repository"))


def write(users: Path, code: str) -> None:
    (users / "mlp/1/model.py").write_text(code)


def test_what_code_names_is_beside_the_copy_and_written_there_alone(users: Path, tmp_path: Path) -> None:
    write(users, REACHING)
    assert placed(users, tmp_path) == ("common",)
    reached = tmp_path / "served/repository/mlp/1/../../../common"
    assert (reached / "helpers.py").read_text() == "X = 1"
    assert (reached / "sub/words.txt").readlink() == users.parent / "common/sub/words.txt"
    (reached / "__pycache__").mkdir()
    assert not (users.parent / "common/__pycache__").exists()


@pytest.mark.parametrize("code", ["import common", "# nothing", "x = '../uncommon'", "x = '../models'"])
def test_what_no_code_reaches_for_is_left_where_it_is(users: Path, tmp_path: Path, code: str) -> None:
    write(users, code)
    assert placed(users, tmp_path) == ()
    assert [path.name for path in (tmp_path / "served").iterdir()] == ["repository"]


def test_a_file_is_a_link(users: Path, tmp_path: Path) -> None:
    write(users, 'open("../vocabulary.py")')
    assert placed(users, tmp_path) == ("vocabulary.py",)
    assert (tmp_path / "served/vocabulary.py").readlink() == users.parent / "vocabulary.py"


def test_a_large_folder_is_one_link(users: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "_MOST_ENTRIES", 2)
    write(users, REACHING)
    assert placed(users, tmp_path) == ("common",)
    assert (tmp_path / "served/common").readlink() == users.parent / "common"


def test_a_copy_that_lies_beside_the_repository_is_not_copied_into_itself(users: Path) -> None:
    write(users, "x = '../run'")
    assert placed(users, users.parent / "run") == ()


@pytest.mark.parametrize(
    ("message", "hint"),
    [
        ("ModuleNotFoundError: No module named 'shared_helpers'", "with nothing beside it"),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'x'", "with nothing beside it"),
        ("ValueError: no weights here", ""),
    ],
)
def test_a_file_that_is_missing_may_be_missing_in_the_copy_alone(message: str, hint: str) -> None:
    told = copy_hint(message, ())
    assert (hint in told) if hint else not told
    assert "with only common, words beside it" in copy_hint("No module named 'x'", ("common", "words"))
