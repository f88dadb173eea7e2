"""Parses the command line. The other modules of this package do what a command asks for."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from tuner.core.boundary import boundary
from tuner.core.errors import TritontuneError, UsageError, nearest, shortened
from tuner.core.interrupts import ignore_what_ends

_Command = TypeVar("_Command", bound=Callable[..., Any])


class _Group(click.Group):
    """Names the nearest command for one that there is not."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            raise click.UsageError(f"{args[0]!r} is no command{nearest(args[0], self.commands)}")
        return super().resolve_command(ctx, args)


class _Path(click.Path):
    """A path; an empty one is none, and not the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("is empty; name a path, or leave it out", param, ctx)
        return super().convert(value, param, ctx)


_PATH = _Path(path_type=Path)
_OF_CONTAINERS = "Options of containers, for --server docker"
_FOR_CONTAINERS = {"image", "shm_size", "memory", "mount", "network", "user", "docker_arg"}


class _WithContainers(click.Command):
    """Lists the options of containers under a heading of their own."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {"Options": [], _OF_CONTAINERS: []}
        for parameter in self.get_params(ctx):
            if told := parameter.get_help_record(ctx):
                sections[_OF_CONTAINERS if parameter.name in _FOR_CONTAINERS else "Options"].append(told)
        for title, options in sections.items():
            with formatter.section(title):
                formatter.write_dl(options)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="tritontune", message="tritontune %(version)s")
def cli() -> None:
    """Find the config.pbtxt with which Triton Inference Server serves your model best."""


def _with(*options: Callable[[_Command], _Command]) -> Callable[[_Command], _Command]:
    """Several options as one decorator; they are listed in their order."""

    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_triton_arg = click.option(
    "--triton-arg",
    metavar="--FLAG=VALUE",
    multiple=True,
    help="Passed to tritonserver, as --triton-arg=--FLAG=V.",
)
_env = click.option("--env", metavar="NAME[=VALUE]", multiple=True, help="A variable for the server; repeatable.")
_force = click.option("--force", is_flag=True, help="Replace the file that is to be written, where one is there.")
_started_with = _with(_triton_arg, _env)

_server_options = _with(
    click.option("--server", metavar="KIND", help="auto, process, docker or remote.  [default: auto]"),
    click.option("--image", metavar="IMAGE", help="Triton image for Docker.  [default: NVIDIA's]"),
    click.option("--triton-path", metavar="PATH", help="A tritonserver, or the installation it is in."),
    click.option("--launch-timeout", metavar="TIME", help="How long a model may take to be ready."),
    click.option(
        "--load-model", metavar="NAME", multiple=True, help="Another model to load, which the model calls; repeatable."
    ),
    _triton_arg,
    click.option("--gpus", metavar="GPUS", help="all, none, 0,1, GPU-UUID or MIG-UUID.  [default: what there is]"),
    _env,
    click.option("--shm-size", metavar="SIZE", help="Of a container's /dev/shm.  [default: 1GiB]"),
    click.option("--memory", metavar="SIZE", help="Limit on a container's memory."),
    click.option("--mount", metavar="SRC:DST[:ro]", multiple=True, help="What a container sees, too; repeatable."),
    click.option("--network", metavar="NAME", help="That a container joins."),
    click.option("--user", metavar="USER", help="As whom a container runs.  [default: you]"),
    click.option(
        "--docker-arg",
        metavar="NAME=VALUE",
        multiple=True,
        help="A keyword of docker-py, as nano_cpus=2000000000 (docker run's --cpus); VALUE is YAML; repeatable.",
    ),
)

_load_options = _with(
    click.option(
        "--input-data", metavar="KIND|FILE", help="random, zero, or a file: perf_analyzer's JSON, or .npz.  [random]"
    ),
    click.option(
        "--shape",
        metavar="[MODEL/]NAME:D1,D2",
        multiple=True,
        help="Dimensions of an input of variable shape, of every model that has it, or of one; repeatable.",
    ),
    click.option("--batch-size", "-b", metavar="N", help="Inferences in each request.  [default: 1]"),
    click.option("--string-length", metavar="N", help="Letters in each random string.  [default: 8]"),
    click.option("--string-data", metavar="TEXT", help="One text for all strings."),
    click.option(
        "--request-parameter", metavar="NAME:VALUE:TYPE", multiple=True, help="A parameter of each request; repeatable."
    ),
    click.option("--priority", metavar="N", help="Of each request, for a model with priority levels."),
    click.option("--queue-timeout", metavar="TIME", help="How long it may wait, where the queue policy allows that."),
    click.option("--header", "-H", metavar="NAME:VALUE", multiple=True, help="Sent with each request; repeatable."),
    click.option("--compression", metavar="KIND", help="gzip or deflate, over gRPC."),
    click.option("--shared-memory", metavar="KIND", help="none, system or cuda: where tensors lie.  [default: none]"),
    click.option(
        "--output-shared-memory-size", metavar="BYTES", help="For outputs of unknown size.  [default: 102400]"
    ),
    click.option(
        "--sequence-length", metavar="N", help="Mean requests a sequence, of a stateful model.  [default: 20]"
    ),
    click.option("--sequence-length-variation", metavar="SHARE", help="Around the mean.  [default: 0.2]"),
    click.option("--sequences", metavar="N", help="Sequences under way at once, at a rate.  [default: 4]"),
    click.option("--connections", metavar="N", help="For each process of the load generator.  [default: 1]"),
    click.option("--processes", metavar="N", help="Of the load generator.  [default: as many as it takes]"),
    click.option("--seed", metavar="N", help="Seed of every random choice.  [default: 0]"),
)


_remote_options = _with(
    click.option("--url", metavar="URL", help="A Triton that runs: HOST:PORT (gRPC), grpcs://, http:// or https://."),
    click.option("--tls-ca", metavar="FILE", help="Certificates to trust, PEM."),
    click.option("--tls-cert", metavar="FILE", help="Our own certificate."),
    click.option("--tls-key", metavar="FILE", help="Its key."),
    click.option("--tls-name", metavar="NAME", help="The name in the server's certificate, if it is not the URL's."),
)


@cli.command(cls=_WithContainers)
@click.argument("repository", metavar="MODEL_REPO", required=False)
@click.option("--model", metavar="NAME", multiple=True, help="Model to tune; repeatable.  [default: every one]")
@click.option("--slo", metavar="P=TIME", multiple=True, help="Limit that the best must hold, as p99=25ms; repeatable.")
@click.option("--budget", metavar="TIME", help="How long a model may take, verification included.  [default: 10m]")
@click.option("--trials", metavar="N", help="How many candidates to try, the config as it is included.")
@click.option(
    "--sampler", metavar="NAME", help="twin, tpe, gp, random, or grid: who proposes candidates.  [default: twin]"
)
@click.option("--warm-start", metavar="RUN_DIR", help="An earlier run of the same models, to begin from what it knows.")
@click.option("--space", metavar="NAME|FILE", help="Search space.  [default: default]")
@click.option("--max-concurrency", metavar="N", help="The highest load to offer.  [default: 1024]")
@click.option("--precision", metavar="P,P", help="Of throughput, and of the percentile.  [default: 3%,10%]")
@click.option(
    "--isolation",
    metavar="KIND",
    help="relaunch: a server for each candidate; reload: one that loads all in turn.  [default: relaunch]",
)
@click.option(
    "--explain",
    is_flag=True,
    default=None,
    help="Leave out each change of the best config once, to say what it does; on top of --budget.",
)
@click.option("--verify/--no-verify", default=None, help="Measure what is best again, and report that.  [default: on]")
@click.option("--max-gpu-memory", metavar="SIZE", help="What the best may take of each GPU, as 8GiB.  [default: all]")
@click.option(
    "--output-tolerance",
    metavar="SHARE|off",
    help="By how much floats of outputs may differ from those of the config as it is.  [default: 0.001]",
)
@_server_options
@_remote_options
@click.option(
    "--metrics-url", metavar="URL", help="Metrics of the Triton at --url.  [default: http://HOST:8002/metrics]"
)
@_load_options
@click.option("--job", metavar="FILE.yaml", type=_PATH, help="Job file; options win over it.")
@click.option("--out", metavar="DIR", type=_PATH, help="Where the results go.")
@click.option("--resume", is_flag=True, help="Go on with what --out holds; what it was asked for is known there.")
@click.option("--verbose", "-v", is_flag=True, help="Print the whole result: all points, effects and notes.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout, everything else on stderr.")
def run(job: Path | None, out: Path | None, *, resume: bool, verbose: bool, as_json: bool, **options: Any) -> None:
    """Tune the models of MODEL_REPO, or of the Triton at --url, and leave the best config.pbtxt in --out."""
    from tuner.cli.run import run as command  # noqa: PLC0415 (keeps --help and errors quick)

    command(job, _given(options), out, resume=resume, verbose=verbose, as_json=as_json)


@cli.command(cls=_WithContainers)
@click.argument("repository", metavar="[MODEL_REPO]", required=False)
@click.option("--model", metavar="NAME", help="Model to measure.  [default: the only one]")
@click.option("--model-version", metavar="N", help="Its version.  [default: the server's choice]")
@click.option(
    "--concurrency", metavar="N,N", help="Requests under way at once: 1,8,64 or START:END:STEP.  [default: 1]"
)
@click.option("--rate", metavar="R,R|max", help="Requests a second, in the same way; max: the highest it sustains.")
@click.option("--ramp", metavar="FROM:TO:TIME", help="A rate that rises, as 100:1000:60s.")
@click.option("--intervals", metavar="FILE", help="Replay: microseconds between requests, one a line, over and over.")
@click.option("--timestamps", metavar="FILE", help="Replay: times of requests in seconds, one a line, once.")
@click.option("--arrivals", metavar="KIND", help="poisson or constant: how a rate is spread.  [default: poisson]")
@click.option(
    "--slo", metavar="P=TIME", multiple=True, help="Limit that --rate max must hold, as p99=25ms; repeatable."
)
@click.option("--precision", metavar="P,P", help="Of throughput, and of the percentile.  [default: 3%,10%]")
@click.option(
    "--time", metavar="TIME", help="How long a load may take, or until two answers.  [default: by the precision, 10s]"
)
@_load_options
@_remote_options
@_server_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout, and nothing else.")
@click.option("--csv", metavar="FILE", type=_PATH, help="Write a row a load to a file, too.")
@_force
def measure(*, as_json: bool, csv: Path | None, force: bool, **options: Any) -> None:
    """Measure a model as it is, of a MODEL_REPO or on a server that runs."""
    from tuner.cli.measure import measure as command  # noqa: PLC0415 (keeps --help and errors quick)

    command(_given(options), as_json=as_json, csv=csv, force=force)


@cli.command()
@click.argument("run_dir", metavar="RUN_DIR", type=_PATH)
@click.option("--out", metavar="FILE", type=_PATH, help="Where to.  [default: report.html in RUN_DIR]")
@_force
def report(run_dir: Path, out: Path | None, *, force: bool) -> None:
    """Write the report of RUN_DIR anew, from what it has stored; a run may be at work in it."""
    from tuner.cli.report import report as command  # noqa: PLC0415 (keeps --help and errors quick)

    with boundary(run_dir):
        command(run_dir, out, force=force)


@cli.command()
@click.argument("run_dir", metavar="RUN_DIR", type=_PATH)
@click.option("--model", metavar="NAME", multiple=True, help="Model to export; repeatable.  [default: every one]")
@click.option("--slo", metavar="P=TIME", multiple=True, help="Pick the best for another limit, from what was measured.")
@click.option(
    "--to",
    metavar="DIR|FILE",
    type=_PATH,
    help="A folder for the whole model, or a file: .pbtxt, .json, .yaml.",
)
@click.option("--in-place", is_flag=True, help="Replace the repository's own config.pbtxt; a backup is kept.")
@click.option(
    "--format", "format_name", metavar="FORMAT", help="pbtxt, json, or configmap (of Kubernetes).  [default: pbtxt]"
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
    force: bool,
) -> None:
    """Export the best config.pbtxt of RUN_DIR: to stdout, --to a place, or --in-place."""
    from tuner.cli.export import export as command  # noqa: PLC0415 (keeps --help and errors quick)
    from tuner.cli.export_target import Target  # noqa: PLC0415 (the same)

    with boundary(run_dir):
        command(run_dir, model, slo, Target.of(to, format_name, in_place=in_place), force=force)


@cli.command()
@click.argument("run_dir", metavar="RUN_DIR", type=_PATH)
@click.option("--model", metavar="NAME", help="Of which model.  [default: the only one]")
@click.option("--rate", metavar="R", required=True, help="Requests a second that are to be held.")
@click.option("--slo", metavar="P=TIME", multiple=True, help="The limit, as p99=20ms.  [default: the study's]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def estimate(run_dir: Path, model: str | None, rate: str, slo: tuple[str, ...], *, as_json: bool) -> None:
    """Say from RUN_DIR alone which config, and how many hosts, would hold a load."""
    from tuner.cli.estimate import estimate as command  # noqa: PLC0415 (keeps --help and errors quick)

    with boundary(run_dir):
        command(run_dir, model, rate, slo, as_json=as_json)


@cli.command()
@click.argument("jobs", metavar="JOBS.yaml", required=False, type=_PATH)
@click.option("--check", is_flag=True, help="Only say what the night would do, or what is wrong with the file.")
@click.option("--schema", is_flag=True, help="Print the JSON schema of job files, for editors, and nothing else.")
@click.option("--json", "as_json", is_flag=True, help="Print the night's report as JSON on stdout.")
def nightly(jobs: Path | None, *, check: bool, schema: bool, as_json: bool) -> None:
    """Look after deployed configs, every night: measure, tune, compare, and act on what is surely better.

    For each model that JOBS.yaml names: measure the deployed config, and hold it against its own history; tune within
    the budget, from what last night knew; launch what is best and what is deployed side by side, in pairs; and propose
    or apply it, or hand it to a command, only when the lower bound of its gain exceeds min_gain and the SLO is surely
    held. Paths in the file are relative to the current folder.

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
    Exit codes, of the worst that happened to any model:
      0   kept: nothing is surely better than what is deployed
      10  improved: something is, and the action was taken
      20  regression: a deployed config got slower than its own history
      1   failed: a model could not be looked after, or the night was cut short
      2   the job file is wrong, or another night is at work
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
    help="The history: a SQLite file, or a postgresql:// URL.",
)
@click.option("--model", metavar="NAME", multiple=True, help="Of which model; repeatable.  [default: every one]")
@click.option("--nights", metavar="N", type=click.IntRange(min=1), default=30, show_default=True, help="The last N.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def history(place: str, model: tuple[str, ...], nights: int, *, as_json: bool) -> None:
    """Print and plot what the nights have measured: throughput, latency and gain of each model."""
    from tuner.cli.history import history as command  # noqa: PLC0415 (keeps --help and errors quick)

    command(place, model, nights, as_json=as_json)


@cli.command()
@click.argument("repository", metavar="[MODEL_REPO]", required=False)
@click.option("--triton-path", metavar="PATH", help="A tritonserver, or the installation it is in.")
@click.option("--image", metavar="IMAGE", help="Triton image for Docker.")
@_started_with
def doctor(repository: str | None, **options: Any) -> None:
    """Check what tuning needs on this machine, and say what to do about what is missing."""
    from tuner.cli.doctor import doctor as command  # noqa: PLC0415 (keeps --help and errors quick)

    command(repository, _given(options))


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given; the job that they make knows the defaults, and reads the texts."""
    return {name: value for name, value in options.items() if value not in {None, ()}}


def main() -> NoReturn:
    """The entry point: every error is one line, and its exit code says of which kind it is."""
    _end_on_sigterm()
    # gRPC would write of its own accord what an error says in one line.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        with boundary(), _reader_may_leave():
            code = cli.main(sys.argv[1:] or ["--help"], standalone_mode=False) or 0
            _flush()
        sys.exit(code)
    except click.exceptions.Exit as ended:
        sys.exit(ended.exit_code)
    except click.ClickException as error:
        _fail(error.format_message(), UsageError.exit_code)
    except TritontuneError as error:
        _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _fail("interrupted", 130)


def _fail(message: str, code: int) -> NoReturn:
    line = f"tritontune: {shortened(message)}".encode(errors="backslashreplace").decode()
    with suppress(OSError):  # nobody reads it any more
        click.echo(line, err=True)
    _give_up_stdout_if_broken()
    sys.exit(code)


@contextmanager
def _reader_may_leave() -> Iterator[None]:
    """Whoever reads our output may have read enough, as `head` has; that is no error of ours, and no word is due."""
    try:
        yield
    except BrokenPipeError:
        if not _give_up_stdout_if_broken():
            raise
        sys.exit(1)


def _give_up_stdout_if_broken() -> bool:
    """Keep Python from trying at its end to write where nothing can be written. Returns whether that is so."""
    try:
        _flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def _flush() -> None:
    print(end="", flush=True)  # noqa: T201 (unlike a call of stdout's own, it takes a closed one)


def _end_on_sigterm() -> None:
    """SIGTERM ends a run as Ctrl-C does; what comes while it is ending no longer disturbs."""

    def end(*_: object) -> None:
        ignore_what_ends()
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
