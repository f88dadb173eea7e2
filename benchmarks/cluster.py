"""How much sooner a search is done on several slots: searches on grids, with a clock that jumps from event to event.

Each trial brings the recorded curve of its candidate with noise, as in `search.py`. It takes a launch of 2, 20 or 120 s
and 10 s of measurements, both of which vary from trial to trial (log-normal), so that trials end in another order than
they began. The baseline is launched first, alone. The coordinator makes one proposal at a time, and the clock goes on
by the processor time that it takes. Then a free slot takes it.

Two things are told of each search, as medians over seeds: the time until a candidate was measured that has 95 % of the
best throughput within the SLO (the latency limit is 10 times the baseline's), beginning with the first launch, and the
launches that were measured until then. `faster` compares the time with that on one slot, `more` the launches. When a
search is done, the other slots are still at work: `begun` counts their launches, too. `busy` is the share of
time in which slots have work, from the end of the baseline until the search is done.

    python benchmarks/cluster.py [--seeds 20] [--slots 4]... [--model law]... [--sampler twin]... [--launch 20]...
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path

import numpy as np
from grid import MODELS, SIMULATED
from rich import box
from rich.console import Console
from rich.table import Table
from search import SAMPLERS, Case, Replay, grid_of, noisy, sampler_of, within

from tuner.search.samplers import NoMore, Pending
from tuner.space.candidate import key_of

SLOTS = (1, 2, 4, 8, 16)
LAUNCHES_S = (2.0, 20.0, 120.0)
MEASURING_S = 10.0
VARIES = 0.4
"""The standard deviation of the logarithm of how long a trial takes."""
LIMIT = 10
REACHED = 0.95
NOISE = 0.04
MOST = 80
"""The most launches of a search: one that needs more is not done."""


@dataclass(frozen=True)
class Told:
    """What is told of one search.

    Attributes:
        took_s: Time until 95 % of the best were measured; infinite: never.
        launches: Launches measured until then; infinite: never.
        begun: Launches begun until then, those of the other slots included.
        busy: Share of the slots' time; see the module.
        proposing_s: Mean processor time of a proposal.
    """

    took_s: float
    launches: float
    begun: float
    busy: float
    proposing_s: float


@dataclass
class Clock:
    """The time, and what the slots do.

    Attributes:
        launch_s: How long a launch takes, in the median.
        takes: Draws how long trials take.
        now_s: The time.
        ends: When each running trial ends, and its number.
    """

    launch_s: float
    takes: np.random.Generator
    now_s: float = 0.0
    ends: list[tuple[float, int]] = field(default_factory=list)

    def begin(self, number: int) -> float:
        """Begin a trial on a free slot. Returns when it will end."""
        trial_s = sum(median * math.exp(self.takes.normal(0, VARIES)) for median in (self.launch_s, MEASURING_S))
        heapq.heappush(self.ends, (self.now_s + trial_s, number))
        return self.now_s + trial_s

    def next_end(self) -> int:
        """Go to the end of the first trial that ends. Returns its number."""
        ends_s, number = heapq.heappop(self.ends)
        self.now_s = max(self.now_s, ends_s)
        return number


def searched(case: Case, slots: int, launch_s: float, seed: int) -> Told:
    """One search, until it is done."""
    replay = Replay(grid_of(case.model), case.slo)
    noises, clock = np.random.default_rng([seed, 7]), Clock(launch_s, np.random.default_rng([seed, 8]))
    sampler = sampler_of(case, replay.grid, seed)
    best = max(within(trial, case.slo) for trial in replay.grid.trials)
    clock.begin(0)
    clock.next_end()
    replay.trials.append(noisy(replay.grid.trials[0], 0, noises, NOISE))
    from_s = clock.now_s
    pending: dict[int, Pending] = {}
    facts: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {}
    spans: list[tuple[float, float]] = []
    proposing_s: list[float] = []
    number = 1

    def told(took_s: float, launches: float, begun: float) -> Told:
        worked_s = sum(min(end, clock.now_s) - begin for begin, end in spans)
        busy = worked_s / (slots * (clock.now_s - from_s))
        return Told(took_s, launches, begun, busy, statistics.mean(proposing_s or [0.0]))

    while True:
        while len(pending) < slots and number < MOST:
            seen = [t.parameters for t in replay.trials] + [p.assignment for p in pending.values()]
            began = time.process_time()
            proposed = sampler.propose(replay, seen, tuple(pending.values()))
            proposing_s.append(time.process_time() - began)
            clock.now_s += proposing_s[-1]
            if isinstance(proposed, NoMore):
                break
            facts[number] = tuple(t.number for t in replay.trials), tuple(pending)
            pending[number] = Pending(number, proposed)
            spans.append((clock.now_s, clock.begin(number)))
            number += 1
        if not pending:
            return told(math.inf, math.inf, math.inf)
        ended = clock.next_end()
        trial = noisy(replay.grid.launched(pending.pop(ended).assignment), ended, noises, NOISE)
        after, beside = facts[ended]
        replay.trials.append(trial.model_copy(update={"after": after, "beside": beside}))
        truth = replay.grid.by_assignment[key_of(trial.parameters)]
        if within(truth, case.slo) >= REACHED * best:
            return told(clock.now_s, len(replay.trials), number)


@dataclass(frozen=True)
class Search:
    """One search to carry out."""

    model: str
    sampler: str
    launch_s: float
    slots: int
    seed: int

    def told(self) -> tuple[Search, Told]:
        """Carry it out."""
        return self, searched(Case(self.model, LIMIT, self.sampler), self.slots, self.launch_s, self.seed)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--workers", type=int, help="number of processes; default: one for each core")
    parser.add_argument("--model", action="append", choices=[*MODELS, *SIMULATED])
    parser.add_argument("--sampler", action="append", choices=SAMPLERS)
    parser.add_argument("--slots", action="append", type=int, help="numbers of slots beside 1; default: 2, 4, 8, 16")
    parser.add_argument("--launch", action="append", type=float, help="seconds; default: 2, 20 and 120")
    parser.add_argument("--results", type=Path, help="file that keeps each search; what it has is not done again")
    asked = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    models, samplers = asked.model or (*MODELS, *SIMULATED), asked.sampler or SAMPLERS
    launches, slots = asked.launch or LAUNCHES_S, sorted({1, *(asked.slots or SLOTS)})
    told = _stored(asked.results) if asked.results else {}
    # Seeds come last to be complete, so that the results of a run that was cut off are balanced.
    wanted = [
        Search(m, s, each, n, seed)
        for seed, each, s, m, n in product(range(asked.seeds), launches, samplers, models, slots)
    ]
    with ProcessPoolExecutor(asked.workers) as pool:
        for done in as_completed([pool.submit(search.told) for search in wanted if search not in told]):
            search, result = done.result()
            told[search] = result
            if asked.results:
                with asked.results.open("a") as file:
                    file.write(json.dumps([asdict(search), asdict(result)]) + "\n")
    for launch_s, sampler in product(launches, samplers):
        Console(width=120).print(_table(launch_s, sampler, models, slots, told))


def _stored(path: Path) -> dict[Search, Told]:
    lines = path.read_text().splitlines() if path.exists() else []
    return {Search(**search): Told(**told) for search, told in map(json.loads, lines)}


def _table(
    launch_s: float, sampler: str, models: Sequence[str], slots: Sequence[int], told: Mapping[Search, Told]
) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=f"{sampler}, launches of {launch_s:g} s")
    for name in (
        "model",
        "slots",
        "searches",
        "time (s)",
        "launches",
        "begun",
        "faster",
        "more",
        "busy",
        "a proposal (s)",
    ):
        table.add_column(name, justify="left" if name == "model" else "right")
    ratios = defaultdict[int, list[tuple[float, float]]](list)
    for model in models:
        alone = math.nan, math.nan
        for count in slots:
            these = [
                each
                for search, each in told.items()
                if (search.model, search.sampler, search.launch_s, search.slots) == (model, sampler, launch_s, count)
            ]
            if not these:
                continue
            now = statistics.median(t.took_s for t in these), statistics.median(t.launches for t in these)
            begun = statistics.median(t.begun for t in these)
            alone = now if count == 1 else alone
            ratio = alone[0] / now[0], now[1] / alone[1]
            ratios[count].append(ratio)
            table.add_row(
                model,
                f"{count}",
                f"{len(these)}",
                f"{now[0]:.0f}",
                f"{now[1]:g}",
                f"{begun:g}",
                f"{ratio[0]:.2f}",
                f"{ratio[1]:.2f}",
                f"{statistics.mean(t.busy for t in these):.0%}",
                f"{statistics.mean(t.proposing_s for t in these):.2f}",
            )
    for count, those in ratios.items():
        faster, more = np.exp(np.nanmean(np.log(those), axis=0))
        table.add_row("geometric mean", f"{count}", "", "", "", "", f"{faster:.2f}", f"{more:.2f}", "", "")
    return table


if __name__ == "__main__":
    main()
