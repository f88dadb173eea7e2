"""Removes what the process of a job has left: `python -m tuner.service.leftovers JOB_FOLDER`.

The service runs it when a job was cancelled or lost, as a process of its own: removing containers may take long, and
needs libraries that the service does not. It may be repeated. It ends processes, containers and temporary folders,
restores model configs of a running Triton, and writes the report of the partial result.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tuner.core.boundary import in_one_line
from tuner.core.errors import TritontuneError, TuningError, shortened
from tuner.jobs.event_log import EventLog
from tuner.jobs.events import Noted
from tuner.servers.contradictions import FOR_DOCKER
from tuner.servers.docker.launcher import engine_problem, remove_docker_leftovers
from tuner.servers.process import remove_process_leftovers
from tuner.servers.work_folder import remove_abandoned_work
from tuner.service.job_folder import JobFolder, SubmissionRecord
from tuner.service.job_processes import end_processes_of
from tuner.service.place import nights_of
from tuner.service.secrets import with_secrets
from tuner.study.run_folder import RunFolder


def main(arguments: Sequence[str]) -> int:
    """Remove the leftovers of a job. Prints what is left, a line each; returns 1 if there is anything."""
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name}", description="Remove what a job has left.")
    parser.add_argument("folder", metavar="JOB_FOLDER", type=Path)
    folder = JobFolder(parser.parse_args(arguments).folder.resolve())
    secrets = json.loads(sys.stdin.read() or "{}")
    left = list(remove(folder, secrets))
    for line in left:
        print(shortened(line))  # noqa: T201 (the service reads it)
    return 1 if left else 0


def remove(folder: JobFolder, secrets: Mapping[str, str]) -> Iterator[str]:
    """Remove the leftovers of a job, whose process has ended.

    Args:
        folder: The folder of the job.
        secrets: The secrets that the job refers to, by name.

    Yields:
        What could not be removed, in words.
    """
    lease = folder.lease()
    record = folder.read()
    if lease is not None:
        yield from end_processes_of(lease)
    steps: list[Callable[[], object]] = [
        remove_process_leftovers,
        remove_abandoned_work,
        lambda: _remove_containers(record),
        lambda: shutil.rmtree(RunFolder(folder.run).work, ignore_errors=True),
        lambda: _clear_nights(folder, record),
    ]
    for step in steps:
        if problem := _problem(step):
            yield problem
    # These keep no slot busy: a server that does not answer may never come back.
    for step in (lambda: _restore(folder, record, secrets), lambda: _report(folder)):
        if problem := _problem(step):
            with suppress(OSError):
                EventLog(folder.path).append(Noted, text=shortened(problem))


def _problem(step: Callable[[], object]) -> str | None:
    """Why a step failed; None: it did not."""
    try:
        step()
    except TritontuneError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 (one step must not keep the others from their work)
        return in_one_line(error)
    return None


def _remove_containers(record: SubmissionRecord) -> None:
    """Remove containers of killed owners, unless the job cannot have had any.

    Raises:
        TuningError: the engine does not answer, but the job needed it; or it fails to remove them.
    """
    options = record.job.job
    if options.get("server") in {"process", "remote"} or options.get("url") or options.get("triton_path"):
        return
    if (problem := engine_problem(None)) is None:
        remove_docker_leftovers()
    elif options.get("server") == "docker" or any(options.get(name) for name in FOR_DOCKER):
        raise TuningError(problem)


def _clear_nights(folder: JobFolder, record: SubmissionRecord) -> None:
    if record.job.kind == "nightly":
        from tuner.nightly.work_folder import WorkFolder  # noqa: PLC0415 (few jobs need what takes half a second)

        list(WorkFolder(nights_of(folder, record.job)).clear_up())


def _restore(folder: JobFolder, record: SubmissionRecord, secrets: Mapping[str, str]) -> None:
    """Restore the model configs that the job has replaced on a running Triton.

    Raises:
        TritontuneError: the server does not answer, or refuses.
    """
    out = RunFolder(folder.run)
    if record.job.kind == "tune" and out.own_configs.exists():
        from tuner.jobs.progress import Progress  # noqa: PLC0415 (the same)
        from tuner.jobs.tuning import give_back  # noqa: PLC0415 (the same)
        from tuner.options.tune_job import TuneJob  # noqa: PLC0415 (the same)

        give_back(TuneJob.make(with_secrets(record.job.job, secrets), source="job"), out, Progress())
        if out.own_configs.exists():
            raise TuningError(f"{record.job.job.get('url')}: the job's configs are still loaded; reload the models")


def _report(folder: JobFolder) -> None:
    """Write the files of the partial result, if there is one and its process did not write them."""
    out = RunFolder(folder.run)
    if out.database.exists() and not out.report.exists():
        from tuner.report.html.page import write_report  # noqa: PLC0415 (the same)
        from tuner.results.result_files import write_results  # noqa: PLC0415 (the same)
        from tuner.study.study import Study  # noqa: PLC0415 (the same)

        studies = [study for study in Study.load_all(out.database) if study.trials]
        for study in studies:
            write_results(out, study)
        if studies:
            write_report(out)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(main(sys.argv[1:]))
