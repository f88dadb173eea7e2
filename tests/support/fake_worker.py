"""A process of a job that acts as the job's options say. It imports nothing of ours, and so starts in 20 ms.

The option `act` lists what it does, one after the other, and `act 2` in its second attempt:
    running, succeed, fail: it writes that state
    hold:                   it waits for the file `go` in its folder
    deaf:                   from here on it ignores SIGTERM
    crash:                  it ends without a word
    spawn:                  it starts processes that outlive it
    linger:                 it waits, for ever
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

_STATES: dict[str, tuple[str, int | None]] = {
    "running": ("running", None),
    "succeed": ("succeeded", 0),
    "fail": ("failed", 1),
}


def main() -> None:
    """Act."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lock", type=int)
    parser.add_argument("--lease")  # that of the test, for the parts that say which machine it is
    given = parser.parse_args()
    os.set_inheritable(given.lock, False)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    started = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    host, namespace, *_ = given.lease.split("-")
    lease = f"{host}-{namespace}-{os.getpid()}-{started}"
    os.environ["TRITONTUNE_JOB"] = lease
    unfinished = given.folder / ".lease.new"
    unfinished.write_text(lease)
    unfinished.rename(given.folder / ".lease")
    sys.stdout.write(f"secrets: {sys.stdin.read()}\n")
    sys.stdout.flush()
    job = json.loads((given.folder / "submission.json").read_text())["job"]["job"]
    attempt = max(event["attempt"] for event in _events(given.folder) if event["type"] == "state")
    for word in job.get(f"act {attempt}", job["act"]):
        if word in _STATES:
            state, code = _STATES[word]
            _append(given.folder, type="state", state=state, attempt=attempt, exit_code=code)
        elif word == "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        elif word == "crash":
            os._exit(7)
        elif word == "spawn":
            for own_session in (False, True):
                subprocess.Popen(["sleep", "600"], start_new_session=own_session)
        while word in {"hold", "linger"} and (word == "linger" or not (given.folder / "go").exists()):
            time.sleep(0.005)


def _events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def _append(folder: Path, **fields: Any) -> None:
    with (folder / "events.jsonl").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        events = _events(folder)
        if not any(event.get("exit_code") is not None for event in events):
            at = datetime.now(timezone.utc).isoformat()
            file.write(json.dumps({"seq": len(events) + 1, "at": at, **fields}, separators=(",", ":")) + "\n")
            file.flush()


if __name__ == "__main__":
    main()
