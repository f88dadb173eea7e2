"""The contract of executors, by `ParallelContract` and `LossContract`; a test class derives from each.

For an executor that works in this process, one derives from `WorkContract`. They provide these fixtures, all of the
scope `class`:

triton           path of the Triton, for the option `--triton-path`; None: that of the wheel
opened           a function from a `SlotRecipe` to a context manager of the executor

Those of `LossContract`, of any scope:

opened_source    Python code that defines the same function as `opened`, for another process
kill             a function from an executor and a slot that ends the process of the slot like a crash
traces           a function that returns what executors and their servers use on all hosts, by name: processes,
                 containers, shared memory, folders
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tuner.cluster.executor import Executor
from tuner.cluster.slot_context import SlotRecipe, open_slot
from tuner.cluster.slots import Slot
from tuner.config.patch import Patch
from tuner.core.errors import Cause, HostLostError, InputError
from tuner.core.loads import Concurrency, Load
from tuner.measure.points import OperatingPoint
from tuner.measure.rules import LevelRules
from tuner.measure.session import Session
from tuner.measure.work import UNHEARD, Limits, Loads, TrialTerms, Work, carry_out
from tuner.options.groups import LoadOptions
from tuner.options.tune_job import TuneJob
from tuner.testing.repositories import ModelRepositoryFactory, config_text

Opened = Callable[[SlotRecipe], AbstractContextManager[Executor]]
Kill = Callable[[Executor, Slot], None]
Traces = Callable[[], "set[str]"]

CLOSED_WITHIN_S = 10.0
_LIMITS = Limits(launch_s=60, first_answer_s=60, total_s=600)
_ONE, _TWO = Concurrency(1), Concurrency(2)
MODEL = "identity"
"""The model of all work."""
_OWNER = """
import pickle, sys, time
from tuner.measure.work import UNHEARD
{source}
recipe, work, folder = pickle.loads(sys.stdin.buffer.read())
with opened(recipe) as executor:
    class Heard:
        def level_began(self, load):
            print("measuring", flush=True)
        def point_measured(self, point):
            pass
    for number, slot in enumerate(executor.slots):
        executor.submit(work, slot, folder / str(number), Heard())
    time.sleep(600)
"""


@dataclass(frozen=True)
class Examination:
    """Checks a server, as golden outputs do.

    Attributes:
        cause: Why it fails; None: it passes.
    """

    cause: Cause | None = None

    def __call__(self, session: Session) -> Any:
        """Return what it found."""
        if self.cause is not None:
            from tuner.core.errors import ServerError  # noqa: PLC0415 (few need it)

            raise ServerError("the examination failed", cause=self.cause, last_words="last words")
        return {"name": session.effective.name}


@dataclass
class Heard:
    """Remembers the progress of a piece of work."""

    told: list[Load | OperatingPoint] = field(default_factory=list)
    began: threading.Event = field(default_factory=threading.Event)

    def level_began(self, load: Load) -> None:
        """See `TrialProgress`."""
        self.told.append(load)
        self.began.set()

    def point_measured(self, point: OperatingPoint) -> None:
        """See `TrialProgress`."""
        self.told.append(point)


def work(*loads: Load, max_s: float = 0.5, **changes: Any) -> Work:
    """Work that measures the model under some loads, for at most `max_s` seconds each."""
    rules = LevelRules(throughput_precision=1e-9, min_s=min(0.1, max_s), max_s=max_s, slow_max_s=max_s, min_requests=1)
    terms = TrialTerms(MODEL, LoadOptions(), rules, max_concurrency=2)
    plain = Work(terms, Patch(config=config_text()), Loads(loads or (_ONE,)), _LIMITS)
    return replace(plain, **changes)


class _Contract:
    """What both contracts need. The fixtures have the scope `class`, as opening slots takes seconds."""

    @pytest.fixture(scope="class")
    @classmethod
    def recipe(cls, triton: Path | None, tmp_path_factory: pytest.TempPathFactory) -> SlotRecipe:
        """What slots are opened by."""
        repository = ModelRepositoryFactory(tmp_path_factory.mktemp("models"))
        model = repository.add("identity", name=MODEL)
        options = {"repository": repository.path, "server": "process", "triton_path": triton, **cls.options()}
        return SlotRecipe(TuneJob.make(options), (model,), repository.path)

    @classmethod
    def options(cls) -> dict[str, Any]:
        """The options that say where trials run."""
        return {}


class WorkContract(_Contract):
    """The contract for work on one slot at a time."""

    @pytest.fixture(scope="class")
    @classmethod
    def executor(cls, opened: Opened, recipe: SlotRecipe) -> Iterator[Executor]:
        """An open executor, which tests leave as it was."""
        with opened(recipe) as executor:
            yield executor

    def test_describes_its_hosts(self, executor: Executor) -> None:
        assert executor.hosts
        first = executor.hosts[0]
        assert first.slots
        assert first.machine.cpus
        assert "Triton" in first.description
        assert first.facts.server == first.description
        assert {slot for host in executor.hosts for slot in host.slots} == set(executor.slots)
        names = [slot.name for slot in executor.slots]
        assert len(set(names)) == len(names)

    def test_the_outcome_is_that_of_carrying_it_out_here(
        self, executor: Executor, recipe: SlotRecipe, tmp_path: Path
    ) -> None:
        asked = work(_ONE, _TWO, examine=Examination())
        outcome = executor.submit(asked, executor.slots[0], tmp_path / "1", UNHEARD).result(60)
        with open_slot(recipe, None, lambda _: None) as here:
            expected = carry_out(asked, here.trial_context(asked.terms), tmp_path / "2", UNHEARD)
        assert [point.load for point in outcome.points] == [_ONE, _TWO]
        assert outcome.failure is None
        assert (outcome.examined, outcome.effective_config, outcome.result) == (
            expected.examined,
            expected.effective_config,
            expected.result,
        )
        assert outcome.launch_s
        assert outcome.first_answer_s
        assert outcome.wall_s > outcome.launch_s
        files = {file.name for file in (tmp_path / "1").iterdir()}
        assert files == {file.name for file in (tmp_path / "2").iterdir()}
        assert "identity" in (tmp_path / "1" / "server.log").read_text() or (tmp_path / "1" / "server.log").exists()

    def test_progress_comes_in_order(self, executor: Executor, tmp_path: Path) -> None:
        heard = Heard()
        outcome = executor.submit(work(_ONE, _TWO), executor.slots[0], tmp_path / "1", heard).result(60)
        assert heard.told == [_ONE, outcome.points[0], _TWO, outcome.points[1]]

    @pytest.mark.parametrize(
        ("changes", "cause"),
        [
            ({"patch": Patch(config=config_text(more="no_such_field: 1"))}, Cause.INVALID_CONFIG),
            ({"examine": Examination(Cause.OUTPUTS_DIFFER)}, Cause.OUTPUTS_DIFFER),
        ],
        ids=["launch", "examination"],
    )
    def test_a_failure_is_data(self, executor: Executor, tmp_path: Path, changes: dict[str, Any], cause: Cause) -> None:
        outcome = executor.submit(work(**changes), executor.slots[0], tmp_path / "1", UNHEARD).result(60)
        assert outcome.failure is not None
        assert outcome.failure.cause == cause
        assert outcome.failure.last_words
        assert not outcome.points

    def test_an_error_with_the_baselines_requests_is_the_users(self, executor: Executor, tmp_path: Path) -> None:
        right = work(is_baseline=True)
        wrong = replace(right, terms=replace(right.terms, options=LoadOptions(shape={"NO_SUCH_INPUT": (4,)})))
        future = executor.submit(wrong, executor.slots[0], tmp_path / "1", UNHEARD)
        with pytest.raises(InputError, match="NO_SUCH_INPUT"):
            future.result(60)
        assert executor.submit(right, executor.slots[0], tmp_path / "2", UNHEARD).result(60).points

    def test_there_is_no_work_for_an_unknown_slot(self, executor: Executor, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="nowhere/gpu:9"):
            executor.submit(work(), Slot("nowhere/gpu:9", "nowhere"), tmp_path / "1", UNHEARD)


class ParallelContract(WorkContract):
    """The contract for work on several slots at a time, of which there are at least two."""

    def test_several_work_at_a_time(self, executor: Executor, tmp_path: Path) -> None:
        together = threading.Barrier(2, timeout=60)

        class Meets(Heard):
            def level_began(self, load: Load) -> None:
                super().level_began(load)
                together.wait()

        futures = [
            executor.submit(work(), slot, tmp_path / str(number), Meets())
            for number, slot in enumerate(executor.slots[:2])
        ]
        assert all(future.result(60).points for future in futures)

    def test_a_slot_has_one_piece_of_work(self, executor: Executor, tmp_path: Path) -> None:
        slot = executor.slots[0]
        future = executor.submit(work(), slot, tmp_path / "1", UNHEARD)
        assert slot in executor.slots
        with pytest.raises(ValueError, match=slot.name):
            executor.submit(work(), slot, tmp_path / "2", UNHEARD)
        assert future.result(60).points


class LossContract(_Contract):
    """The contract for executors with at least two slots, whose processes can be lost, and for their end."""

    @pytest.fixture
    def own(self, opened: Opened, recipe: SlotRecipe) -> Iterator[Executor]:
        """An executor for one test."""
        with opened(recipe) as executor:
            yield executor

    @pytest.mark.slow
    def test_a_lost_slot_is_told_and_the_others_go_on(self, own: Executor, tmp_path: Path, kill: Kill) -> None:
        first, second = own.slots[:2]
        heard = Heard()
        future = own.submit(work(max_s=60), first, tmp_path / "1", heard)
        assert heard.began.wait(60)
        kill(own, first)
        with pytest.raises(HostLostError, match=first.name):
            future.result(60)
        assert second in own.slots
        assert own.submit(work(), second, tmp_path / "2", UNHEARD).result(60).points

    @pytest.mark.slow
    def test_a_drained_host_finishes_its_work_and_gets_no_more(self, own: Executor, tmp_path: Path) -> None:
        slot = own.slots[0]
        future = own.submit(work(max_s=1), slot, tmp_path / "1", UNHEARD)
        own.drain(slot.host, "its baseline drifts")
        assert not [each for each in own.slots if each.host == slot.host]
        assert future.result(60).points
        with pytest.raises(ValueError, match=slot.name):
            own.submit(work(), slot, tmp_path / "2", UNHEARD)
        own.close()
        own.close()

    @pytest.mark.slow
    def test_closing_ends_all_work_and_leaves_nothing(
        self, opened: Opened, recipe: SlotRecipe, tmp_path: Path, traces: Traces
    ) -> None:
        before = traces()
        with opened(recipe) as executor:
            futures = []
            for number, slot in enumerate(executor.slots[:2]):
                heard = Heard()
                futures.append(executor.submit(work(max_s=60), slot, tmp_path / str(number), heard))
                assert heard.began.wait(60)
            assert traces() - before
            began = time.monotonic()
            executor.close()
            took_s = time.monotonic() - began
        assert took_s < CLOSED_WITHIN_S
        assert [type(future.exception(5)) for future in futures] == [HostLostError] * 2
        assert traces() <= before

    @pytest.mark.slow
    def test_nothing_outlives_its_killed_owner(
        self, recipe: SlotRecipe, tmp_path: Path, opened_source: str, traces: Traces
    ) -> None:
        before = traces()
        with subprocess.Popen(
            [sys.executable, "-c", _OWNER.format(source=opened_source)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as owner:
            try:
                assert owner.stdin is not None
                assert owner.stdout is not None
                owner.stdin.write(pickle.dumps((recipe, work(max_s=60), tmp_path)))
                owner.stdin.close()
                assert owner.stdout.readline() == b"measuring\n"
                assert traces() - before
            finally:
                with suppress(ProcessLookupError):
                    os.kill(owner.pid, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while left := traces() - before:
            assert time.monotonic() < deadline, left
            time.sleep(0.1)
