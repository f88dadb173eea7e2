"""The context that all models of a run share, and the terms of their launches."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from tuner.cluster.executor import Executor
from tuner.cluster.slot_context import SlotContext
from tuner.core.machine import Machine
from tuner.jobs.progress import Progress
from tuner.measure.rules import LevelRules
from tuner.measure.work import TrialTerms
from tuner.options.tune_job import TuneJob
from tuner.space.conditions import Terms
from tuner.space.spec import SpaceSpec
from tuner.study.run_folder import RunFolder


@dataclass(frozen=True)
class RunContext:
    """The context that all models of a run share.

    Attributes:
        job: The job.
        out: The run folder.
        spec: The search space.
        executor: Carries out launches.
        progress: Receives the events of the run.
        models: Names of the models to tune.
        here: What launches need in this process; None: they are carried out elsewhere.
    """

    job: TuneJob
    out: RunFolder
    spec: SpaceSpec
    executor: Executor
    progress: Progress
    models: tuple[str, ...] = ()
    here: SlotContext | None = None

    @property
    def has_several_slots(self) -> bool:
        """Whether several launches may be under way at a time."""
        return self.job.has_slots

    @property
    def machine(self) -> Machine:
        """What a slot of the reference host has."""
        return self.executor.hosts[0].machine

    @property
    def description(self) -> str:
        """The Triton of the reference host, and how it is launched."""
        return self.executor.hosts[0].description


# As launchers describe a Triton whose version they know.
_VERSION = re.compile(r"\bTriton (\d+\.\d+\.\d+)")


def terms_of(job: TuneJob, server: str) -> Terms:
    """What a job and its server allow.

    Args:
        job: The job.
        server: The launcher's description of the server.
    """
    version = _VERSION.search(server)
    return Terms(
        version=version[1] if version else "",
        arguments=job.arguments,
        relaunches=job.url is None and job.isolation != "reload",
        is_remote=job.url is not None,
        shared_memory=job.shared_memory,
        allow_numerics=job.allow_numerics,
    )


def trial_terms_of(context: RunContext, model: str, rules: LevelRules) -> TrialTerms:
    """The terms of all launches of one model of a run, with rules for its SLO and precision."""
    job = context.job
    return TrialTerms(
        model=model,
        options=job,
        rules=replace(rules, slo=job.slo, objective=job.objective).to(job.precision),
        max_concurrency=job.max_concurrency,
        max_gpu_memory=job.max_gpu_memory,
        shapes_elsewhere=len(context.models) > 1,
        objective=job.objective,
    )
