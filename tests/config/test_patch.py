"""What a candidate sets: arguments beside the user's, and the files of a patch."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuner.config.diff import name_lines, patch_diff
from tuner.config.patch import Patch, argument_name, patch_files, write_patch
from tuner.config.repository import ModelRepository
from tuner.config.staging import StagedRepository, stage
from tuner.core.errors import RepositoryError

PATCH = Patch(
    config="max_batch_size: 8\n",
    files={"mlp/1/model.json": '{"n": 1}\n', "encoder/config.pbtxt": "max_batch_size: 4\n"},
    server_args={"--http-thread-count": "4", "--rate-limit": None},
    env={"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": None},
)


@pytest.mark.parametrize(
    ("argument", "name"),
    [
        ("--http-thread-count=4", "--http-thread-count"),
        ("--log-verbose", "--log-verbose"),
        ("--backend-config=python,shm-default-byte-size=1", "--backend-config=python,shm-default-byte-size"),
        ("--host-policy=node0,numa-node=0", "--host-policy=node0,numa-node"),
        ("--cache-config=local,size=1", "--cache-config=local,size"),
        ("--cuda-memory-pool-byte-size=0:1024", "--cuda-memory-pool-byte-size"),
        ("--rate-limit-resource=R:4,5", "--rate-limit-resource"),
    ],
)
def test_the_name_of_an_argument(argument: str, name: str) -> None:
    assert argument_name(argument) == name


def test_a_patch_replaces_the_users_arguments_of_its_names_alone() -> None:
    given = ("--http-thread-count=8", "--log-verbose", "--rate-limit=execution_count")
    assert PATCH.arguments(given) == ("--log-verbose", "--http-thread-count=4")
    assert Patch(server_args={"--log-verbose": ""}).arguments(given)[-1] == "--log-verbose"


def test_the_files_of_a_patch(tmp_path: Path) -> None:
    write_patch(tmp_path, "mlp", PATCH)
    written = {str(p.relative_to(tmp_path)): p.read_text() for p in tmp_path.rglob("*") if p.is_file()}
    assert written == {
        "config.pbtxt": "max_batch_size: 8\n",
        "1/model.json": '{"n": 1}\n',
        "other_models/encoder/config.pbtxt": "max_batch_size: 4\n",
        "server.args": "--http-thread-count=4\n",
        "server.env": "OMP_NUM_THREADS=1\n",
    }
    assert patch_files("mlp", Patch(config="x")) == {"config.pbtxt": "x"}


def test_a_patch_differs_in_what_it_changes() -> None:
    other = PATCH.model_copy(
        update={"files": {**PATCH.files, "mlp/1/model.json": "{}"}, "env": {"OMP_NUM_THREADS": "2"}}
    )
    changed = other.changed_from(PATCH)
    assert changed == Patch(config=PATCH.config, files={"mlp/1/model.json": "{}"}, env={"OMP_NUM_THREADS": "2"})
    assert Patch(config="x").beyond_config == Patch(config="y").beyond_config == ""
    assert PATCH.beyond_config != other.beyond_config


def test_the_diff_of_a_patch() -> None:
    after = Patch(
        config="max_batch_size: 16\n",
        files={**PATCH.files, "mlp/1/model.json": '{"n": 2}\n'},
        server_args={"--http-thread-count": None, "--rate-limit": ""},
        env={"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": None},
    )
    diff = patch_diff(PATCH, after, "mlp")
    assert diff.splitlines() == [
        "--- mlp/config.pbtxt\tbefore",
        "+++ mlp/config.pbtxt\tafter",
        "@@ -1 +1 @@",
        "-max_batch_size: 8",
        "+max_batch_size: 16",
        "--- mlp/1/model.json\tbefore",
        "+++ mlp/1/model.json\tafter",
        "@@ -1 +1 @@",
        '-{"n": 1}',
        '+{"n": 2}',
        "# argument --http-thread-count: 4 -> not set",
        "# argument --rate-limit: not set -> set",
        "# variable OMP_NUM_THREADS: 1 -> 2",
    ]
    assert name_lines(diff.splitlines()) == {0, 1, 5, 6}
    assert patch_diff(PATCH, PATCH, "mlp") == ""


def test_the_settings_of_a_patch_in_words() -> None:
    assert PATCH.settings_in_words() == [
        "start tritonserver with --http-thread-count=4",
        "start tritonserver without --rate-limit",
        "set the environment variable OMP_NUM_THREADS=1",
    ]


@pytest.fixture
def copy(tmp_path: Path) -> StagedRepository:
    for name, files in {"mlp": ("config.pbtxt", "1/model.json"), "encoder": ("1/weights",)}.items():
        for file in files:
            path = tmp_path / "models" / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"own {file}" if file != "config.pbtxt" else "max_batch_size: 1")
    return stage(ModelRepository.open(tmp_path / "models"), tmp_path / "copy")


def _texts(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def test_a_patch_is_staged_and_the_next_one_undoes_what_it_does_not_name(
    copy: StagedRepository, tmp_path: Path
) -> None:
    own = _texts(tmp_path / "models")
    copy.apply("mlp", PATCH)
    assert _texts(copy.path) == {**own, "mlp/config.pbtxt": PATCH.config, **PATCH.files}
    assert _texts(tmp_path / "models") == own
    copy.apply("mlp", Patch(config="max_batch_size: 2", files={"mlp/1/model.json": "{}"}))
    assert _texts(copy.path) == {**own, "mlp/config.pbtxt": "max_batch_size: 2", "mlp/1/model.json": "{}"}
    copy.apply("mlp", Patch())
    assert _texts(copy.path) == {name: text for name, text in own.items() if name != "mlp/config.pbtxt"}
    assert _texts(tmp_path / "models") == own


def test_a_patch_of_a_model_that_is_not_there_is_an_error(copy: StagedRepository) -> None:
    with pytest.raises(RepositoryError, match=r"no model 'encodr'; did you mean 'encoder'\?$"):
        copy.apply("mlp", Patch(files={"encodr/config.pbtxt": ""}))
