"""One model's part of a night: measure the deployed config, tune, compare, decide, act."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from tuner.cluster.dispatcher import Dispatcher
from tuner.config.deploy import finish_replacing
from tuner.config.diff import patch_diff
from tuner.config.patch import Patch
from tuner.config.repository import ModelFolder
from tuner.core import deadlines
from tuner.core.atomic_file import remove_unfinished
from tuner.core.errors import ServerError, TritontuneError
from tuner.core.interrupts import put_off
from tuner.core.json_text import finite
from tuner.core.loads import Concurrency, SteadyLoad
from tuner.jobs.event_progress import EventProgress
from tuner.jobs.progress import ModelOutcome, Progress, Progresses
from tuner.jobs.run_context import RunContext, trial_terms_of
from tuner.jobs.tuning import identity_of, reported, run_context, tune_model
from tuner.jobs.watches import LaunchWatch
from tuner.measure.points import OperatingPoint
from tuner.measure.quality_warnings import QualityCheck
from tuner.measure.rules import LevelRules
from tuner.measure.work import Limits, Loads, Work
from tuner.nightly.actions import Improvement, act, improved, is_deployed, withdraw
from tuner.nightly.compare import ComparisonTerms, compare, launch_deployed, load_within
from tuner.nightly.comparison import Comparison, PairedLaunch
from tuner.nightly.drift import NO_HISTORY, Drift, PastMeasurement, judge_drift, normal_nights
from tuner.nightly.gate import Decision, decide
from tuner.nightly.history import History, Night
from tuner.nightly.measured import Conditions, Measured, config_fingerprint
from tuner.nightly.night_progress import NightProgress
from tuner.nightly.outcome import EXIT_CODES, Outcome
from tuner.nightly.tasks import Task
from tuner.recommend.front import TrialPoint
from tuner.report.html.page import write_report
from tuner.results.result_files import config_with_provenance
from tuner.space.originals import originals_of
from tuner.study.run_folder import RunFolder
from tuner.study.study import Identity

# Launches of the deployed config tonight: the fewest, the most, and the relative half width of throughput at which they
# end. If the config seems slower, it is measured a second time.
_LAUNCHES, _MOST_LAUNCHES, _PRECISE = 3, 6, 0.05
COMPARING_SHARE = 0.5
"""Additional time for the comparison, after the least number of pairs, as a share of the budget."""
# Seconds of a measurement, as for the finalists of a run.
_RULES = LevelRules(min_s=1.5, max_s=3.0)
# A candidate gets more time if its requests are too few to show that it holds the SLO.
_CANDIDATE_RULES = LevelRules(min_s=1.5, max_s=6.0)


@dataclass(frozen=True)
class NightContext:
    """The context of one model's part of a night.

    Attributes:
        night: When the night began, ISO 8601 in UTC.
        folder: The folder for the results of this part; it does not exist yet.
        work: The folder of all nights.
        last: The run folder of the latest night with this model; None: there is none.
        budget: Budget of the tuning, in seconds.
        spare_until: Deadline of the comparison if no other model needs the time, by `time.monotonic`.
        at_last: Deadline for beginning anything, by `time.monotonic`.
        say: Takes progress messages.
        until_reported: Contexts (such as blocked signals) to hold until the outcome is stored and reported.
        events: Receives the events of the night, too; None: nobody does.
    """

    night: str
    folder: Path
    work: Path
    last: Path | None
    budget: float
    spare_until: float
    at_last: float
    say: Callable[[str], None]
    until_reported: ExitStack
    events: EventProgress | None = None


def run_model_night(task: Task, night_context: NightContext, history: History) -> Night:
    """Compare the deployed config with its history, tune the model, and act on an improvement that passes the gate.

    Returns:
        The result, for the history and the report.

    Raises:
        TritontuneError: the model could not be measured or tuned.
        KeyboardInterrupt: the night was interrupted; nothing was deployed without a complete comparison.
    """
    with EventProgress.of_run(RunFolder(night_context.folder), night_context.say) as own:
        others = [night_context.events] if night_context.events else []
        progress = Progresses(NightProgress(night_context.say), own, *others)
        night = _run_model_night(task, replace(night_context, say=progress.note), history, progress)
        own.night_ended(night.model, night_json(night))
        own.ended(EXIT_CODES[night.outcome], night.reason)
    return night


def night_json(night: Night) -> dict[str, Any]:
    """One night of a model as JSON, as in the night's report."""
    told: dict[str, Any] = finite(night.model_dump(mode="json"))
    return told


def _run_model_night(task: Task, night_context: NightContext, history: History, progress: Progress) -> Night:
    began = time.monotonic()
    if finish_replacing(task.repository.path):
        night_context.say(f"{task.name}: finished writing the files of an earlier night, which was killed")
    if count := remove_unfinished(task.config_path):
        night_context.say(
            f"removed {count} unfinished file{'s' * (count > 1)} of a killed night beside {task.config_path}"
        )
    if why := withdraw(task, work=night_context.work):
        night_context.say(f"{task.name}: {why}")
    job = task.job.tuning(budget=night_context.budget, warm_start=night_context.last or task.job.warm_start)
    with run_context(job, RunFolder(night_context.folder), progress=progress) as (context, (model,)):
        identity = identity_of(context, model)
        conditions = _conditions(identity, task)
        same = [night for night in history.past(conditions) if night.measured.request_rate == identity.rate]
        past = normal_nights(same, identity.files)
        deployed = _Deployed(Launches(context, model, night_context.folder / "nightly"), identity, past, progress)
        deployed.measure()
        with reported(context, write_report):
            outcome = tune_model(context, model)
        compared = _compare(task, night_context, outcome, deployed, progress)
        drift = deployed.drift(task.min_regression)
        if drift.suspected:
            night_context.say(f"{task.name}: re-measuring it, since it may be slower: {drift.reason}")
            deployed.measure()
            drift = deployed.drift(task.min_regression)
    decision = decide(compared, min_gain=task.min_gain)
    if drift.regression or drift.inconclusive:
        night_context.say(f"{task.name}: {drift.reason}")
    action, failed, candidate, text, better = "", "", None, "", None
    best = outcome.recommendation.best
    if decision.act and compared and best:
        improvement = _improvement(outcome, best, compared)
        better = improvement.measured
        try:
            # An action must be reported, so it is not interrupted. The user's command may be, as it can take long.
            if task.job.action != "command":
                night_context.until_reported.enter_context(put_off())
            action = act(task, improvement, work=night_context.work, night=night_context.folder)
        except TritontuneError as error:
            failed = f"; {error}; the config is in {improved(night_context.folder)}"
        if is_deployed(task, improved(night_context.folder)):
            candidate, text = better, improvement.patch.config
    return Night(
        night=night_context.night,
        repository=task.repository_key,
        model=task.model.name,
        slo=str(task.job.slo),
        objective=task.job.objective.name,
        outcome=_outcome(decision, drift, failed),
        reason=f"{decision.reason}{failed}",
        regression=drift.regression,
        drift=drift.reason,
        action=action,
        gain=compared.gain if compared else None,
        duration_s=round(time.monotonic() - began, 1),
        files=identity.files,
        folder=str(night_context.folder),
        conditions=conditions,
        deployed=deployed.measured or _of_study(outcome),
        candidate=candidate,
        candidate_config=config_fingerprint(text) if candidate else "",
        improvement=better,
    )


def _outcome(decision: Decision, drift: Drift, failed: str) -> Outcome:
    """The worst outcome."""
    if failed:
        return "failed"
    return "regression" if drift.regression else "improved" if decision.act else "kept"


class _Deployed:
    """The deployed config and its launches of this night.

    Args:
        launches: Launches configs of the model.
        identity: The identity of the study, which holds the text of the config.
        past: The normal nights before.
        progress: Receives the phase, and notes.
    """

    def __init__(self, launches: Launches, identity: Identity, past: list[PastMeasurement], progress: Progress) -> None:
        self.launches = launches
        self._identity = identity
        self._past = past
        self._progress = progress
        # Nights are compared under the load of the latest one.
        self._load = past[-1].measured.load if past else None
        self._rounds: list[OperatingPoint] = []
        self._count = 0

    def measure(self) -> None:
        """Launch it repeatedly under the load of its history, if it has one."""
        if self._load is None:
            return
        self._progress.phase_began("deployed")
        self._progress.note(f"measuring the deployed config at {self._load}")
        for number in range(_MOST_LAUNCHES):
            measured = self.measured
            if number >= _LAUNCHES and measured and measured.throughput.relative_half_width <= _PRECISE:
                return
            self.add(self.launch([self._load]))

    def launch(self, loads: Sequence[SteadyLoad]) -> PairedLaunch:
        """Launch it once.

        Raises:
            TuningError: the deployed config failed twice.
        """
        self._count += 1
        name = f"deployed-{self._count:02d}"
        return launch_deployed(
            lambda _: self.launches.launch(self.launches.deployed, loads, name), self._count, self._progress.note
        )

    def add(self, side: PairedLaunch) -> None:
        """Add the point of a launch under the load of its history."""
        if self._load is None or (point := side.at(self._load)) is None:
            return
        self._rounds.append(point)

    def begin_history(self, comparison: Comparison) -> None:
        """If there is no history, begin it with the launches at the config's best load in the comparison."""
        if self._load is None and (load := comparison.deployed_load):
            self._load = load
        for side in comparison.deployed:
            self.add(side)

    @property
    def measured(self) -> Measured | None:
        """All launches so far under the load of its history as one measurement; None without any.

        Launches during other load on the machine are omitted if enough other launches remain.
        """
        checks = [{warning.check for warning in point.warnings} for point in self._rounds]
        quiet = [p for p, failed in zip(self._rounds, checks, strict=True) if QualityCheck.MACHINE_LOAD not in failed]
        rounds = quiet if len(quiet) >= _LAUNCHES else self._rounds
        return Measured.of(rounds, self._identity.percentile)

    def drift(self, min_regression: float) -> Drift:
        """Compare tonight's measurement with its history."""
        now = self.measured
        if now is None or not self._past:
            return NO_HISTORY
        return judge_drift(now, self._past, files=self._identity.files, min_regression=min_regression)


def _compare(
    task: Task, night_context: NightContext, outcome: ModelOutcome, deployed: _Deployed, progress: Progress
) -> Comparison | None:
    """Launch the best candidate and the deployed config in pairs; None if the search found nothing better."""
    best = outcome.recommendation.best
    if best is None or best.trial.number == 0 or not isinstance(best.point.load, SteadyLoad):
        return None
    progress.phase_began("comparison")

    def launch(loads: Sequence[SteadyLoad], name: str) -> PairedLaunch:
        return deployed.launches.launch(best.trial.patch, loads, name, candidate=True)

    numbers = count(1)

    def tried(load: Concurrency) -> OperatingPoint:
        return launch((load,), f"candidate-try-{next(numbers):02d}").points[0]

    try:
        load: SteadyLoad = best.point.load
        if isinstance(load, Concurrency):
            load = load_within(tried, load, task.job.slo, at_last=night_context.at_last, note=progress.note)
    except ServerError as error:
        failure = f"{error.cause.value}: {error}"
        return Comparison(slo=task.job.slo, loads=(best.point.load,), failure=failure, objective=task.job.objective)
    # Near the limit, launches may differ too much for the test to decide. At half the load, the test usually decides.
    is_halved = isinstance(load, Concurrency) and task.job.slo.root and load.requests > 1
    halved = (Concurrency(int(load.level) // 2),) if is_halved else ()
    candidates: tuple[SteadyLoad, ...] = (load, *halved)
    # The deployed config is measured at its own best load and at the candidate's, for a fair comparison.
    loads = list(dict.fromkeys([_own_load(outcome), load]))
    progress.note(f"{task.name}: comparing trial {best.trial.number} at {load} with the deployed config")
    now = time.monotonic()
    compared = compare(
        lambda _: deployed.launch(loads),
        lambda number: launch(candidates, f"candidate-{number:02d}"),
        ComparisonTerms(
            slo=task.job.slo,
            loads=candidates,
            objective=task.job.objective,
            min_gain=task.min_gain,
            seed=task.job.seed,
            until=max(
                night_context.spare_until, min(night_context.at_last, now + COMPARING_SHARE * night_context.budget)
            ),
            at_last=night_context.at_last,
        ),
        note=progress.note,
    )
    deployed.begin_history(compared)
    return compared


def _own_load(outcome: ModelOutcome) -> SteadyLoad:
    """The deployed config's best load within the SLO in the search; the lowest load if no load holds it."""
    own = outcome.recommendation.baseline
    curve = outcome.study.trials[0].curve
    load = own.point.load if own else curve[0].load
    return load if isinstance(load, SteadyLoad) else Concurrency(1)


def _of_study(outcome: ModelOutcome) -> Measured | None:
    """The tuning's measurement of the deployed config, which begins its history if there is none."""
    own = outcome.recommendation.baseline
    if own is None:
        return None
    rounds = next(
        (len(v.rounds) for v in outcome.study.verified if (v.trial, v.load) == (0, own.point.load) and v.rounds), 1
    )
    return Measured.of_point(own.point, outcome.study.identity.percentile, launches=rounds)


def _improvement(outcome: ModelOutcome, best: TrialPoint, compared: Comparison) -> Improvement:
    study = outcome.study
    text = config_with_provenance(study, best, compared.gain, study.identity.slo)
    before = study.own_patch
    after = best.trial.others.with_config(text)
    gain, measured = compared.gain, Measured.of(compared.candidate_rounds, study.identity.percentile)
    if gain is None or measured is None:
        raise AssertionError("the gate passed a config without a measurement")
    return Improvement(before, after.changed_from(before), patch_diff(before, after, outcome.model), gain, measured)


def _conditions(identity: Identity, task: Task) -> Conditions:
    return Conditions(
        repository=task.repository_key,
        model=identity.model,
        config=config_fingerprint(identity.config),
        hardware=", ".join(
            part for part in (identity.machine, identity.driver and f"driver {identity.driver}") if part
        ),
        server=identity.server,
        requests=json.dumps(identity.requests, sort_keys=True),
    )


class Launches:
    """Launches one model repeatedly.

    Args:
        context: The context of the run.
        model: The model.
        folder: The folder for the logs of the servers.

    Attributes:
        deployed: The patch of the deployed config.
    """

    def __init__(self, context: RunContext, model: ModelFolder, folder: Path) -> None:
        self._deployed, self._candidate = (
            trial_terms_of(context, model.name, rules)
            for rules in ((_RULES, _CANDIDATE_RULES) if context.job.rate is None else (_CANDIDATE_RULES,) * 2)
        )
        self._folder = folder
        self._dispatcher = Dispatcher(
            context.executor, LaunchWatch(context.progress) if context.has_several_slots else None
        )
        self.deployed = originals_of(context.spec, model, context.job).with_config(
            model.config.text if model.config else ""
        )
        self._launch_s = context.job.launch_timeout or deadlines.first_launch_s(model.size_bytes())

    def launch(self, patch: Patch, loads: Sequence[SteadyLoad], name: str, *, candidate: bool = False) -> PairedLaunch:
        """Launch a patch once, and measure it under each load.

        Args:
            patch: The patch.
            loads: The loads, in the order in which they are measured.
            name: The name of the folder for the server's log.
            candidate: Whether it is a candidate, which gets more time for the test of the SLO.

        Raises:
            ServerError: the server failed.
        """
        limits = Limits(launch_s=self._launch_s, first_answer_s=deadlines.FIRST_ANSWER_S, total_s=0.0)
        terms = self._candidate if candidate else self._deployed
        work = Work(terms, patch, Loads(tuple(loads)), limits, is_baseline=not candidate)
        outcome = self._dispatcher.carry_out(name, work, self._folder / name)
        if outcome.failure:
            raise outcome.failure.as_error()
        return PairedLaunch(points=outcome.points)
