from __future__ import annotations

from pathlib import Path

import pytest

from tuner.options.mounts import UserMount, parse_mount


def test_a_folder_and_a_volume() -> None:
    assert parse_mount("/a/b:/c") == UserMount("bind", "/a/b", "/c", writable=True)
    assert parse_mount("./b:/c:ro") == UserMount("bind", str(Path.cwd() / "b"), "/c", writable=False)
    assert parse_mount("~/b:/c:rw").source == str(Path.home() / "b")
    assert parse_mount("weights:/c:ro") == UserMount("volume", "weights", "/c", writable=False)


def test_as_docker_run_reads_it() -> None:
    assert str(parse_mount("/a:/c:ro")) == "type=bind,source=/a,target=/c,readonly"
    assert str(parse_mount('/a,b "c":/c')) == 'type=bind,"source=/a,b ""c""",target=/c'


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("/a", "'/a' is not a mount; write it as SRC:DST or SRC:DST:ro"),
        ("/a:/b:rx", "is not a mount; write it as"),
        (":/b", "is not a mount; write it as"),
        ("/a:b", "b is not an absolute path in the container"),
        ("my weights:/b", "my weights is not a volume name; write a folder with a slash, such as ./my weights"),
    ],
)
def test_says_what_would_be_right(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_mount(text)
