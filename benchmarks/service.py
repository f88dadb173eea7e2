"""The service under load: lists and details with many stored jobs, its memory, and the time to the first trial.

    python benchmarks/service.py [--jobs 10000] [--rate 50] [--seconds 20] [--database URL] [--no-triton]

Stores jobs with their folders, starts `tritontune serve` on them, and asks for lists, details, fronts and pages of the
dashboard at a fixed rate. The time of a request counts from when it should have been sent. Then it submits jobs for the
example repository to the Triton of the wheel nvidia-pytriton, and waits for the first trial of each.
"""

from __future__ import annotations

import argparse
import itertools
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import psutil
import urllib3

from tuner.client.client import Client
from tuner.client.resources import Job, JobProgress, ModelResult, Submission
from tuner.core.record import Interval
from tuner.jobs.event_log import EventLog
from tuner.jobs.events import ModelBegan, StateChanged, TrialBegan, TrialEnded
from tuner.service.job_folder import JobFolder, SubmissionRecord
from tuner.service.store.index import Index, IndexedJob
from tuner.service.store.store import Store

_GOAL_P95_MS, _GOAL_MB, _GOAL_FIRST_S = 50.0, 300.0, 3.0
_ROOT = Path(__file__).parent.parent
_MODELS = ("mlp", "ranker", "detector", "tagger", "embedder")
_ENDED = datetime(2026, 1, 1, tzinfo=timezone.utc)
# Jobs with trials, whose details are looked at; each has so many.
_WITH_TRIALS, _TRIALS, _POINTS = 50, 40, 10
_WORKERS = 32


def main() -> None:
    """Print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=50.0, help="requests/s")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--database", help="URL; default: SQLite")
    parser.add_argument("--no-triton", action="store_true", help="do not submit a job")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(_ROOT / "examples/model_repository", folder / "model_repository")
        data = folder / "data"
        url = options.database or f"sqlite:///{data / 'service.db'}"
        began = time.perf_counter()
        _store_jobs(data, url, options.jobs)
        print(f"{options.jobs:,} jobs stored in {time.perf_counter() - began:.1f} s")
        began = time.perf_counter()
        with _service(folder, options.database) as (process, address, login):
            with Client(address, data=data) as client:
                client.job(1)
            print(f"the service starts in {time.perf_counter() - began:.1f} s")
            token = (data / "admin.token").read_text().strip()
            watch = _Memory(psutil.Process(process.pid))
            before = sum(watch.process.cpu_times()[:2])
            with watch:
                _load(address, token, login, jobs=options.jobs, rate=options.rate, seconds=options.seconds)
            took_s = sum(watch.process.cpu_times()[:2]) - before
            print(f"processor time of the service: {1000 * took_s / (options.rate * options.seconds):.1f} ms a request")
            print(f"memory of the service: {watch.most_mb:.0f} MB at most (goal: under {_GOAL_MB:.0f} MB)")
            if not options.no_triton:
                with Client(address, data=data) as client:
                    for number in range(1, 4):
                        _submit(client, folder / "model_repository", number)


@dataclass
class _Memory:
    """Watches the memory of a process (PSS)."""

    process: psutil.Process
    most_mb: float = 0.0

    def __enter__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.5):
            self.most_mb = max(self.most_mb, self.process.memory_full_info().pss / 1e6)


def _store_jobs(data: Path, url: str, count: int) -> None:
    rng = random.Random(0)  # noqa: S311 (no secret)
    jobs = []
    for number in range(1, count + 1):
        job = _job(number, count, rng)
        folder = JobFolder.of(data / "jobs", number)
        folder.path.mkdir(parents=True)
        # Not by `write`, which waits for the disk.
        folder.submission.write_text(SubmissionRecord(job=job.model_copy(update={"state": "queued"})).model_dump_json())
        (folder.path / ".ended").touch()
        if number > count - _WITH_TRIALS:
            _write_events(folder, rng)
        else:
            folder.events.write_text("")
        jobs.append(IndexedJob(job, None, None))
    with Store.opened(url, data=data) as store:
        store.add_index(Index(jobs, last_job=count))


def _job(number: int, count: int, rng: random.Random) -> Job:
    model = rng.choice(_MODELS)
    speed = rng.uniform(500, 5000)
    at = _ENDED - timedelta(hours=count - number)
    result = ModelResult(
        model=model,
        trial=rng.randrange(40),
        throughput=Interval(value=speed, low=0.98 * speed, high=1.02 * speed),
        latency_ms=Interval(value=20, low=19, high=21),
        percentile="p99",
        gain=Interval(value=1.4, low=1.35, high=1.45),
        verified=True,
    )
    return Job(
        id=number,
        kind=rng.choice(("tune", "nightly")),
        state=rng.choices(("succeeded", "failed", "cancelled"), (90, 7, 3))[0],
        reason="",
        models=(model,),
        repository="/models",
        slo="p99 <= 40 ms",
        submitted_by=rng.choice(("ann", "ci")),
        created_at=at,
        started_at=at,
        ended_at=at + timedelta(minutes=12),
        host="gpu-1",
        progress=JobProgress(trials=40, points=400, budget_s=600),
        results=(result,),
        job={"repository": "/models", "model": model, "slo": {"p99": "40ms"}, "budget": "10m"},
    )


def _write_events(folder: JobFolder, rng: random.Random) -> None:
    log = EventLog(folder.path)
    log.append(StateChanged, state="queued")
    log.append(StateChanged, state="running")
    log.append(ModelBegan, model="mlp", slo="p99 <= 40 ms", percentile="p99", objective="throughput", budget_s=600.0)
    for trial in range(_TRIALS):
        log.append(TrialBegan, model="mlp", trial=trial, candidate=f"instance_group.count {1 + trial % 4}")
        points = tuple(_point(2**load, rng) for load in range(_POINTS))
        parameters = {"instance_group.count": 1 + trial % 4}
        log.append(TrialEnded, model="mlp", trial=trial, parameters=parameters, points=points, wall_s=9.0)
    log.append(StateChanged, state="succeeded", exit_code=0)


def _point(concurrency: int, rng: random.Random) -> dict[str, object]:
    speed = 400 * concurrency**0.6 * rng.uniform(0.9, 1.1)
    late = 1000 * concurrency / speed

    def interval(value: float) -> dict[str, float]:
        return {"value": value, "low": 0.97 * value, "high": 1.03 * value}

    latency = {name: interval(late * factor) for name, factor in (("p50", 1), ("p90", 1.3), ("p95", 1.5), ("p99", 2))}
    return {
        "load": {"concurrency": concurrency},
        "throughput": interval(speed),
        "latency_ms": latency,
        "objective_value": interval(speed),
        "answered": True,
        "verified": False,
    }


@contextmanager
def _service(folder: Path, database: str | None) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """The service, its address, and the address to log in."""
    command = [str(Path(sys.executable).with_name("tritontune")), "serve", "--data", "data", "--listen", "127.0.0.1:0"]
    command += ["--database", database] if database else []
    with (folder / "service.log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True)
        assert process.stdout is not None  # noqa: S101 (it is a pipe)
        address = process.stdout.readline().rpartition(" ")[2].strip()
        login = process.stdout.readline().split()[2]
        try:
            yield process, address, login
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)


def _load(address: str, token: str, login: str, *, jobs: int, rate: float, seconds: float) -> None:
    """Offer a fixed rate of requests; print their times."""
    pool = urllib3.PoolManager(maxsize=_WORKERS, block=False, timeout=30, retries=False)
    cookie = pool.request("GET", login, redirect=False).headers["set-cookie"].partition(";")[0]
    bearer = {"Authorization": f"Bearer {token}"}
    rng = random.Random(1)  # noqa: S311 (no secret)

    def asked(number: int) -> tuple[str, str, dict[str, str]]:
        newest = rng.randrange(jobs - _WITH_TRIALS + 1, jobs + 1)
        kinds: tuple[tuple[str, str, dict[str, str]], ...] = (
            ("list", "/api/v1/jobs?limit=50", bearer),
            ("list by model", f"/api/v1/jobs?limit=50&model={rng.choice(_MODELS)}&state=failed", bearer),
            ("list by text", "/api/v1/jobs?limit=50&text=ranker%20failed", bearer),
            ("details", f"/api/v1/jobs/{rng.randrange(1, jobs + 1)}", bearer),
            ("details", f"/api/v1/jobs/{rng.randrange(1, jobs + 1)}", bearer),
            ("trials", f"/api/v1/jobs/{newest}/trials?limit=50", bearer),
            ("front", f"/api/v1/jobs/{newest}/front", bearer),
            ("page: jobs", "/jobs", {"Cookie": cookie}),
            ("page: a job", f"/jobs/{newest}", {"Cookie": cookie}),
            ("page: overview", "/", {"Cookie": cookie}),
        )
        return kinds[number % len(kinds)]

    took: dict[str, list[float]] = defaultdict(list)
    began = time.perf_counter() + 0.5

    def ask(number: int) -> None:
        kind, path, headers = asked(number)
        at = began + number / rate
        time.sleep(max(0.0, at - time.perf_counter()))
        response = pool.request("GET", address + path, headers=headers, redirect=False)
        if response.status != 200:
            raise RuntimeError(f"{path}: status {response.status}")
        took[kind].append(1000 * (time.perf_counter() - at))

    with ThreadPoolExecutor(_WORKERS) as workers:
        for _ in workers.map(ask, range(round(rate * seconds))):
            pass
    print(f"{rate:g} requests/s for {seconds:g} s, in ms:")
    print(f"{'':16}{'requests':>9}{'p50':>8}{'p95':>8}{'p99':>8}")
    everything = list(itertools.chain.from_iterable(took.values()))
    for kind, times in (*took.items(), ("all", everything)):
        p50, p95, p99 = np.percentile(times, (50, 95, 99))
        print(f"{kind:16}{len(times):9,}{p50:8.1f}{p95:8.1f}{p99:8.1f}")
    print(f"goal: p95 under {_GOAL_P95_MS:.0f} ms")


def _submit(client: Client, repository: Path, number: int) -> None:
    began = time.perf_counter()
    job = client.submit(
        Submission(job={"repository": str(repository), "model": "mlp", "slo": {"p99": "100ms"}, "budget": "10s"})
    )
    for event in client.events(job.id):
        if isinstance(event, TrialBegan):
            first_s = time.perf_counter() - began
            print(f"job {number}: first trial after {first_s:.1f} s (goal: under {_GOAL_FIRST_S:.0f} s)")
            break
    client.cancel(job.id)
    client.wait(job.id)


if __name__ == "__main__":
    main()
