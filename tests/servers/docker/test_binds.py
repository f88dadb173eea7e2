from pathlib import Path

import pytest

from tuner.servers.docker.binds import Bind, binds_of


@pytest.fixture
def user(tmp_path: Path) -> Path:
    folder = tmp_path / "user"
    folder.mkdir()
    return folder


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    folder = tmp_path / "staged"
    (folder / "mlp" / "1").mkdir(parents=True)
    return folder


def write(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("weights")
    return path


def link(path: Path, target: Path | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)
    return path


def read_only(*folders: Path) -> set[Bind]:
    return {Bind(folder, folder) for folder in folders}


def behind(staged: Path) -> set[Bind]:
    first, *others = binds_of(staged)
    assert first == Bind(staged, staged, writable=True)
    assert len(others) == len(set(others))
    return set(others)


def test_a_repository_without_links_is_all_that_is_seen(staged: Path) -> None:
    write(staged / "mlp" / "1" / "model.py")
    assert behind(staged) == set()


def test_the_folder_of_a_linked_file_is_seen_where_it_is(staged: Path, user: Path) -> None:
    link(staged / "mlp" / "1" / "model.py", write(user / "mlp" / "1" / "model.py"))
    link(staged / "mlp" / "1" / "weights.npy", write(user / "mlp" / "1" / "weights.npy"))
    assert behind(staged) == read_only(user / "mlp" / "1")


def test_a_folder_within_another_is_not_named_again(staged: Path, user: Path) -> None:
    link(staged / "mlp" / "labels.txt", write(user / "mlp" / "labels.txt"))
    link(staged / "mlp" / "1" / "model.py", write(user / "mlp" / "1" / "model.py"))
    link(staged / "mlp-b" / "1" / "model.py", write(user / "mlp-b" / "1" / "model.py"))
    link(staged / "other" / "1" / "model.py", write(user / "other" / "1" / "model.py"))
    assert behind(staged) == read_only(user / "mlp", user / "mlp-b" / "1", user / "other" / "1")


def test_of_a_folder_right_below_the_root_only_the_file_is_seen(staged: Path) -> None:
    link(staged / "mlp" / "1" / "hosts", "/etc/hosts")
    assert behind(staged) == read_only(Path("/etc/hosts"))


@pytest.mark.parametrize("target", ["/nowhere/model.py", "model.py"], ids=["dangling", "circular"])
def test_a_link_to_nowhere_is_left_to_the_server_to_complain_about(staged: Path, target: str) -> None:
    link(staged / "mlp" / "1" / "model.py", target)
    assert behind(staged) == set()


def test_a_bind_reads_as_docker_run_wants_it() -> None:
    assert str(Bind(Path("/a/b"), Path("/c"))) == "type=bind,source=/a/b,target=/c,readonly"
    assert str(Bind(Path("/a"), Path("/a"), writable=True)) == "type=bind,source=/a,target=/a"


def test_a_repository_whose_path_would_need_quotes_is_seen_elsewhere(tmp_path: Path) -> None:
    staged = tmp_path / "my models; all of them"
    (bind,) = binds_of(staged)
    assert bind.source == staged
    assert " " not in str(bind.target)
    assert bind.writable
