"""`make service-demo`: starts the service, submits a job over its API, and prints the front that it finds.

Everything is in a temporary folder, which is removed at the end, also after Ctrl-C.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from tuner.client import Client
from tuner.client.event_lines import EventLines, load_in_words, result_in_words
from tuner.client.resources import Front, Submission
from tuner.core.errors import ServiceError
from tuner.core.quantities import format_ms, format_number
from tuner.jobs.events import Event

_REPOSITORY = Path(__file__).parent / "model_repository"
_TRITONTUNE = Path(sys.executable).with_name("tritontune")
_END_S = 60.0


def main() -> int:
    """Run the demo. Returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", default="75s", help="time for tuning the model (default: 75s)")
    budget = parser.parse_args().budget
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="tritontune-service-demo-"))
    shutil.copytree(_REPOSITORY, folder / "model_repository")
    try:
        with _service(folder) as login, Client(_address(login), data=folder / "data") as client:
            return _demo(client, folder / "model_repository", login, budget)
    except KeyboardInterrupt:
        print("interrupted: the job and the service have ended", file=sys.stderr)
        return 130
    except ServiceError as error:
        print(f"service-demo: {error}. The log of the service:", file=sys.stderr)
        print((folder / "log").read_text("utf-8", "replace"), file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _service(folder: Path) -> Iterator[str]:
    """Run the service on a free port. Yields the line with the address to log in."""
    command: list[str | Path] = [_TRITONTUNE, "serve", "--data", folder / "data", "--listen", "127.0.0.1:0"]
    with (
        (folder / "log").open("wb") as log,
        # In a session of its own: at Ctrl-C, its job must be cancelled before it ends.
        subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
        ) as service,
    ):
        try:
            assert service.stdout is not None  # noqa: S101 (it is a pipe)
            yield _login(service.stdout)
        finally:
            service.terminate()
            with suppress(subprocess.TimeoutExpired):
                service.wait(_END_S)
            service.kill()


def _login(lines: IO[str]) -> str:
    """The line with the address to log in. Later lines are read by a thread, so that the service never waits.

    Raises:
        ServiceError: the service has ended before.
    """
    for line in lines:
        print(line, end="", flush=True)
        if line.startswith("log in: "):
            threading.Thread(target=lines.read, daemon=True).start()
            return line.strip()
    raise ServiceError("the service did not start")


def _address(login: str) -> str:
    """The address of the service in the line with the address to log in."""
    return login.removeprefix("log in: ").partition("/login")[0]


def _demo(client: Client, repository: Path, login: str, budget: str) -> int:
    """Submit a job, print its events, its results and its front, and say what to do next."""
    options = {"repository": str(repository), "slo": {"p99": "100ms"}, "budget": budget}
    job = client.submit(Submission(job=options))
    lines = EventLines(job.id)

    def told(event: Event) -> None:
        if line := lines.of(event):
            print(line, flush=True)

    try:
        ended = client.wait(job.id, told=told)
    except BaseException:
        print("cancelling the job", file=sys.stderr)
        client.cancel(job.id)
        client.wait(job.id)
        raise
    print()
    for result in ended.results:
        for line in result_in_words(result):
            print(line)
    _print_front(client.front(job.id))
    print(f"\ndashboard: {client.page(f'jobs/{job.id}')}")
    if sys.stdin.isatty() and sys.stdout.isatty():
        input(f"{login}\nPress Enter to stop the service. ")
    print(
        "The service has ended. To keep one, in the folder of your model repository:\n"
        "  tritontune serve\n"
        "  tritontune submit job.yaml --wait    # in another terminal"
    )
    return ended.exit_code or 0


def _print_front(front: Front) -> None:
    print(f"front ({f'SLO {front.slo}' if front.slo else 'no SLO'}):")
    for point in front.points:
        mark = "*" if point.best else " "
        latency = f"{point.percentile} {format_ms(point.latency_ms.value)}"
        rate = f"{format_number(point.throughput.value)} inferences/s"
        print(f" {mark} {rate:>20}  {latency:>14} {load_in_words(point.load)} (trial {point.trial})")
    if any(point.best for point in front.points):
        print(" * the best config")


if __name__ == "__main__":
    sys.exit(main())
