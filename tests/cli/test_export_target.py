from __future__ import annotations

from pathlib import Path

import pytest

from tuner.cli.export_target import Target
from tuner.core.errors import JobError


@pytest.mark.parametrize(
    ("to", "format_name", "expected"),
    [
        (None, None, Target()),
        (None, "configmap", Target("configmap")),
        ("a.pbtxt", None, Target("pbtxt", file=Path("a.pbtxt"))),
        ("a.json", None, Target("json", file=Path("a.json"))),
        ("a.yml", "configmap", Target("configmap", file=Path("a.yml"))),
        ("a", "pbtxt", Target(folder=Path("a"))),
        ("a.v2", None, Target(folder=Path("a.v2"))),
    ],
)
def test_where_and_in_which_form(to: str | None, format_name: str | None, expected: Target) -> None:
    assert Target.of(Path(to) if to else None, format_name, in_place=False) == expected


def test_a_folder_is_a_folder_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "models.yaml").mkdir()
    assert Target.of(tmp_path / "models.yaml", None, in_place=False).folder == tmp_path / "models.yaml"


@pytest.mark.parametrize(
    ("to", "format_name", "in_place", "complaint"),
    [
        ("x", None, True, "use either --to or --in-place, not both"),
        (None, "json", True, "--format json: cannot be used with --in-place, which writes a config.pbtxt"),
        ("x", "json", False, "--format json: needs --to a file, such as x.json; a model folder holds a config.pbtxt"),
        (
            "x",
            "configmap",
            False,
            "--format configmap: needs --to a file, such as x.yaml; a model folder holds a config.pbtxt",
        ),
        ("x.json", "pbtxt", False, "--to x.json: its suffix means json, but --format is pbtxt"),
        ("x.pbtx", None, False, "--to x.pbtx: the suffix of a file must be one of .pbtxt, .json, .yaml, .yml"),
        ("x.txt", None, False, "--to x.txt: the suffix of a file must be one of .pbtxt, .json, .yaml, .yml"),
        (None, "jsn", False, "--format: unknown format 'jsn'; did you mean 'json'?"),
    ],
)
def test_what_makes_no_sense(to: str | None, format_name: str | None, *, in_place: bool, complaint: str) -> None:
    with pytest.raises(JobError) as raised:
        Target.of(Path(to) if to else None, format_name, in_place=in_place)
    assert str(raised.value) == complaint
