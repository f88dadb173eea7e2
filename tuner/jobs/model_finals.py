"""The finals of one model: verifies the finalists, and certifies a rate of the best one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from tuner.cluster.dispatcher import Dispatcher, Finished
from tuner.core.loads import Load
from tuner.core.quantities import format_number
from tuner.core.slo import SLO
from tuner.jobs.rounds_on_slots import RoundsOnSlots
from tuner.jobs.run_context import RunContext
from tuner.measure.points import OperatingPoint
from tuner.measure.rules import LevelRules
from tuner.measure.work import Limits, Loads, TrialTerms, Work
from tuner.recommend.certified import CertifiedRate
from tuner.recommend.certify import Certification
from tuner.recommend.rounds import Relaunch, VerificationTerms
from tuner.recommend.speed import Speed
from tuner.recommend.verification import Verification
from tuner.recommend.verify_at_rate import verification_plan
from tuner.results.words import launches_in_words, point_in_words
from tuner.search.goal import Goal
from tuner.stats.slo_verdict import CONFIDENCE
from tuner.study.study import Study

# Seconds of a measurement in a round of the finalists; more near a limit.
_VERIFY_RULES = LevelRules(min_s=1.5, max_s=3.0)
# Poisson arrivals need longer to show the tail of latency.
_AT_RATE_RULES = LevelRules(min_s=2.0, max_s=6.0)
_CERTIFY_RULES = LevelRules(min_s=2.0, max_s=4.0)


class ModelFinals:
    """Verifies the finalists of a search, and certifies a rate of the best one.

    Args:
        context: The context of the run.
        study: The study with the trials; the results are stored in it.
        terms: The terms of the launches.
        dispatcher: Gives the launches to slots.
        folder: The folder for the logs of the servers.
        limits: Gives the limits of a launch for a deadline (`time.monotonic`).
        stored: Called when a result was stored in the study.
        check_hosts: Called after each round, to find hosts that drift.
        spent: Called before each launch and each level, to store the time spent.
    """

    def __init__(  # noqa: PLR0917 (constructed at one place)
        self,
        context: RunContext,
        study: Study,
        terms: TrialTerms,
        dispatcher: Dispatcher,
        folder: Path,
        limits: Callable[[float], Limits],
        stored: Callable[[], None],
        check_hosts: Callable[[], object],
        spent: Callable[[], None],
    ) -> None:
        self._context, self._job, self._progress = context, context.job, context.progress
        self._study = study
        self._terms = terms
        self._dispatcher = dispatcher
        self._folder = folder
        self._limits = limits
        self._stored = stored
        self._check_hosts = check_hosts
        self._spent = spent
        self._speculation: RoundsOnSlots | None = None

    def verify(self, *, until: float) -> None:
        """Relaunch the finalists in rounds, the last of which begins before `until` (`time.monotonic`)."""
        study, job, objective = self._study, self._job, self._job.objective
        before = study.verified
        self._progress.phase_began("verification")
        self._rounds(until).run()
        for verified in study.verified:
            if verified.point and verified not in before:
                words = point_in_words(verified.point, objective.percentile_for(job.slo), objective)
                launches = launches_in_words(len(verified.rounds), len(set(verified.hosts_of_rounds)))
                self._progress.note(f"relaunched trial {verified.trial}: {words}, {launches}")

    def speculate(self, *, until: float) -> None:
        """Verify the leaders of a search that waits for its last trials, on the slots that it leaves free.

        Args:
            until: The end of verification (`time.monotonic`).
        """
        if self._speculation is None:
            self._speculation = self._rounds(until)
        else:
            self._speculation.plan.update(self._study.trials, self._expected_speeds(), self._study.hosts)
        self._speculation.start(speculative=True)

    def ended(self, finished: Finished) -> None:
        """Count a launch of `speculate` that has ended."""
        if self._speculation is None:
            raise RuntimeError("no verification is under way")
        self._speculation.ended(finished)

    def _rounds(self, until: float) -> RoundsOnSlots:
        """The rounds of the finalists, by what is known of them so far."""
        study, job, objective = self._study, self._job, self._job.objective
        launch_terms = self._with_rules(_VERIFY_RULES if objective.rate is None else _AT_RATE_RULES)
        slots = len(self._dispatcher.comparable)
        terms = VerificationTerms(
            slo=job.slo,
            until=until,
            launch_s=self._ready_s + launch_terms.rules.min_s,
            seed=job.seed,
            max_gpu_memory=job.max_gpu_memory,
            objective=objective,
            slots=max(1, slots),
        )
        plan = verification_plan(
            study.trials,
            terms,
            expected=self._expected_speeds(),
            verified=study.verified,
            hosts=study.hosts,
            note=self._progress.note,
            eliminated=self._progress.eliminated,
        )

        def work_of(launch: Relaunch) -> Work:
            return Work(launch_terms, launch.trial.patch, Loads(launch.loads), self._limits(until))

        def keep(verified: Sequence[Verification]) -> None:
            study.add_verified(verified)
            self._stored()
            self._check_hosts()

        return RoundsOnSlots(plan, self._dispatcher, work_of, self._folder, keep, self._spent)

    def certify(self, *, until: float) -> None:
        """Certify a rate of Poisson arrivals for the best config, by `until` (`time.monotonic`)."""
        if self._job.objective.rate is not None:
            return  # verification has measured the rate
        best, certified = self._study.recommendation.best, self._study.certified
        if best is None or (certified and certified.launched and certified.trial == best.trial.number):
            return
        rate = CertifiedRate(trial=best.trial.number, load=best.point.load)
        if not best.verified or time.monotonic() + self._ready_s > until:
            reason = "no time left" + (" to verify it" if not best.verified else "")
            self._keep(rate.model_copy(update={"reason": reason, "launched": False}))
            return
        self._progress.phase_began("certification")
        self._progress.note(f"certifying trial {best.trial.number} under Poisson arrivals")
        per_s = best.point.throughput.value / best.point.batch_size
        work = Work(self._with_rules(_CERTIFY_RULES), best.trial.patch, Certification(per_s), self._limits(until))
        self._spent()
        words = f"certification of trial {best.trial.number}"
        outcome = self._dispatcher.carry_out(words, work, self._folder / "certified", _Levels(self._spent))
        point, failure = outcome.result, outcome.failure
        failed = f"{failure.cause.value}: {failure.message}" if failure else ""
        why = None if point else failed or _none_of([point.load.level for point in outcome.points], self._job.slo)
        classes = {host.name: host.host_class for host in self._dispatcher.hosts}
        where = {"host": outcome.host, "host_class": classes.get(outcome.host, "")} if len(classes) > 1 else {}
        self._keep(rate.model_copy(update={"point": point, "reason": why, **where}))

    def _expected_speeds(self) -> dict[int, Speed]:
        """What the simulator expects of later launches, if it made the search."""
        if self._job.sampler != "twin" or not self._study.trials:
            return {}
        from tuner.search.expected_speeds import expected_speeds  # noqa: PLC0415 (importing its compiler takes a while)

        job = self._job
        goal = Goal(job.slo, job.batch_size, job.max_concurrency, job.max_gpu_memory)
        return expected_speeds(self._study.trials, self._study.space, goal, job.seed)

    def _keep(self, rate: CertifiedRate) -> None:
        self._study.certify(rate)
        self._stored()

    def _with_rules(self, rules: LevelRules) -> TrialTerms:
        """The terms of the launches with other rules and the SLO to test."""
        return replace(
            self._terms,
            rules=replace(rules, slo=self._job.slo, objective=self._job.objective).to(self._job.precision),
        )

    @property
    def _ready_s(self) -> float:
        """Seconds from the baseline's launch to its first answer."""
        baseline = self._study.trials[0]
        return (baseline.launch_s or 0) + (baseline.first_answer_s or 0)


class _Levels:
    """Stores the time spent before each load level.

    Args:
        spent: Stores it.
    """

    def __init__(self, spent: Callable[[], None]) -> None:
        self._spent = spent

    def level_began(self, load: Load) -> None:
        """See `TrialProgress`."""
        del load
        self._spent()

    def point_measured(self, point: OperatingPoint) -> None:
        """See `TrialProgress`."""


def _none_of(rates: Sequence[float], slo: SLO) -> str:
    """Why none of the rates tried was certified."""
    tried = " to ".join(format_number(rate) for rate in sorted({min(rates), max(rates)}))
    return (
        f"no rate tried ({tried} requests/s) was shown to hold {slo} ({CONFIDENCE})"
        if slo.root
        else f"the server kept up with no rate tried ({tried} requests/s)"
    )
