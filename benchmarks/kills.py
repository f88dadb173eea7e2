"""What a run leaves when it is killed: SIGKILL at random moments, each followed by `--resume`.

Each round starts `tritontune run` in a folder of its own, kills it with SIGKILL at a moment drawn from the length of an
undisturbed run, and goes on with `tritontune run --resume` (or starts anew, where the run was killed before it had a
study). After the kill, every trial that the progress output reported as finished must be in the study. After the
resumed run, the study must be sound and complete, each earlier trial unchanged, front.json must parse and agree with
the study, and no process, folder or shared memory may be left of either run. Prints one line a fault, then a summary;
exits with 1 when there was any fault.

    python benchmarks/kills.py [--kills 100] [--triton PATH] [--parallel 2] [--seed 0]

`--triton` is a Triton for `--triton-path`; by default the fake one of `tuner.testing`. `--triton auto` takes what
tritontune finds, such as the one of the pip wheel.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tuner.measure.trial import TrialResult
from tuner.study.study import Study
from tuner.testing.installations import fake_installation
from tuner.testing.repositories import ModelRepositoryFactory, config_text

MODEL = "mlp"
TRIALS = 3
# Whatever a run started carries this variable, as its environment is inherited.
VARIABLE = "TRITONTUNE_KILLS"
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 (where the kernel has it)
RESUME_WITHIN_S = 180.0
# The kernel and the servers' guardians need a moment to end what a killed run has started.
GONE_WITHIN_S = 30.0


@dataclass
class Round:
    """One kill and what came of it.

    Attributes:
        number: Which round, from 0.
        folder: The round's own folder: model repository, run folder and TMPDIR.
        triton: Arguments that choose the Triton.
        faults: What was wrong, a line each.
        finished: How many trials were finished when the run was killed.
        phase: When the run was killed, in words.
    """

    number: int
    folder: Path
    triton: Sequence[str]
    faults: list[str] = field(default_factory=list)
    finished: int = 0
    phase: str = ""

    @property
    def out(self) -> Path:
        """The run folder."""
        return self.folder / "run"

    @property
    def tag(self) -> str:
        """The value of the variable that marks this round's processes."""
        return f"{os.getpid()}-{self.number}"

    def prepare(self) -> None:
        """Write the model repository and an empty TMPDIR."""
        repository = self.folder / "repository"
        repository.mkdir(parents=True)
        ModelRepositoryFactory(repository).add("slow", name=MODEL, config=config_text(sleep_ms=5))
        (self.folder / "tmp").mkdir()

    def start(self, *, resume: bool) -> subprocess.Popen[str]:
        """Start the run, or go on with it."""
        job = ["--resume"] if resume else [str(self.folder / "repository"), *self.triton, *JOB]
        return subprocess.Popen(
            [str(Path(sys.executable).with_name("tritontune")), "run", *job, "--out", str(self.out)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, VARIABLE: self.tag, "TMPDIR": str(self.folder / "tmp")},
            start_new_session=True,
        )

    def trials(self) -> tuple[TrialResult, ...]:
        """The finished trials of the study; none where the run has not made it yet."""
        database = self.out / "study.db"
        if not database.exists() or MODEL not in Study.models(database):
            return ()
        return Study.load(database, MODEL).trials

    def processes(self) -> list[psutil.Process]:
        """What this round has started and still runs."""
        return [process for process in psutil.process_iter() if _variable(process) == self.tag]

    def fault(self, text: str) -> None:
        """Note what is wrong."""
        self.faults.append(f"round {self.number} (killed {self.phase}): {text}")


JOB = (
    *("--slo", "p99=200ms", "--budget", "60s", "--trials", str(TRIALS), "--max-concurrency", "2"),
    *("--precision", "20%,50%", "--seed", "3", "--no-verify"),
)


def kill_and_resume(each: Round, after_s: float) -> Round:
    """Kill a run so many seconds after its start, resume it, and look at what is left."""
    run = each.start(resume=False)
    try:
        _, stderr = run.communicate(timeout=after_s)
    except subprocess.TimeoutExpired:
        run.send_signal(signal.SIGKILL)
        _, stderr = run.communicate()
    told = {int(number) for number in re.findall(r"^trial (\d+): ", stderr, re.MULTILINE)}
    try:
        before = each.trials()
    except Exception as error:  # noqa: BLE001 (whatever it is, it is this round's fault, and the others go on)
        each.phase = "with a broken study"
        each.fault(f"the study does not open: {error!r}")
        return each
    each.finished = len(before)
    each.phase = f"after {after_s:.2f} s, with {len(before)} trials"
    if missing := told - {trial.number for trial in before}:
        each.fault(f"trials {sorted(missing)} were reported as finished and are not in the study")
    _resume(each)
    _compare(each, before)
    _look_for_remains(each)
    return each


def _resume(each: Round) -> None:
    """Finish the run, by --resume where there is something to resume."""
    run = each.start(resume=(each.out / "study.db").exists() and (each.out / "job.yaml").exists())
    try:
        _, stderr = run.communicate(timeout=RESUME_WITHIN_S)
    except subprocess.TimeoutExpired:
        run.kill()
        _, stderr = run.communicate()
        each.fault(f"the resumed run did not end within {RESUME_WITHIN_S:.0f} s")
    if run.returncode != 0:
        each.fault(f"the resumed run exited with {run.returncode}: {stderr.strip().splitlines()[-1:]}")


def _compare(each: Round, before: Sequence[TrialResult]) -> None:
    """Look whether the study is sound, and holds all that it held."""
    try:
        after = each.trials()
        with closing(sqlite3.connect(each.out / "study.db")) as connection:
            (integrity,) = connection.execute("PRAGMA integrity_check").fetchone()
        front = json.loads((each.out / MODEL / "front.json").read_text(encoding="utf-8"), parse_constant=_refuse)
    except Exception as error:  # noqa: BLE001 (as above)
        each.fault(f"its results cannot be read: {error!r}")
        return
    if integrity != "ok":
        each.fault(f"the database is broken: {integrity}")
    if tuple(after[: len(before)]) != tuple(before):
        each.fault("a finished trial was lost or changed")
    numbers = [trial.number for trial in after]
    if numbers != list(range(TRIALS)):
        each.fault(f"the study holds the trials {numbers}")
    if front["budget"]["launches"] != TRIALS:
        each.fault(f"front.json tells of {front['budget']['launches']} launches")


def _look_for_remains(each: Round) -> None:
    """Look for processes, temporary folders, shared memory and work of the run."""
    for text, remains in (
        ("processes are left", lambda: [f"{process.pid} {process.name()}" for process in each.processes()]),
        ("temporary files are left", lambda: sorted(path.name for path in (each.folder / "tmp").iterdir())),
        ("work is left", lambda: [path.name for path in each.out.glob(".*") if path.name != ".lock"]),
    ):
        if left := _what_stays(remains):
            each.fault(f"{text}: {left}")


def _what_stays(remains: Callable[[], list[str]]) -> list[str]:
    """What is still there after a while."""
    end = time.monotonic() + GONE_WITHIN_S
    while (left := _unless_gone(remains)) and time.monotonic() < end:
        time.sleep(0.1)
    return left


def _unless_gone(remains: Callable[[], list[str]]) -> list[str]:
    with suppress(psutil.NoSuchProcess, FileNotFoundError):
        return remains()
    return ["(changing)"]


def _variable(process: psutil.Process) -> str | None:
    with suppress(psutil.Error, OSError):
        if process.status() != psutil.STATUS_ZOMBIE:
            return process.environ().get(VARIABLE)
    return None


def _refuse(constant: str) -> None:
    raise ValueError(f"front.json holds {constant}, which JSON does not know")


def rounds(count: int, folder: Path, triton: Sequence[str]) -> Iterator[Round]:
    """Prepared rounds, each in a folder of its own."""
    for number in range(count):
        each = Round(number, folder / f"{number:03d}", triton)
        each.prepare()
        yield each


def undisturbed_s(each: Round) -> float:
    """Run to the end, and return how long that took."""
    began = time.monotonic()
    run = each.start(resume=False)
    _, stderr = run.communicate(timeout=RESUME_WITHIN_S)
    if run.returncode != 0:
        sys.exit(f"kills.py: the undisturbed run failed: {stderr}")
    each.phase = "never"
    _compare(each, ())
    _look_for_remains(each)
    if each.faults:
        sys.exit("\n".join(each.faults))
    return time.monotonic() - began


def shared_memory() -> set[str]:
    """The names of all shared memory on this machine that tritontune or a Triton of its made."""
    return {path.name for path in SHARED_MEMORY.iterdir() if path.name.startswith("tritontune")}


def main() -> int:
    """Kill, resume, compare; print what was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--triton", default="fake", help="fake, auto, or a path for --triton-path")
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)  # noqa: S311 (moments, not keys)
    before = shared_memory()
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    try:
        triton = _triton_arguments(arguments.triton, folder)
        (first, *others) = rounds(arguments.kills + 1, folder, triton)
        length_s = undisturbed_s(first)
        print(f"an undisturbed run takes {length_s:.1f} s", flush=True)
        moments_s = [draw.uniform(0.0, length_s * max(1.0, arguments.parallel / 1.5)) for _ in others]
        with ThreadPoolExecutor(arguments.parallel) as pool:
            done = []
            for each in pool.map(kill_and_resume, others, moments_s):
                done.append(each)
                for fault in each.faults:
                    print(fault, flush=True)
        faults = sum(len(each.faults) for each in done)
        if left := shared_memory() - before:
            faults += 1
            print(f"shared memory is left: {sorted(left)}")
        counts = Counter(each.finished for each in done)
        told = ", ".join(f"{counts[number]} with {number}" for number in range(TRIALS + 1))
        print(f"{len(done)} kills ({told} finished trials), {faults} faults")
        return 1 if faults else 0
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _triton_arguments(choice: str, folder: Path) -> tuple[str, ...]:
    if choice == "auto":
        return ("--server", "process")
    path = fake_installation(folder / "fake").root if choice == "fake" else Path(choice)
    return ("--server", "process", "--triton-path", str(path))


if __name__ == "__main__":
    sys.exit(main())
