from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tuner.core import lease
from tuner.core.lease import Lease, own_lease

_GONE = 999_999_999
_ELSEWHERE = "0123abcd"


@pytest.fixture
def other_machine_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """In the place of this host's own."""
    monkeypatch.setattr(lease, "_MACHINE_ID", tmp_path / "machine-id")
    lease.host_id.cache_clear()
    yield tmp_path / "machine-id"
    lease.host_id.cache_clear()


def test_reads_what_it_writes() -> None:
    own = own_lease()
    assert Lease.parse(str(own)) == own
    assert Lease.parse(f"{own}-1") is None
    assert Lease.parse("4026531836-5-9") is None


def test_a_process_that_lives_holds_its_lease() -> None:
    assert not own_lease().abandoned


def test_a_process_that_has_ended_does_not() -> None:
    script = "from tuner.core.lease import own_lease; print(own_lease())"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True).stdout
    ended = Lease.parse(told.strip())
    assert ended is not None
    assert ended.abandoned


def test_a_pid_that_was_given_again_does_not_hold_it() -> None:
    assert replace(own_lease(), started=own_lease().started - 1).abandoned


def test_what_this_host_held_before_it_was_started_anew_is_abandoned(other_machine_id: Path) -> None:
    other_machine_id.write_text("4d1219c7c4c5404aaa1f6d2a48adfda4\n")
    # Whether or not another process has its pid and its start by now.
    assert replace(own_lease(), boot=_ELSEWHERE).abandoned
    assert replace(own_lease(), boot=_ELSEWHERE, pid=_GONE).abandoned


@pytest.mark.parametrize("change", [{"host": _ELSEWHERE, "boot": _ELSEWHERE}, {"namespace": 1}])
def test_what_another_host_or_container_holds_is_not_ours_to_judge(change: dict[str, object]) -> None:
    """Its pid may mean nothing here: it lives where we do not see it."""
    assert not replace(own_lease(), pid=_GONE, **change).abandoned  # type: ignore[arg-type]


@pytest.mark.parametrize("told", [None, "", "uninitialized\n"])
def test_where_nothing_tells_hosts_apart_no_other_boot_is_judged(told: str | None, other_machine_id: Path) -> None:
    if told is not None:
        other_machine_id.write_text(told)
    nameless = own_lease()
    assert not replace(nameless, boot=_ELSEWHERE, pid=_GONE).abandoned
    assert replace(nameless, pid=_GONE).abandoned


def test_copies_of_a_machine_are_told_apart_by_their_name(
    other_machine_id: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_machine_id.write_text("4d1219c7c4c5404aaa1f6d2a48adfda4\n")
    ours = own_lease()
    monkeypatch.setattr(socket, "gethostname", lambda: "its-copy")
    lease.host_id.cache_clear()
    assert not replace(ours, boot=_ELSEWHERE).abandoned
