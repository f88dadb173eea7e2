"""One model's part of a night: measure what is deployed, tune, compare, decide, act."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from tuner.config.config import ModelConfig
from tuner.config.diff import unified_diff
from tuner.core.atomic_file import remove_unfinished
from tuner.core.errors import ServerError, TritontuneError
from tuner.core.interrupts import put_off
from tuner.core.loads import Concurrency
from tuner.jobs.progress import ModelOutcome
from tuner.jobs.tuning import identity_of, reported, run_context, tune_model
from tuner.measure.points import OperatingPoint
from tuner.measure.quality_warnings import QualityCheck
from tuner.nightly.actions import Improvement, act, improved, is_deployed, withdraw
from tuner.nightly.compare import ComparisonTerms, compare, launched, load_within
from tuner.nightly.comparison import Comparison, PairedLaunch
from tuner.nightly.drift import NO_HISTORY, Drift, PastMeasurement, judge_drift, normal_nights
from tuner.nightly.gate import Decision, decide
from tuner.nightly.history import History, Night
from tuner.nightly.launches import Launches
from tuner.nightly.measured import Conditions, Measured, config_fingerprint
from tuner.nightly.outcome import Outcome
from tuner.nightly.progress import NightProgress
from tuner.nightly.tasks import Task
from tuner.recommend.front import TrialPoint
from tuner.report.html.page import write_report
from tuner.results.files import config_with_provenance
from tuner.study.run_folder import RunFolder
from tuner.study.study import Identity

# So many launches say how fast the deployed config is tonight: more while its throughput is not known to 5 %; and so
# many more whether it is really slower, where it seems so.
_LAUNCHES, _MOST_LAUNCHES, _PRECISE = 3, 6, 0.05
# Comparing takes so much of the budget on top of it, once there are enough pairs to tell something.
COMPARING_SHARE = 0.5


@dataclass(frozen=True)
class NightContext:
    """What a model's part of a night has to do with the rest of it.

    Attributes:
        night: When the night began, as the history writes it.
        folder: For all that this part leaves; not there yet.
        work: The folder of all nights.
        last: The run of the latest night that knows this model; None: there is none.
        budget: Seconds for the tuning.
        spare_until: Until when nobody else needs the time, by `time.monotonic`: comparing may go on until then.
        at_last: When to begin nothing any more.
        say: Is told what happens.
        until_told: What holds until the outcome is kept and told.
    """

    night: str
    folder: Path
    work: Path
    last: Path | None
    budget: float
    spare_until: float
    at_last: float
    say: Callable[[str], None]
    until_told: ExitStack


def run_model_night(task: Task, night_context: NightContext, history: History) -> Night:
    """See whether the deployed config is still as fast as it was, and whether another is surely better.

    Returns:
        How it went.

    Raises:
        TritontuneError: it could not be done.
        KeyboardInterrupt: it was interrupted; nothing is deployed that was not compared to its end.
    """
    began = time.monotonic()
    if count := remove_unfinished(task.config_path):
        night_context.say(
            f"removed {count} unfinished file{'s' * (count > 1)} of a killed night beside {task.config_path}"
        )
    if why := withdraw(task, work=night_context.work):
        night_context.say(f"{task.name}: {why}")
    job = task.job.tuning(budget=night_context.budget, warm_start=night_context.last or task.job.warm_start)
    with run_context(job, RunFolder(night_context.folder), progress=NightProgress(night_context.say)) as (
        context,
        (model,),
    ):
        identity = identity_of(context, model)
        conditions = _conditions(identity, task)
        past = normal_nights(history.past(conditions), identity.files)
        deployed = _Deployed(
            Launches(context, model, night_context.folder / "nightly"), identity, past, night_context.say
        )
        deployed.measure()
        with reported(context, write_report):
            outcome = tune_model(context, model)
        compared = _compare(task, night_context, outcome, deployed)
        drift = deployed.drift(task.min_regression)
        if drift.suspected:
            night_context.say(f"{task.name}: re-measuring it, since it may be slower: {drift.reason}")
            deployed.measure()
            drift = deployed.drift(task.min_regression)
    decision = decide(compared, min_gain=task.min_gain)
    if drift.regression or drift.inconclusive:
        night_context.say(f"{task.name}: {drift.reason}")
    action, failed, candidate, text = "", "", None, ""
    best = outcome.recommendation.best
    if decision.act and compared and best:
        found = _improvement(outcome, best, compared)
        try:
            # What was done must be told; only a command of the user's is too long to let it run to its end.
            if task.job.action != "command":
                night_context.until_told.enter_context(put_off())
            action = act(task, found, work=night_context.work, night=night_context.folder)
        except TritontuneError as error:
            failed = f"; {error}; the config is in {improved(night_context.folder)}"
        if is_deployed(task, improved(night_context.folder) / "config.pbtxt"):
            candidate, text = found.measured, found.text
    return Night(
        night=night_context.night,
        repository=task.repository_key,
        model=task.model.name,
        slo=str(task.job.slo),
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
    )


def _outcome(decision: Decision, drift: Drift, failed: str) -> Outcome:
    """The worst of what there is to tell."""
    if failed:
        return "failed"
    return "regression" if drift.regression else "improved" if decision.act else "kept"


class _Deployed:
    """The deployed config, as it is launched through the night.

    Args:
        launches: Launches it.
        identity: Of the study, with its text.
        past: The normal nights before.
    """

    def __init__(
        self, launches: Launches, identity: Identity, past: list[PastMeasurement], say: Callable[[str], None]
    ) -> None:
        self.launches = launches
        self._identity = identity
        self._past = past
        self._say = say
        # Nights are compared under the load that the config had then.
        self._load = Concurrency(past[-1].measured.concurrency) if past else None
        self._rounds: list[OperatingPoint] = []
        self._count = 0

    def measure(self) -> None:
        """Launch it some times under the load of its history, if it has one."""
        if self._load is None:
            return
        self._say(f"measuring the deployed config at {self._load}")
        for number in range(_MOST_LAUNCHES):
            known = self.measured
            if number >= _LAUNCHES and known and known.throughput.relative_half_width <= _PRECISE:
                return
            self.add(self.launch([self._load]))

    def launch(self, loads: list[Concurrency]) -> PairedLaunch:
        """Launch it once.

        Raises:
            TuningError: it does not work.
        """
        self._count += 1
        name = f"deployed-{self._count:02d}"
        return launched(lambda _: self.launches.launch(self._identity.config, loads, name), self._count, self._say)

    def add(self, side: PairedLaunch) -> None:
        """A launch more of it."""
        if self._load is None or (point := side.at(self._load)) is None:
            return
        self._rounds.append(point)

    def begin_history(self, comparison: Comparison) -> None:
        """Take the load that was best for it, where it has no history."""
        if self._load is None and (load := comparison.deployed_load):
            self._load = load
        for side in comparison.deployed:
            self.add(side)

    @property
    def measured(self) -> Measured | None:
        """All launches so far under the load of its history as one.

        Those beside which others were at work on the machine do not count where there are enough others.
        """
        quiet = [
            each for each in self._rounds if all(doubt.gate is not QualityCheck.MACHINE_LOAD for doubt in each.doubts)
        ]
        rounds = quiet if len(quiet) >= _LAUNCHES else self._rounds
        return Measured.of(rounds, self._identity.slo.percentile)

    def drift(self, min_regression: float) -> Drift:
        """Tonight against its history."""
        now = self.measured
        if now is None or not self._past:
            return NO_HISTORY
        return judge_drift(now, self._past, files=self._identity.files, min_regression=min_regression)


def _compare(task: Task, night_context: NightContext, outcome: ModelOutcome, deployed: _Deployed) -> Comparison | None:
    """Launch the best candidate and the deployed config in pairs; None where nothing seems better."""
    best = outcome.recommendation.best
    if best is None or best.trial.number == 0 or not isinstance(best.point.load, Concurrency):
        return None

    def launch(loads: Sequence[Concurrency], name: str) -> PairedLaunch:
        return deployed.launches.launch(best.trial.config, loads, name, candidate=True)

    numbers = count(1)

    def tried(load: Concurrency) -> OperatingPoint:
        return launch((load,), f"candidate-try-{next(numbers):02d}").points[0]

    try:
        load = load_within(tried, best.point.load, task.job.slo, at_last=night_context.at_last, note=night_context.say)
    except ServerError as error:
        return Comparison(slo=task.job.slo, loads=(best.point.load,), failure=f"{error.cause.value}: {error}")
    # Near its limit, launches of the candidate may differ by too much for a test; at half of the load they rarely do.
    halved = (Concurrency(load.requests // 2),) if task.job.slo.root and load.requests > 1 else ()
    candidates = (load, *halved)
    # The deployed config at its own best load, and at the candidate's: none is to win by having had more to do.
    loads = list(dict.fromkeys([_own_load(outcome), load]))
    night_context.say(f"{task.name}: comparing trial {best.trial.number} at {load} with the deployed config")
    now = time.monotonic()
    compared = compare(
        lambda _: deployed.launch(loads),
        lambda number: launch(candidates, f"candidate-{number:02d}"),
        ComparisonTerms(
            slo=task.job.slo,
            loads=candidates,
            min_gain=task.min_gain,
            seed=task.job.seed,
            until=max(
                night_context.spare_until, min(night_context.at_last, now + COMPARING_SHARE * night_context.budget)
            ),
            at_last=night_context.at_last,
        ),
        note=night_context.say,
    )
    deployed.begin_history(compared)
    return compared


def _own_load(outcome: ModelOutcome) -> Concurrency:
    """The deployed config's best load within the SLO, or the lowest where it holds it at none."""
    own = outcome.recommendation.baseline
    curve = outcome.study.trials[0].curve
    load = own.point.load if own else curve[0].load
    return load if isinstance(load, Concurrency) else Concurrency(1)


def _of_study(outcome: ModelOutcome) -> Measured | None:
    """What the tuning itself says of the deployed config, where nothing else was measured: the first of its history."""
    own = outcome.recommendation.baseline
    if own is None:
        return None
    rounds = next(
        (len(v.rounds) for v in outcome.study.verified if (v.trial, v.load) == (0, own.point.load) and v.rounds), 1
    )
    return Measured.of_point(own.point, outcome.study.identity.slo.percentile, launches=rounds)


def _improvement(outcome: ModelOutcome, best: TrialPoint, compared: Comparison) -> Improvement:
    study, path = outcome.study, f"{outcome.model}/config.pbtxt"
    text = config_with_provenance(study, best, compared.gain, study.identity.slo)
    before = ModelConfig.parse(study.identity.config, path)
    gain, measured = compared.gain, Measured.of(compared.candidate_rounds, compared.slo.percentile)
    if gain is None or measured is None:
        raise AssertionError("the gate lets nothing through that was not measured")
    return Improvement(before.text, text, unified_diff(before, ModelConfig.parse(text, path)), gain, measured)


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
