"""`tritontune measure`: throughput and latency of a model with its own config."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from tritonclient.grpc import model_config_pb2

from tuner.cli.output_file import check_output
from tuner.config.beside import copy_hint, place_beside
from tuner.config.repository import ModelFolder, ModelRepository
from tuner.config.staging import stage
from tuner.config.tunable import why_not_loadable
from tuner.core import deadlines
from tuner.core.atomic_file import write_atomically
from tuner.core.errors import JobError, LaunchError, RepositoryError, ServerError, SLOError, TritontuneError, nearest
from tuner.core.json_text import json_text
from tuner.core.loads import Load, Ramp, RequestRate
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
from tuner.report.live_line import LiveLine
from tuner.report.points_table import points_table
from tuner.report.results_console import USUAL_WIDTH, results_console
from tuner.results.points_csv import points_csv
from tuner.results.points_json import measured_point_json
from tuner.results.words import point_in_words, rate
from tuner.servers.callees import Callees, check_load_model
from tuner.servers.choose_launcher import choose_launcher, clear_leftovers
from tuner.servers.client import TritonClient
from tuner.servers.protocols import Launch, Launcher, Server
from tuner.servers.work_folder import remove_abandoned_work, work_folder

_MOST_CONCURRENCY = 1024
# With --time, a load ends after that time, but has at least this many answers.
_FEWEST = 2


def measure(options: Mapping[str, Any], *, as_json: bool, csv: Path | None, force: bool = False) -> None:
    """Measure a model under each load, and print a table or JSON.

    Args:
        options: By the names of `MeasureJob`.
        as_json: Print JSON on stdout, and nothing else.
        csv: File to write, one row a point; None: none.
        force: Whether `csv` may replace a file.

    Raises:
        TritontuneError: a measurement failed; the error's exit code tells how.
    """
    job = MeasureJob.make(options)
    loads = job.loads
    if job.input_data not in MADE_UP:
        check_input_data(Path(job.input_data))
    check_output(csv, option="--csv", force=force)
    console = Console(stderr=True)
    points: list[OperatingPoint] = []
    model = ""
    try:
        with (
            LiveLine(console, job.batch_size, job.slo.percentile) as line,
            _opened(job, console, line) as (model, session),
        ):
            for point in _measured(job, loads, session):
                points.append(point)
                words = point_in_words(point, job.slo.percentile)
                console.print(words, highlight=False, markup=False, soft_wrap=True)
    except BaseException:
        # Print the points measured before an error or Ctrl-C. If that fails, too, the first error is still raised.
        try:
            _tell(model, points, job, as_json=as_json, csv=csv, complete=False)
            if job.rate == "max" and points:
                _tell_highest(points, job, console if as_json else results_console(), complete=False)
        except (TritontuneError, OSError) as error:
            _noting(console)(f"cannot write the result: {error}")
        raise
    _tell(model, points, job, as_json=as_json, csv=csv, complete=True)
    if job.rate == "max":
        _tell_highest(points, job, console if as_json else results_console(), complete=True)


def _tell(
    model: str, points: list[OperatingPoint], job: MeasureJob, *, as_json: bool, csv: Path | None, complete: bool
) -> None:
    if not points:
        return
    if as_json:
        document = {
            "schema": 1,
            "model": model,
            "complete": complete,
            "points": [measured_point_json(point) for point in points],
        }
        if job.rate == "max":
            highest = highest_sustained(points, job.slo)
            document["highest_rate"] = highest.load.level if highest else None
        click.echo(json_text(document))
    else:
        results_console(USUAL_WIDTH).print(points_table(points))
    if csv is not None:
        try:
            write_atomically(csv, points_csv(points))
        except OSError as error:
            raise JobError(f"--csv: cannot write {csv}: {error.strerror}") from None


def _measured(job: MeasureJob, loads: tuple[Load, ...], session: Session) -> Iterator[OperatingPoint]:
    for load in loads:
        if isinstance(load, Ramp):
            yield from session.measure_ramp(load)
        else:
            yield session.measure(load)
    if job.rate == "max":

        def measure(load: Load) -> OperatingPoint:
            return session.measure(replace(load, distribution=job.arrivals) if isinstance(load, RequestRate) else load)

        yield from points_of(highest_rate(slo=job.slo, max_concurrency=_MOST_CONCURRENCY), measure)


def _tell_highest(points: list[OperatingPoint], job: MeasureJob, console: Console, *, complete: bool) -> None:
    highest = highest_sustained(points, job.slo)
    if not complete:
        sustained = f"{rate(highest.load.level)} requests/s" if highest else "none"
        console.print(f"highest sustained rate so far: {sustained} (the search was cut short)", highlight=False)
        return
    if highest is None:
        raise SLOError(f"no tried rate holds {job.slo}" if job.slo.root else "the server sustained no tried rate")
    words = f"highest sustained rate: {rate(highest.load.level)} requests/s"
    console.print(f"{words}, {job.slo}" if job.slo.root else words, highlight=False)


@contextmanager
def _opened(job: MeasureJob, console: Console, line: LiveLine) -> Iterator[tuple[str, Session]]:
    if job.repository is not None:
        with (
            _served(job, job.repository, console, line) as served,
            _session(
                job, replace(served.server.endpoint, headers=job.header), served.model, line.see, served
            ) as session,
        ):
            yield served.model, session
    else:
        endpoint = job.endpoint(job.header)
        model = _loaded_model(job, endpoint)
        with (
            Gpus(None, _noting(console)) as unknown,
            unknown.watch() as gpus,
            _session(job, endpoint, model, line.see, watch=gpus) as session,
        ):
            yield model, session


def _noting(console: Console) -> Callable[[str], None]:
    """A function that prints a line unchanged."""
    return lambda text: console.print(text, highlight=False, markup=False, soft_wrap=True)


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
def _served(job: MeasureJob, path: Path, console: Console, line: LiveLine) -> Iterator[_Served]:
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
    note = _noting(console)
    remove_abandoned_work()
    with work_folder() as folder:
        within_s = job.launch_timeout or deadlines.first_launch_s(model.size_bytes())
        staged = stage(repository, folder / "served" / "repository")
        placed = place_beside(repository, staged)
        chosen = choose_launcher(job, note, line.pulling, headers=job.header, models=[model])
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
