"""The hosts of a run: the baseline is launched once on each, and a host that drifts gets no more work."""

from __future__ import annotations

import re
import shutil
import time
from dataclasses import dataclass

from tuner.cluster.dispatcher import Dispatcher, Finished
from tuner.cluster.executor import Executor
from tuner.cluster.slots import Host, Slot
from tuner.core.errors import shortened
from tuner.jobs.output_check import OutputCheck
from tuner.measure.sweep import in_order_of_load
from tuner.measure.work import UNHEARD, Limits, Sweep, TrialTerms, Work
from tuner.recommend.drained import to_drain
from tuner.recommend.host_effects import BaselineLaunch, HostRecord
from tuner.study.run_folder import RunFolder
from tuner.study.study import Study

# In the name of a folder.
_UNSAFE = re.compile(r"[^\w.-]", re.ASCII)


@dataclass(frozen=True)
class HostBaseline:
    """A launch of the baseline on a further host, under way.

    Attributes:
        host: The name of the host.
    """

    host: str

    def __str__(self) -> str:
        """What is launched, in words."""
        return f"the baseline on {self.host}"


class RunHosts:
    """The hosts of a run.

    Args:
        executor: Has the hosts.
        dispatcher: Gives launches to slots.
        study: The study; it holds the hosts.
        terms: The terms of all launches of the model.
        outputs: Compares outputs.
        out: The run folder.
    """

    def __init__(  # noqa: PLR0917 (constructed at one place)
        self,
        executor: Executor,
        dispatcher: Dispatcher,
        study: Study,
        terms: TrialTerms,
        outputs: OutputCheck,
        out: RunFolder,
    ) -> None:
        self._executor, self._dispatcher, self._study = executor, dispatcher, study
        self._terms, self._outputs, self._out = terms, outputs, out

    def is_due_on(self, slot: Slot) -> bool:
        """Whether the host of a slot still needs its launch of the baseline."""
        if len(self._executor.hosts) < 2 and not self._study.hosts:
            return False
        self._store_hosts()
        record = self._record_of(slot.host)
        return (
            record is not None
            and slot.host != self._study.trials[0].host
            and not record.launches
            and HostBaseline(slot.host) not in self._dispatcher.under_way
        )

    def launch(self, slot: Slot, limits: Limits) -> None:
        """Launch the baseline on a free slot."""
        baseline = self._study.trials[0]
        work = Work(self._terms, baseline.patch, Sweep(), limits, self._outputs.of_host())
        folder = self._out.model(self._terms.model) / "hosts" / _UNSAFE.sub("_", f"host-{slot.host}")
        shutil.rmtree(folder, ignore_errors=True)
        self._dispatcher.start(HostBaseline(slot.host), work, slot, folder, UNHEARD, repeats=False)

    def ended(self, key: HostBaseline, finished: Finished) -> None:
        """Store a launch of the baseline; a host on which it fails gets no more work."""
        outcome, record = finished.outcome, self._record_of(key.host)
        if outcome is None or record is None:
            return  # the host was lost, and may be back
        if outcome.failure is not None or not outcome.points:
            why = shortened(outcome.failure.message) if outcome.failure else "no load level could be measured"
            reason = f"the baseline failed on it: {why}"
            self._executor.drain(key.host, reason)
            self._study.add_host_record(record.model_copy(update={"drained": reason}))
            return
        launch = BaselineLaunch(curve=in_order_of_load(outcome.points), at=time.time())
        self._study.add_host_record(record.model_copy(update={"launches": (*record.launches, launch)}))

    def drain(self) -> tuple[int, ...]:
        """Give hosts that drift, or fail quality checks again and again, no more work.

        Returns:
            Numbers of the trials that should be measured again on another host.
        """
        again: list[int] = []
        percentile = self._terms.rules.percentile
        while drain := to_drain(self._study.hosts, self._study.trials, self._study.verified, percentile):
            self._executor.drain(drain.host, drain.reason)
            if (record := self._record_of(drain.host)) is None:
                break
            self._study.add_host_record(record.model_copy(update={"drained": drain.reason}))
            again += drain.trials
        return tuple(again)

    def _store_hosts(self) -> None:
        """Store the hosts that have joined."""
        known = {record.name: record for record in self._study.hosts}
        for host in self._executor.hosts:
            new = _record(host)
            before = known.get(host.name)
            if before is None:
                self._study.add_host_record(new)
            elif (before.host_class, before.facts) != (new.host_class, new.facts):
                changed = {"host_class": new.host_class, "facts": new.facts}
                self._study.add_host_record(before.model_copy(update=changed))

    def _record_of(self, host: str) -> HostRecord | None:
        return next((record for record in self._study.hosts if record.name == host), None)


def _record(host: Host) -> HostRecord:
    return HostRecord(name=host.name, host_class=host.host_class, facts=host.facts.model_dump(mode="json"))
