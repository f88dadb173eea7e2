"""`tritontune measure`: throughput and latency of a model as it is."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from tuner import deadlines
from tuner.errors import JobError, nearest
from tuner.job import TuneJob
from tuner.measure.level import LevelRules
from tuner.measure.points import OperatingPoint
from tuner.measure.session import Session, open_session
from tuner.models.repository import ModelFolder, ModelRepository
from tuner.models.staging import stage
from tuner.report.console import results_console
from tuner.report.files import point_json
from tuner.report.words import point_in_words, points_table
from tuner.servers.choose import choose_launcher
from tuner.servers.client import TritonClient
from tuner.servers.protocols import Launch


def measure(
    repository: str | None, url: str | None, concurrency: str, options: Mapping[str, Any], *, as_json: bool
) -> None:
    """Measure a model at each concurrency, and print a table or JSON.

    Args:
        repository: A model repository to serve; or
        url: The gRPC address of a server that runs.
        concurrency: As `1,8,64`.
        options: The command line's others, by the names of `TuneJob`; `model` is a single name.
        as_json: Print JSON and nothing else on stdout.

    Raises:
        TritontuneError: with the exit code that says what went wrong.
    """
    levels = _levels(concurrency)
    if (repository is None) == (url is None):
        raise JobError("measure needs a MODEL_REPO or the --url of a Triton that runs, and not both")
    console = Console(stderr=True)
    opened = _serve(repository, options, console) if repository is not None else _reach(url or "", options)
    with opened as (model, session):
        points = list(_measured(session, levels, console))
    if as_json:
        click.echo(json.dumps({"schema": 1, "model": model, "points": [point_json(point) for point in points]}))
    else:
        results_console().print(points_table(points))


def _levels(text: str) -> tuple[int, ...]:
    try:
        levels = tuple(int(part) for part in text.split(","))
    except ValueError:
        levels = ()
    if not levels or min(levels) < 1:
        raise JobError(f"--concurrency: {text!r} is none; write numbers of 1 and more, as 1,8,64")
    return levels


def _measured(session: Session, levels: tuple[int, ...], console: Console) -> Iterator[OperatingPoint]:
    for concurrency in levels:
        with console.status(f"measuring at concurrency {concurrency}"):
            point = session.measure(concurrency)
        console.print(point_in_words(point, "p99"), highlight=False)
        yield point


@contextmanager
def _serve(repository: str, options: Mapping[str, Any], console: Console) -> Iterator[tuple[str, Session]]:
    """Start a server of our own with the model as it is."""
    job = TuneJob.make({**options, "repository": repository})
    opened = ModelRepository.open(job.repository)
    model = _only_model(opened, job)
    with tempfile.TemporaryDirectory(prefix="tritontune-") as folder:
        launcher = choose_launcher(job, console.print)
        launcher.remove_leftovers()
        staged = stage(opened, Path(folder) / "repository")
        within_s = job.launch_timeout or deadlines.first_launch_s(model.size_bytes())
        with (
            launcher.launch(Launch(staged.path, model.name, Path(folder) / "server.log", within_s)) as server,
            _session(server.grpc_address, model.name, job, server.check) as session,
        ):
            yield model.name, session


@contextmanager
def _reach(url: str, options: Mapping[str, Any]) -> Iterator[tuple[str, Session]]:
    """Use a server that runs; how it was started is not ours to say."""
    if misplaced := sorted(options.keys() - {"model", "shape", "seed"}):
        raise JobError(f"--{misplaced[0].replace('_', '-')} says how to start a server, and --url names one that runs")
    job = TuneJob.make({**options, "repository": url})
    with TritonClient(url) as client:
        loaded = [name for name, state in client.models().items() if state == "READY"]
    if not job.model and len(loaded) != 1:
        raise JobError(f"--url: {url} serves {', '.join(loaded) or 'no model'}; choose one with --model")
    (name,) = job.model or loaded
    if name not in loaded:
        raise JobError(f"--model: {url} serves no {name!r}{nearest(name, loaded)}")
    with _session(url, name, job, lambda: None) as session:
        yield name, session


def _only_model(repository: ModelRepository, job: TuneJob) -> ModelFolder:
    if not job.model and len(repository.models) > 1:
        names = ", ".join(model.name for model in repository.models)
        raise JobError(f"{job.repository} holds {names}; choose one with --model")
    return repository.model(job.model[0]) if job.model else repository.models[0]


def _session(address: str, model: str, job: TuneJob, health: Callable[[], None]) -> AbstractContextManager[Session]:
    return open_session(
        address,
        model,
        shapes=job.shape,
        seed=job.seed,
        rules=LevelRules(),
        health=health,
        first_answer_within_s=deadlines.FIRST_ANSWER_S,
    )
