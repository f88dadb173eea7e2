"""Nights on the example repository: does a night improve, keep, and tell a slower model, and never make it worse?

    python benchmarks/nightly.py twice      improves and applies, then keeps
    python benchmarks/nightly.py slower     the model is made 30 % slower by a sleep between two nights: exit code 20
    python benchmarks/nightly.py noise      --runs nights beside a neighbour that comes and goes; each config that took
                                            the place of another is measured against it once more, in turns, for 20 s
                                            each time, without the neighbour
    python benchmarks/nightly.py killed     SIGKILL at --kills random moments of nights that apply

Nothing here is simulated: each night is the command as cron would run it, on a copy of `examples/model_repository`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from tuner.config.config import ModelConfig
from tuner.core.quantities import parse_duration

_EXAMPLE = Path(__file__).parent.parent / "examples/model_repository"
_TRITONTUNE = str(Path(sys.executable).with_name("tritontune"))
_TURNS, _LOADS, _LOAD_S = 2, (2, 32, 64, 128), 5
_SLOWER = """\
    def execute(self, requests):
        began = time.perf_counter()
        answers = self.answer(requests)
        time.sleep(0.3 * (time.perf_counter() - began))
        return answers

    def answer(self, requests):
"""


def main() -> int:
    """Run one of the experiments; the exit status says whether it went as it must."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["twice", "slower", "noise", "killed"])
    parser.add_argument("--budget", default="60s")
    parser.add_argument("--p99", default="100ms", metavar="LIMIT", help="the SLO; near it, nothing is shown to hold it")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if options.what == "twice":
            good = _twice(place, options)
        elif options.what == "slower":
            good = _slower(place, options)
        elif options.what == "killed":
            good = _killed(place, options)
        else:
            results = [_noise(place / str(run), options, options.seed + run) for run in range(options.runs)]
            good = all(results)
    print("as it must be" if good else "NOT as it must be")
    return 0 if good else 1


def _twice(folder: Path, options: argparse.Namespace) -> bool:
    jobs = _prepare(folder, options, options.seed)
    codes = [_night(jobs)[0] for _ in range(2)]
    return codes == [10, 0]


def _slower(folder: Path, options: argparse.Namespace) -> bool:
    jobs = _prepare(folder, options, options.seed)
    _night(jobs)
    before = _config(folder).read_text()
    model = folder / "model_repository/mlp/1/model.py"
    text = model.read_text()
    slower = text.replace("    def execute(self, requests):\n", _SLOWER)
    if slower == text:
        raise AssertionError("the example's model is written otherwise than this expects")
    model.write_text(slower.replace("import numpy", "import time\n\nimport numpy", 1))
    code, report = _night(jobs)
    print(f"deployed before it: {'the same' if before == _config(folder).read_text() else 'another now'}")
    return code == 20 and bool(report["jobs"][0]["regression"])


def _noise(folder: Path, options: argparse.Namespace, seed: int) -> bool:
    jobs = _prepare(folder, options, seed)
    good = True
    for number in range(2):
        before = _config(folder).read_text()
        with _neighbour(seed):
            _night(jobs)
        after = _config(folder).read_text()
        if before == after:
            print(f"seed {seed}, night {number}: nothing was replaced")
            continue
        ratio = _again(folder, before, after, parse_duration(options.p99) * 1e3)
        good = good and ratio > 1
        print(f"seed {seed}, night {number}: what was put in place measures {ratio:.2f} x what was there")
    return good


def _killed(folder: Path, options: argparse.Namespace) -> bool:
    jobs, dice = _prepare(folder, options, options.seed), random.Random(options.seed)  # noqa: S311 (no secret)
    known = {_config(folder).read_text()}
    for kill in range(options.kills):
        process = subprocess.Popen(
            [_TRITONTUNE, "nightly", str(jobs)], stderr=subprocess.DEVNULL, start_new_session=True
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(dice.uniform(1, 100))
        process.send_signal(signal.SIGKILL)
        process.wait()
        text = _config(folder).read_text()
        ModelConfig.parse(text, "config.pbtxt")
        applied = text not in known
        if applied and not text.startswith("# tritontune: "):
            return False
        known.add(text)
        print(f"kill {kill}: the config is whole, {'a new one' if applied else 'as before'}")
    code, _ = _night(jobs)
    left = sorted(path.name for path in _config(folder).parent.glob(".config.pbtxt.*"))
    print(f"the night after: exit code {code}; unfinished files: {left or 'none'}")
    return code in {0, 10} and not left


def _prepare(folder: Path, options: argparse.Namespace, seed: int) -> Path:
    shutil.copytree(_EXAMPLE, folder / "model_repository")
    job = {
        "repository": str(folder / "model_repository"),
        "model": "mlp",
        "slo": {"p99": options.p99},
        "budget": options.budget,
        "action": "apply",
        "seed": seed,
    }
    jobs = folder / "jobs.yaml"
    jobs.write_text(yaml.safe_dump({"window": "1h", "work": str(folder / "work"), "jobs": [job]}))
    return jobs


def _config(folder: Path) -> Path:
    return folder / "model_repository/mlp/config.pbtxt"


def _night(jobs: Path) -> tuple[int, dict[str, Any]]:
    began = time.monotonic()
    done = subprocess.run([_TRITONTUNE, "nightly", str(jobs), "--json"], text=True, stdout=subprocess.PIPE, check=False)
    report: dict[str, Any] = json.loads(done.stdout)
    print(f"exit code {done.returncode} after {time.monotonic() - began:.0f} s: {report['summary']}", flush=True)
    return done.returncode, report


def _again(folder: Path, before: str, after: str, limit_ms: float) -> float:
    """Throughput of one config over that of another, each at its own best load within the SLO, 20 s each, in turns."""
    rates: dict[str, list[float]] = {before: [], after: []}
    for turn in range(_TURNS):
        for text in (before, after) if turn % 2 else (after, before):
            rates[text].append(_best_rate(folder, text, limit_ms))
    return fmean(rates[after]) / fmean(rates[before])


def _best_rate(folder: Path, text: str, limit_ms: float) -> float:
    place = folder / "again"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(folder / "model_repository", place, ignore=shutil.ignore_patterns("*.bak-*"))
    (place / "mlp/config.pbtxt").write_text(text)
    loads = ",".join(map(str, _LOADS))
    command = [_TRITONTUNE, "measure", str(place), "--concurrency", loads, "--time", f"{_LOAD_S}s", "--json"]
    points = json.loads(subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout)["points"]
    held = [each["throughput"]["value"] for each in points if each["latency_ms"]["p99"]["value"] <= limit_ms]
    return max(held, default=0.0)


@contextlib.contextmanager
def _neighbour(seed: int) -> Iterator[None]:
    """A process that keeps a core busy for some seconds, and then not, and so on."""
    process = multiprocessing.get_context("spawn").Process(target=_burn, args=(seed,), daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def _burn(seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311 (no secret)
    while True:
        end = time.monotonic() + dice.uniform(1, 8)
        while time.monotonic() < end:
            sum(range(10_000))
        time.sleep(dice.uniform(1, 8))


if __name__ == "__main__":
    sys.exit(main())
