"""Parses the command line. Each other module of this package runs a command."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from tuner.cli.help import JobCommand, SectionedCommand, field, section
from tuner.core.boundary import boundary
from tuner.core.errors import TritontuneError, UsageError, nearest, shortened, similar
from tuner.core.interrupts import end_on_sigterm

if TYPE_CHECKING:
    from tuner.cli.service import ServiceOptions
    from tuner.options.groups import Options


class _Group(click.Group):
    """Names the nearest command for an unknown one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            raise click.UsageError(f"unknown command {args[0]!r}{nearest(args[0], self.commands)}")
        return super().resolve_command(ctx, args)


class _Path(click.Path):
    """A path; an empty text is refused, as it would be the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("must not be empty", param, ctx)
        return super().convert(value, param, ctx)


_PATH = _Path(path_type=Path)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="tritontune", message="tritontune %(version)s")
def cli() -> None:
    """Find the config.pbtxt with which Triton Inference Server serves your model best."""


def _tune_job() -> type[Options]:
    from tuner.options.tune_job import TuneJob  # noqa: PLC0415 (keeps --help and errors quick)

    return TuneJob


def _measure_job() -> type[Options]:
    from tuner.options.measure_job import MeasureJob  # noqa: PLC0415 (the same)

    return MeasureJob


def _server_options() -> type[Options]:
    from tuner.options.groups import ServerOptions  # noqa: PLC0415 (the same)

    return ServerOptions


_triton_path = field("--triton-path", metavar="PATH")
_triton_arg = field("--triton-arg", metavar="--FLAG=VALUE", multiple=True)
_host_policy = field("--host-policy", metavar="NAME,SETTING", multiple=True)
_env = field("--env", metavar="NAME[=VALUE]", multiple=True)
_image = field("--image", metavar="IMAGE")
_slo = field("--slo", metavar="p99=TIME", multiple=True)
_precision = field("--precision", metavar="P%,P%")
_force = click.option("--force", is_flag=True, help="Replace the output file if it exists.")

_server = section(
    "Server",
    field("--server", metavar="KIND"),
    _triton_path,
    field("--launch-timeout", metavar="TIME"),
    field("--load-model", metavar="NAME", multiple=True),
    _triton_arg,
    _host_policy,
    field("--gpus", metavar="GPUS"),
    _env,
)
_containers = section(
    "Containers (--server docker)",
    _image,
    field("--shm-size", metavar="SIZE"),
    field("--memory", metavar="SIZE"),
    field("--mount", metavar="SRC:DST[:ro]", multiple=True),
    field("--network", metavar="NAME"),
    field("--user", metavar="USER"),
    field("--docker-arg", metavar="NAME=VALUE", multiple=True),
)
_tls = (
    field("--tls-ca", metavar="FILE"),
    field("--tls-cert", metavar="FILE"),
    field("--tls-key", metavar="FILE"),
    field("--tls-name", metavar="NAME"),
)
_load = section(
    "Load",
    field("--input-data", metavar="KIND|FILE"),
    field("--shape", metavar="[MODEL/]INPUT:D1,D2", multiple=True),
    field("--batch-size", "-b", metavar="N"),
    field("--string-length", metavar="N"),
    field("--string-data", metavar="TEXT"),
    field("--request-parameter", metavar="NAME:VALUE:TYPE", multiple=True),
    field("--priority", metavar="N"),
    field("--queue-timeout", metavar="TIME"),
    field("--header", "-H", metavar="NAME:VALUE", multiple=True),
    field("--compression", metavar="KIND"),
    field("--shared-memory", metavar="KIND"),
    field("--output-shared-memory-size", metavar="BYTES"),
    field("--sequence-length", metavar="N"),
    field("--sequence-length-variation", metavar="SHARE"),
    field("--sequences", metavar="N"),
    field("--connections", metavar="N"),
    field("--processes", metavar="N"),
    field("--seed", metavar="N"),
)


@cli.command(cls=JobCommand, job=_tune_job)
@click.argument("repository", metavar="[MODEL_REPO]", required=False)
@section(
    "What to tune",
    field("--model", metavar="NAME", multiple=True),
    click.option(
        "--job", metavar="FILE.yaml", type=_PATH, help="Job file with these options; the command line overrides it."
    ),
)
@section(
    "Objective",
    _slo,
    field("--maximize", metavar="METRIC"),
    field("--minimize", metavar="latency.p99"),
    field("--rate", metavar="R"),
)
@section(
    "Limits",
    field("--budget", metavar="TIME"),
    field("--trials", metavar="N"),
    field("--max-concurrency", metavar="N"),
    field("--max-gpu-memory", metavar="SIZE"),
    field("--output-tolerance", metavar="SHARE|off"),
)
@_server
@_containers
@section(
    "Running Triton (--server remote)",
    field("--url", metavar="URL"),
    *_tls,
    field("--metrics-url", metavar="URL"),
)
@_load
@section(
    "Search",
    field("--space", metavar="NAME|FILE"),
    click.option("--list-space", is_flag=True, help="Print what would be searched, and why not the rest; then exit."),
    field("--allow-numerics", is_flag=True, default=None),
    field("--sampler", metavar="NAME"),
    field("--warm-start", metavar="RUN_DIR"),
    field("--isolation", metavar="KIND"),
    _precision,
    field("--explain", is_flag=True, default=None),
    field("--verify/--no-verify", default=None),
)
@section(
    "Where trials run",
    field("--executor", metavar="NAME"),
    field("--parallel", metavar="N|auto"),
    field("--ray-address", metavar="HOST:PORT"),
    field("--cores-per-slot", metavar="N"),
    field("--gpus-per-slot", metavar="N"),
    field("--mixed", is_flag=True, default=None),
    field("--repository-on-hosts", metavar="PATH"),
)
@section(
    "Output",
    click.option("--out", metavar="DIR", type=_PATH, help="Folder for the results. Default: tritontune-runs/TIME."),
    click.option(
        "--resume", is_flag=True, help="Continue the run in --out; its options are known and need not be repeated."
    ),
    click.option("--verbose", "-v", is_flag=True, help="Print the whole result: all points, effects and notes."),
    click.option(
        "--json", "as_json", is_flag=True, help="Print the result as JSON on stdout, and everything else on stderr."
    ),
)
def run(
    job: Path | None,
    out: Path | None,
    *,
    resume: bool,
    verbose: bool,
    as_json: bool,
    list_space: bool,
    **options: Any,
) -> None:
    """Tune models and write the best config.pbtxt of each.

    Tunes the models of MODEL_REPO, or of a running Triton at --url.
    """
    if list_space:
        from tuner.cli.list_space import list_space as listing  # noqa: PLC0415 (keeps --help and errors quick)

        listing(job, _given(options), out=out, resume=resume, as_json=as_json)
        return
    from tuner.cli.run import run as command  # noqa: PLC0415 (the same)

    command(job, _given(options), out, resume=resume, verbose=verbose, as_json=as_json)


@cli.command(cls=JobCommand, job=_measure_job)
@click.argument("repository", metavar="[MODEL_REPO]", required=False)
@section("What to measure", field("--model", metavar="NAME"), field("--model-version", metavar="N"))
@section(
    "Load levels",
    field("--concurrency", metavar="N,N"),
    field("--rate", metavar="R,R|max"),
    field("--ramp", metavar="FROM:TO:TIME"),
    field("--intervals", metavar="FILE"),
    field("--timestamps", metavar="FILE"),
    field("--arrivals", metavar="KIND"),
)
@section("Limits", _slo, _precision, field("--time", metavar="TIME"))
@_server
@_containers
@section("Running Triton (--server remote)", field("--url", metavar="URL"), *_tls)
@_load
@section(
    "Output",
    click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout, and nothing else."),
    click.option("--csv", metavar="FILE", type=_PATH, help="Also write a CSV file with one row per load."),
    _force,
)
def measure(*, as_json: bool, csv: Path | None, force: bool, **options: Any) -> None:
    """Measure one model under the loads that you name.

    Serves the model from MODEL_REPO, or measures a running Triton at --url.
    """
    from tuner.cli.measure import measure as command  # noqa: PLC0415 (keeps --help and errors quick)

    command(_given(options), as_json=as_json, csv=csv, force=force)


@cli.command()
@click.argument("run_dir", metavar="RUN_DIR", type=_PATH)
@click.option("--out", metavar="FILE", type=_PATH, help="Report file. Default: report.html in RUN_DIR.")
@_force
def report(run_dir: Path, out: Path | None, *, force: bool) -> None:
    """Write report.html of a run again.

    Needs no server, and works during the run.
    """
    from tuner.cli.report import report as command  # noqa: PLC0415 (keeps --help and errors quick)

    with boundary(run_dir):
        command(run_dir, out, force=force)


@cli.command()
@click.argument("run_dir", metavar="RUN_DIR", type=_PATH)
@click.option("--model", metavar="NAME", multiple=True, help="Model to export. Repeatable. Default: every model.")
@click.option(
    "--slo",
    metavar="p99=TIME",
    multiple=True,
    help="Latency limit to choose the best config for, such as p99=25ms. Repeatable. Default: the run's.",
)
@click.option(
    "--to",
    metavar="DIR|FILE",
    type=_PATH,
    help="Folder for the whole model, or file for the config: .pbtxt, .json or .yaml. Default: stdout.",
)
@click.option("--in-place", is_flag=True, help="Replace the config.pbtxt of the repository, and keep a backup.")
@click.option(
    "--format",
    "format_name",
    metavar="FORMAT",
    help="Format of the config: pbtxt, json, or configmap (Kubernetes). Default: pbtxt.",
)
@click.option(
    "--with-warmup", is_flag=True, help="Add the model_warmup that the run measured, if first requests were slow."
)
@_force
def export(
    run_dir: Path,
    model: tuple[str, ...],
    slo: tuple[str, ...],
    to: Path | None,
    format_name: str | None,
    *,
    in_place: bool,
    with_warmup: bool,
    force: bool,
) -> None:
    """Export the best config.pbtxt of a run."""
    from tuner.cli.export import export as command  # noqa: PLC0415 (keeps --help and errors quick)
    from tuner.cli.export_target import Target  # noqa: PLC0415 (the same)

    with boundary(run_dir):
        target = Target.of(to, format_name, in_place=in_place)
        command(run_dir, model, slo, target, force=force, with_warmup=with_warmup)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Collect no garbage, not even at exit: in a command of seconds, that takes an eighth of its time."""
    before = gc.get_threshold()
    gc.set_threshold(0)  # not gc.disable(): numba enables it again
    atexit.register(gc.freeze)
    try:
        yield
    finally:
        gc.set_threshold(*before)


@cli.command()
@click.argument("run_dir", metavar="RUN_DIR", type=_PATH)
@click.option("--model", metavar="NAME", help="Model of the run. Default: the only one.")
@click.option("--rate", metavar="R", required=True, help="Target request rate (requests/s).")
@click.option(
    "--slo", metavar="p99=TIME", multiple=True, help="Latency limit, such as p99=20ms. Repeatable. Default: the run's."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def estimate(run_dir: Path, model: str | None, rate: str, slo: tuple[str, ...], *, as_json: bool) -> None:
    """Estimate which config, and how many hosts, a request rate needs.

    Uses the measurements of RUN_DIR, and needs no server.
    """
    # Read when NumPy loads: threads of BLAS, waiting for each other on small matrices, took a third of the processor.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with boundary(run_dir), _no_collection():
        from tuner.cli.estimate import estimate as command  # noqa: PLC0415 (keeps --help and errors quick)

        command(run_dir, model, rate, slo, as_json=as_json)


@cli.command()
@click.argument("jobs", metavar="JOBS.yaml", required=False, type=_PATH)
@click.option("--check", is_flag=True, help="Check the job file and print what the night would do.")
@click.option("--schema", is_flag=True, help="Print the JSON schema of job files, for editors.")
@click.option("--json", "as_json", is_flag=True, help="Print the night's report as JSON on stdout.")
def nightly(jobs: Path | None, *, check: bool, schema: bool, as_json: bool) -> None:
    """Compare deployed configs with better ones, and act on gains.

    For each model in JOBS.yaml: measure the deployed config and compare it with its history; search for a better one
    within the budget; launch both in pairs; act only if the gain's lower bound exceeds min_gain and the SLO holds at
    99 % confidence. The action is to propose the config, to apply it, or to run a command. Paths in the file are
    relative to the current folder.

    \b
    A job file:
      window: 4h
      jobs:
        - repository: model_repository
          model: mlp
          slo: {p99: 40ms}
          budget: 10m
          action: propose        # or apply, or command

    \b
    Exit codes (the worst of all models):
      0   kept: no config is better than the deployed one at the required confidence
      10  improved: a better config was found, and the action was taken
      20  regression: a deployed config is slower than its history
      1   failed: a model could not be measured, or the night was cut short
      2   the job file is wrong, or another night is running
    """  # noqa: D301 (click means the character)
    from tuner.cli import nightly as command  # noqa: PLC0415 (keeps --help and errors quick)

    if schema:
        command.print_schema()
    elif jobs is None:
        raise click.UsageError("nightly needs a job file: tritontune nightly JOBS.yaml")
    elif check:
        command.check(jobs, as_json=as_json)
    else:
        command.nightly(jobs, as_json=as_json)


@cli.command()
@click.option(
    "--history",
    "place",
    metavar="FILE|URL",
    default="tritontune-nightly/history.db",
    show_default=True,
    help="History of the nights: a SQLite file, or a postgresql:// URL.",
)
@click.option("--model", metavar="NAME", multiple=True, help="Model to show. Repeatable. Default: every model.")
@click.option(
    "--nights", metavar="N", type=click.IntRange(min=1), default=30, show_default=True, help="Number of nights to show."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def history(place: str, model: tuple[str, ...], nights: int, *, as_json: bool) -> None:
    """Show throughput, latency and gain of each model, by night."""
    from tuner.cli.history import history as command  # noqa: PLC0415 (keeps --help and errors quick)

    command(place, model, nights, as_json=as_json)


@cli.command()
@click.option(
    "--data",
    metavar="DIR",
    type=_PATH,
    default=Path("tritontune-service"),
    show_default=True,
    help="Folder for everything that the service writes.",
)
@click.option(
    "--database",
    metavar="URL",
    help="Database: postgresql://USER@HOST/NAME, in which ${NAME} is an environment variable. Default: SQLite in DIR.",
)
@click.option(
    "--listen", metavar="ADDR:PORT", default="127.0.0.1:8100", show_default=True, help="Address to listen at."
)
@click.option("--config", metavar="FILE", type=_PATH, help="Config file. Default: service.yaml in DIR, if it exists.")
@click.option("--rebuild", is_flag=True, help="Make the database's index of jobs anew from the folders, then serve.")
@click.option(
    "--keep", metavar="TIME", help="How long to keep logs of trials, such as 90d; results stay. Default: for ever."
)
@click.option("--tls-cert", metavar="FILE", type=_PATH, help="Certificate of the service, as a PEM file.")
@click.option("--tls-key", metavar="FILE", type=_PATH, help="Private key of the certificate, as a PEM file.")
@click.option("--behind-proxy", is_flag=True, help="All requests come from a proxy, which adds TLS.")
@click.option("--public-url", metavar="URL", help="Address that users have, if it is another one.")
@click.option("--wait", is_flag=True, help="Wait until another service with the same folder or database has ended.")
def serve(**options: Any) -> None:
    """Run the service: a queue of jobs, a REST API and a dashboard.

    Prints an address to log in. Jobs run in processes of their own, and go on when the service ends.
    """
    from tuner.cli.serve import serve as command  # noqa: PLC0415 (keeps --help and errors quick)

    command(**options)


@cli.command(cls=JobCommand, job=_server_options)
@click.argument("repository", metavar="[MODEL_REPO]", required=False)
@section("Server", _triton_path, _image, _triton_arg, _env)
def doctor(repository: str | None, **options: Any) -> None:
    """Check this machine, and say how to fix what is missing.

    Also checks MODEL_REPO, if given, and removes leftovers of killed runs.
    """
    from tuner.cli.doctor import doctor as command  # noqa: PLC0415 (keeps --help and errors quick)

    command(repository, _given(options))


class _Number(click.IntRange):
    """The number of a job or a proposal."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value)
        if not (text.isascii() and text.isdigit() and 1 <= int(text) < 2**53):
            self.fail(f"must be a whole number >= 1, got {text!r}", param, ctx)
        return int(text)


_ID = _Number()
_STATES = (
    "queued",
    "starting",
    "running",
    "cancelling",
    "succeeded",
    "failed",
    "cancelled",
    "lost",
)
_service_options = section(
    "Service",
    click.option(
        "--server",
        metavar="URL",
        help="Address of the service. Default: $TRITONTUNE_SERVER, or that of your service on this machine.",
    ),
    click.option(
        "--data",
        metavar="DIR",
        type=_PATH,
        help=(
            "Data folder of the service, on its machine, whose admin token is used. Default: the token in "
            "$TRITONTUNE_TOKEN, or that of your service on this machine."
        ),
    ),
    click.option(
        "--tls-ca",
        metavar="FILE",
        type=_PATH,
        help="CA certificates to trust, as a PEM file. Default: $TRITONTUNE_TLS_CA, or those of the system.",
    ),
)
_job_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout, and everything else on stderr.")


def _of_service(command: Callable[..., None]) -> Callable[..., None]:
    """Options that name a service; the command gets them as its argument `service`."""

    @wraps(command)
    def with_service(*, server: str | None, data: Path | None, tls_ca: Path | None, **rest: Any) -> None:
        from tuner.cli.service import ServiceOptions  # noqa: PLC0415 (keeps --help and errors quick)

        command(service=ServiceOptions(server, data, tls_ca), **rest)

    return _service_options(with_service)


@cli.command(cls=SectionedCommand)
@click.argument("file", metavar="[JOB.yaml]", required=False, type=_PATH)
@section(
    "Job",
    click.option(
        "--kind",
        type=click.Choice(["tune", "nightly", "measure"]),
        default="tune",
        show_default=True,
        help="Kind of the job: tune, nightly (one night of the deployed configs), or measure.",
    ),
    click.option("--target", metavar="NAME", help="Target of the service whose options are the defaults of the file."),
    click.option(
        "--priority",
        metavar="N",
        type=click.IntRange(-100, 100),
        default=0,
        show_default=True,
        help="Jobs of a higher priority start first (-100 to 100).",
    ),
)
@_of_service
@section(
    "Output",
    click.option("--wait", is_flag=True, help="Print the events until the job has ended, and exit as `run` does."),
    _job_json,
)
def submit(
    file: Path | None,
    *,
    service: ServiceOptions,
    kind: Any,
    target: str | None,
    priority: int,
    wait: bool,
    as_json: bool,
) -> None:
    """Submit a job to the service, `tritontune serve`.

    JOB.yaml has the options of `tritontune run`, as for its --job; or an entry of a nightly job file, or the options of
    `tritontune measure`. Relative paths are those of the current folder, and must be the same where the service runs.
    Ctrl-C while waiting does not cancel the job.
    """
    from tuner.cli.submit import submit as command  # noqa: PLC0415 (keeps --help and errors quick)

    command(file, service, kind=kind, target=target, priority=priority, wait=wait, as_json=as_json)


@cli.command(cls=SectionedCommand)
@click.argument("job", metavar="[ID]", required=False, type=_ID)
@section(
    "Jobs",
    click.option(
        "--state",
        "states",
        type=click.Choice(_STATES),
        metavar="STATE",
        multiple=True,
        help="State of the jobs to list, such as queued, running or failed. Repeatable. Default: all states.",
    ),
    click.option(
        "--last",
        metavar="N",
        type=click.IntRange(min=1),
        default=20,
        show_default=True,
        help="Number of jobs to list, the newest first.",
    ),
)
@_of_service
@section(
    "Output",
    click.option("--watch", is_flag=True, help="Show the list until Ctrl-C, or follow job ID until it has ended."),
    _job_json,
)
def jobs(
    job: int | None,
    *,
    service: ServiceOptions,
    states: tuple[Any, ...],
    last: int,
    watch: bool,
    as_json: bool,
) -> None:
    """List the jobs of the service, or show one.

    With --watch and ID, the exit code is that of `tritontune run`.
    """
    from tuner.cli.jobs import jobs as command  # noqa: PLC0415 (keeps --help and errors quick)

    command(job, service, states=states, last=last, watch=watch, as_json=as_json)


@cli.command(cls=SectionedCommand)
@click.argument("job", metavar="ID", type=_ID)
@_of_service
@section(
    "Output",
    click.option("--wait", is_flag=True, help="Wait until the last server of the job has ended."),
    _job_json,
)
def cancel(job: int, *, service: ServiceOptions, wait: bool, as_json: bool) -> None:
    """Cancel job ID of the service. What it measured is kept."""
    from tuner.cli.cancel import cancel as command  # noqa: PLC0415 (keeps --help and errors quick)

    command(job, service, wait=wait, as_json=as_json)


@cli.command(cls=SectionedCommand)
@click.argument("job", metavar="ID", type=_ID)
@_of_service
@section("Output", _job_json)
def retry(job: int, *, service: ServiceOptions, as_json: bool) -> None:
    """Submit job ID of the service again, as a new job."""
    from tuner.cli.retry import retry as command  # noqa: PLC0415 (keeps --help and errors quick)

    command(job, service, as_json=as_json)


@cli.command(cls=SectionedCommand)
@section(
    "Proposals",
    click.option(
        "--state",
        type=click.Choice(["open", "approved", "rejected", "withdrawn", "all"]),
        default="open",
        show_default=True,
        help="State of the proposals to list.",
    ),
    click.option("--job", metavar="ID", type=_ID, help="Job whose proposals are listed. Default: all jobs."),
    click.option("--diff", metavar="ID", type=_ID, help="Print the diff of a proposal."),
    click.option("--approve", metavar="ID", type=_ID, help="Approve a proposal: its files are deployed, all or none."),
    click.option("--reject", metavar="ID", type=_ID, help="Reject a proposal."),
    click.option("--reason", metavar="TEXT", help="Why you approve or reject it, for others."),
)
@_of_service
@section("Output", _job_json)
def proposals(
    *,
    service: ServiceOptions,
    state: Any,
    job: int | None,
    diff: int | None,
    approve: int | None,
    reject: int | None,
    reason: str | None,
    as_json: bool,
) -> None:
    """List, approve and reject the configs that the service proposes."""
    from tuner.cli.proposals import proposals as command  # noqa: PLC0415 (keeps --help and errors quick)

    command(
        service,
        state=None if state == "all" else state,
        job=job,
        approve=approve,
        reject=reject,
        diff=diff,
        reason=reason,
        as_json=as_json,
    )


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given. The job has the defaults and parses the texts."""
    return {name: value for name, value in options.items() if value not in {None, ()}}


def main() -> NoReturn:
    """The entry point. It prints an error as one line, and exits with the code of its kind."""
    end_on_sigterm()
    # Otherwise gRPC logs errors that tritontune reports anyway.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        with boundary(), _reader_may_leave():
            code = cli.main(sys.argv[1:] or ["--help"], standalone_mode=False) or 0
            _flush()
        sys.exit(code)
    except click.exceptions.Exit as ended:
        sys.exit(ended.exit_code)
    except click.ClickException as error:
        _fail(_in_our_words(error), UsageError.exit_code)
    except TritontuneError as error:
        _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _fail("interrupted", 130)


def _in_our_words(error: click.ClickException) -> str:
    """What click refuses, in the form of all other errors."""
    if isinstance(error, click.NoSuchOption):
        return f"unknown option {error.option_name!r}{similar(error.option_name, error.possibilities or ())}"
    if isinstance(error, click.BadParameter) and error.param is not None:
        is_argument = isinstance(error.param, click.Argument)
        name = error.param.human_readable_name.strip("[]") if is_argument else error.param.opts[0]
        if isinstance(error, click.MissingParameter):
            return f"{name} is missing{f'; see {error.ctx.command_path} --help' if error.ctx else ''}"
        return f"{name}: {error.message}"
    return error.format_message()


def _fail(message: str, code: int) -> NoReturn:
    line = f"tritontune: {shortened(message)}".encode(errors="backslashreplace").decode()
    with suppress(OSError):  # the reader of stdout has ended
        click.echo(line, err=True)
    _give_up_stdout_if_broken()
    sys.exit(code)


@contextmanager
def _reader_may_leave() -> Iterator[None]:
    """Exit with 1, silently, if the reader of stdout has ended, such as `head`."""
    try:
        yield
    except BrokenPipeError:
        if not _give_up_stdout_if_broken():
            raise
        sys.exit(1)


def _give_up_stdout_if_broken() -> bool:
    """Replace a broken stdout, so that Python does not flush it at exit. Returns whether it was broken."""
    try:
        _flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def _flush() -> None:
    print(end="", flush=True)  # noqa: T201 (print accepts a closed stdout; sys.stdout.flush does not)
