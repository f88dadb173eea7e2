"""Measures a model with its own config, under each load of a job."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tritonclient.grpc import model_config_pb2

from tuner.config.beside import copy_hint, place_beside
from tuner.config.repository import ModelFolder, ModelRepository
from tuner.config.staging import stage
from tuner.config.tunable import why_not_loadable
from tuner.core import deadlines
from tuner.core.atomic_file import write_atomically
from tuner.core.errors import JobError, LaunchError, RepositoryError, ServerError, SLOError, nearest
from tuner.core.json_text import json_text
from tuner.core.loads import Load, Ramp, RequestRate
from tuner.jobs.progress import Progress
from tuner.load.inputs.input_data import check_input_data
from tuner.measure.gpu import Gpus
from tuner.measure.gpu_watch import GpuWatch
from tuner.measure.highest_rate import highest_rate, highest_sustained
from tuner.measure.plan import points_of
from tuner.measure.points import OperatingPoint
from tuner.measure.rules import LevelRules
from tuner.measure.session import See, Session, open_session
from tuner.options.endpoint import Endpoint
from tuner.options.groups import MADE_UP
from tuner.options.measure_job import MeasureJob
from tuner.results.points_json import measured_point_json
from tuner.servers.callees import Callees, check_load_model
from tuner.servers.choose_launcher import choose_launcher, clear_leftovers
from tuner.servers.client import TritonClient
from tuner.servers.docker.pull import SeePull
from tuner.servers.protocols import Launch, Launcher, Server
from tuner.servers.work_folder import remove_abandoned_work, work_folder

POINTS = "points.json"
"""The points of a measurement, in its folder: what `tritontune measure --json` prints."""

_MOST_CONCURRENCY = 1024
# With --time, a load ends after that time, but has at least this many answers.
_FEWEST = 2

Note = Callable[[str], None]


def run_measurement(job: MeasureJob, out: Path, progress: Progress) -> tuple[OperatingPoint, ...]:
    """Measure a model under each load, and write `points.json` after each point.

    Args:
        job: The job.
        out: The folder for `points.json`; created if it does not exist.
        progress: Receives the events: the run, the measurement and its points, and notes.

    Raises:
        TritontuneError: the measurement failed, or a search for the highest rate found none; the points are written.
    """
    check_inputs(job)
    out.mkdir(parents=True, exist_ok=True)
    points: list[OperatingPoint] = []
    progress.run_began()
    with opened(job, progress.note, progress.pulling, lambda _load, _samples: None) as (model, session):
        progress.measurement_began(model, job.slo)
        for point in measured(job, job.loads, session):
            points.append(point)
            progress.point_measured(point)
            _write(out, measurement_json(model, points, job, complete=False))
        _write(out, measurement_json(model, points, job, complete=True))
        progress.reported(out / POINTS)
    if job.rate == "max":
        sustained(points, job)
    return tuple(points)


def _write(out: Path, document: dict[str, Any]) -> None:
    write_atomically(out / POINTS, json_text(document, indent=1) + "\n")


def check_inputs(job: MeasureJob) -> None:
    """Check the input data of a job before a server is started.

    Raises:
        InputError: it cannot be used.
    """
    if job.input_data not in MADE_UP:
        check_input_data(Path(job.input_data))


def measurement_json(
    model: str, points: Sequence[OperatingPoint], job: MeasureJob, *, complete: bool
) -> dict[str, Any]:
    """The document of `measure --json`, schema 1; `complete` is whether the measurement came to its end."""
    document: dict[str, Any] = {
        "schema": 1,
        "model": model,
        "complete": complete,
        "points": [measured_point_json(point) for point in points],
    }
    if job.rate == "max":
        highest = highest_sustained(points, job.slo)
        document["highest_rate"] = highest.load.level if highest else None
    return document


def sustained(points: Sequence[OperatingPoint], job: MeasureJob) -> OperatingPoint:
    """The point of the highest rate that the server sustained within the SLO.

    Raises:
        SLOError: there is none.
    """
    if highest := highest_sustained(points, job.slo):
        return highest
    raise SLOError(f"no tried rate holds {job.slo}" if job.slo.root else "the server sustained no tried rate")


def measured(job: MeasureJob, loads: Sequence[Load], session: Session) -> Iterator[OperatingPoint]:
    """Measure the loads, one after the other, and then search for the highest rate, if the job wants it."""
    for load in loads:
        if isinstance(load, Ramp):
            yield from session.measure_ramp(load)
        else:
            yield session.measure(load)
    if job.rate == "max":

        def measure(load: Load) -> OperatingPoint:
            return session.measure(replace(load, distribution=job.arrivals) if isinstance(load, RequestRate) else load)

        yield from points_of(highest_rate(slo=job.slo, max_concurrency=_MOST_CONCURRENCY), measure)


@contextmanager
def opened(job: MeasureJob, note: Note, pulling: SeePull, see: See) -> Iterator[tuple[str, Session]]:
    """Start a server with the model, or reach the one at `--url`, and prepare to measure.

    Args:
        job: The job.
        note: Takes messages.
        pulling: Called with the progress of an image's pull.
        see: Called with the latest samples.

    Yields:
        The name of the model, and the session.

    Raises:
        TritontuneError: the model cannot be measured.
    """
    if job.repository is not None:
        with (
            _served(job, job.repository, note, pulling) as served,
            _session(job, replace(served.server.endpoint, headers=job.header), served.model, see, served) as session,
        ):
            yield served.model, session
    else:
        endpoint = job.endpoint(job.header)
        model = _loaded_model(job, endpoint)
        with (
            Gpus(None, note) as unknown,
            unknown.watch() as gpus,
            _session(job, endpoint, model, see, watch=gpus) as session,
        ):
            yield model, session


@dataclass(frozen=True)
class _Served:
    """A server that we started, with the model.

    Attributes:
        gpus: The watch over its GPUs, entered before the launch.
        callees: The models that the model calls.
        within_s: Seconds that a model may take to load.
    """

    server: Server
    gpus: GpuWatch
    model: str
    callees: Callees
    within_s: float

    def remedy(self, error: ServerError) -> None:
        """See `Callees.load_missing`."""
        self.callees.load_missing(error, self.server, within_s=self.within_s)


@contextmanager
def _served(job: MeasureJob, path: Path, note: Note, pulling: SeePull) -> Iterator[_Served]:
    """Start a server with a copy of the model, since Python writes compiled code beside `model.py`."""
    repository = ModelRepository.open(path)
    model = _only_model(repository, job)
    check_load_model(job.load_model, repository, [model])
    if job.model_version and model.versions and int(job.model_version) not in model.versions:
        available = ", ".join(map(str, model.versions))
        raise JobError(
            f"--model-version: model {model.name!r} has no version {job.model_version} (available: {available})"
        )
    if reason := why_not_loadable(model):
        raise RepositoryError(reason)
    remove_abandoned_work()
    with work_folder() as folder:
        within_s = job.launch_timeout or deadlines.first_launch_s(model.size_bytes())
        staged = stage(repository, folder / "served" / "repository")
        placed = place_beside(repository, staged)
        chosen = choose_launcher(job, note, pulling, headers=job.header, models=[model])
        with closing(chosen) as launcher, Gpus(launcher.gpus, note) as gpus:
            clear_leftovers(launcher, note)
            gpus.warn_if_busy(model.config.proto if model.config else model_config_pb2.ModelConfig())
            callees = Callees(model.name, staged.path, job.load_model, note)
            launch = Launch(staged.path, model.name, folder / "server.log", within_s, callees.names)
            with gpus.watch() as watch, _launched(launcher, launch, placed) as server:
                yield _Served(server, watch, model.name, callees, within_s)


def _launched(launcher: Launcher, launch: Launch, placed: tuple[str, ...]) -> Server:
    try:
        return launcher.launch(launch)
    except LaunchError as error:
        hinted = f"{error}{copy_hint(str(error), placed)}"
        raise LaunchError(hinted, cause=error.cause, last_words=error.last_words) from error


def _loaded_model(job: MeasureJob, endpoint: Endpoint) -> str:
    """The model to measure on a running server."""
    with _reached(endpoint) as client:
        if job.model and client.is_model_ready(job.model, job.model_version):
            return job.model
        loaded = client.loaded()
    if job.model is None and len(loaded) == 1:
        return loaded[0]
    if not loaded:
        raise JobError(f"--url: {job.url} has no model loaded; load one first")
    if job.model is None:
        raise JobError(f"--url: {job.url} serves several models; choose one with --model: {', '.join(loaded)}")
    if job.model in loaded:
        raise JobError(f"--model-version: {job.url} serves no version {job.model_version} of model {job.model!r}")
    raise JobError(f"--model: {job.url} serves no model {job.model!r}{nearest(job.model, loaded)}")


@contextmanager
def _reached(endpoint: Endpoint) -> Iterator[TritonClient]:
    """A client of the server at `--url`.

    Raises:
        JobError: it cannot be reached.
    """
    try:
        with TritonClient(endpoint) as client:
            yield client
    except ServerError as error:
        raise JobError(f"--url: {error}") from error


def _only_model(repository: ModelRepository, job: MeasureJob) -> ModelFolder:
    if job.model is None and len(repository.models) > 1:
        names = ", ".join(model.name for model in repository.models)
        raise JobError(f"{job.repository} holds several models; choose one with --model: {names}")
    return repository.model(job.model) if job.model else repository.models[0]


@contextmanager
def _session(  # noqa: PLR0917 (it is called at two places, just above)
    job: MeasureJob,
    endpoint: Endpoint,
    model: str,
    see: See,
    served: _Served | None = None,
    watch: GpuWatch | None = None,
) -> Iterator[Session]:
    rules = LevelRules(slo=job.slo).to(job.precision)
    if job.time is not None:
        longest_s = max(job.time, rules.slow_max_s)
        rules = replace(rules, max_s=job.time, slow_max_s=longest_s, slow_requests=_FEWEST)
    server, gpus = (served.server, served.gpus) if served else (None, watch)
    callees = Callees(model)  # of a server that is not ours

    def remedy(error: ServerError) -> None:
        raise callees.hinted(error)

    with open_session(
        endpoint,
        model,
        job,
        version=job.model_version,
        rules=rules,
        health=server.check if server else lambda: None,
        see=see,
        usage=server.usage if server else None,
        gpus=gpus,
        remedy=served.remedy if served else remedy,
    ) as session:
        yield session
