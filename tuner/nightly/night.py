"""Runs a night: all models of a job file in turn, and its report."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timezone

from tuner.core.atomic_file import write_atomically
from tuner.core.boundary import in_one_line, write_log
from tuner.core.errors import InterruptedRunError, JobError, TritontuneError, shortened
from tuner.core.interrupts import put_off, undisturbed
from tuner.core.json_text import json_text
from tuner.core.lock import locked
from tuner.core.quantities import format_duration
from tuner.jobs.event_progress import EventProgress
from tuner.nightly.history import History, Night
from tuner.nightly.jobs import JobsFile
from tuner.nightly.model_night import COMPARING_SHARE, NightContext, night_json, run_model_night
from tuner.nightly.notify import report_json, send_notifications
from tuner.nightly.outcome import NightReport, in_words
from tuner.nightly.prometheus import write_metrics
from tuner.nightly.tasks import Task
from tuner.nightly.work_folder import REPORT, WorkFolder

# A model is skipped if less than this share of its budget is left.
_LEAST_SHARE = 0.25


def run_night(
    file: JobsFile, tasks: Sequence[Task], say: Callable[[str], None], events: EventProgress | None = None
) -> NightReport:
    """Run all models within the window, and write the report.

    An interruption, or the end of the window, ends the current model; the report states it.

    Args:
        file: The job file.
        tasks: Its models; see `tasks_of`.
        say: Takes progress messages, one line each.
        events: Receives the events of all models, and the messages; None: nobody does.

    Raises:
        JobError: another night is running, or the history cannot be opened; nothing was done.
    """
    with (
        locked(file.work, option="work", holder="another night"),
        History.opened(file.history_url) as history,
    ):
        return _Night(file, tasks, history, say, events).run()


class _Night:
    def __init__(
        self,
        file: JobsFile,
        tasks: Sequence[Task],
        history: History,
        say: Callable[[str], None],
        events: EventProgress | None,
    ) -> None:
        self._file, self._tasks, self._history = file, tasks, history
        self._work = WorkFolder(file.work)
        self._notes: list[str] = []
        self._done: list[Night] = []
        self._print, self._events = say, events
        self._stopped = ""
        self._began = self._task_began = time.monotonic()
        started = datetime.now(timezone.utc)
        self._night = started.isoformat(timespec="seconds")
        for line in self._work.clear_up():
            self._note(line)
        self._folder = self._work.new_night(started)

    def run(self) -> NightReport:
        """Run the night."""
        window = NightWindow()
        try:
            with window.lasting(self._file.window):
                for task in self._tasks:
                    self._do(task)
        except KeyboardInterrupt:
            self._stopped = "the window was over" if window.over else "the night was interrupted"
        with undisturbed():
            for task in self._tasks[len(self._done) :]:
                self._add(self._failed(task, self._stopped, time.monotonic() - self._task_began))
                self._task_began = time.monotonic()
            return self._end()

    def _do(self, task: Task) -> None:
        self._task_began = time.monotonic()
        ends = self._began + self._file.window
        left = ends - self._task_began
        due, *later = ((1 + COMPARING_SHARE) * other.job.budget for other in self._tasks[len(self._done) :])
        share = min(1.0, left / (due + sum(later)))
        if share < _LEAST_SHARE:
            self._add(self._failed(task, f"skipped: {format_duration(max(left, 1.0))} of the window was left", 0.0))
            return
        if share < 1:
            self._note(f"{task.name}: budget cut to {share:.0%} to end within the window")
        with ExitStack() as until_reported:
            night_context = NightContext(
                night=self._night,
                folder=self._folder / task.folder,
                work=self._file.work,
                last=self._work.last_run(task.folder, task.model.name, before=self._folder),
                budget=share * task.job.budget,
                spare_until=ends - sum(later),
                at_last=ends,
                say=self._print,
                until_reported=until_reported,
                events=self._events,
            )
            night = self._part(task, night_context)
            until_reported.enter_context(put_off())
            self._add(night)

    def _part(self, task: Task, night_context: NightContext) -> Night:
        """Run one model, and return its result."""
        try:
            return run_model_night(task, night_context, self._history)
        except InterruptedRunError:
            raise KeyboardInterrupt from None
        except TritontuneError as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001 (an error of one model must not end the night)
            with suppress(OSError):
                night_context.folder.mkdir(parents=True, exist_ok=True)
            log = write_log(error, night_context.folder)
            reason = f"unexpected {in_one_line(error)}; {f'the log is {log}' if log else 'no log could be written'}"
        return self._failed(task, reason, time.monotonic() - self._task_began)

    def _failed(self, task: Task, reason: str, took_s: float) -> Night:
        return Night(
            night=self._night,
            repository=task.repository_key,
            model=task.model.name,
            slo=str(task.job.slo),
            objective=task.job.objective.name,
            outcome="failed",
            reason=shortened(reason),
            duration_s=round(took_s, 1),
            folder=str(self._folder / task.folder),
        )

    def _add(self, night: Night) -> None:
        """Store the result of a model before anything else happens."""
        try:
            self._history.add(night)
        except JobError as error:
            night = night.model_copy(update={"outcome": "failed", "reason": f"{night.reason}; not recorded: {error}"})
        self._done.append(night)
        self._say(in_words(night))
        if self._events:
            self._events.night_ended(night.model, night_json(night))

    def _end(self) -> NightReport:
        """Write the report, send the notifications, and write the report again with failed notifications."""
        if self._file.prometheus:
            try:
                write_metrics(self._report(), self._file.prometheus)
            except OSError as error:
                self._note(f"prometheus: {self._file.prometheus}: {error.strerror}")
        self._write(self._report())
        for problem in send_notifications(self._report(), self._file.notify):
            self._note(problem)
        report = self._report()
        self._write(report)
        self._work.prune(self._file.keep_nights)
        took = format_duration(report.duration_s)
        self._say(f"{report.outcome} (exit code {report.exit_code}) after {took}; report: {self._folder / REPORT}")
        return report

    def _report(self) -> NightReport:
        took_s = time.monotonic() - self._began
        return NightReport.of(self._night, tuple(self._done), notes=tuple(self._notes), duration_s=took_s)

    def _write(self, report: NightReport) -> None:
        path = self._folder / REPORT
        try:
            write_atomically(path, json_text(report_json(report), indent=1) + "\n")
        except OSError as error:
            self._note(f"{path}: cannot be written: {error.strerror}")

    def _note(self, text: str) -> None:
        self._notes.append(text)
        self._say(text)

    def _say(self, text: str) -> None:
        self._print(text)
        if self._events:
            self._events.note(text)


class NightWindow:
    """The time window of a night; at its end, the work is interrupted as by Ctrl-C.

    Attributes:
        over: Whether the window has ended.
    """

    def __init__(self) -> None:
        self.over = False

    @contextmanager
    def lasting(self, seconds: float) -> Iterator[None]:
        """Raise `KeyboardInterrupt` in the context after `seconds`. Without effect outside the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        ending = ExitStack()

        def end(*_: object) -> None:
            self.over = True
            ending.enter_context(undisturbed())
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGALRM, end)
        began = time.monotonic()
        others_s, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            ending.close()
            signal.signal(signal.SIGALRM, before)
            if others_s:
                signal.setitimer(signal.ITIMER_REAL, max(0.001, others_s - (time.monotonic() - began)))
