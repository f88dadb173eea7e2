"""How far a recommendation is to be trusted: simulated tunings whose truth is known.

Each run has a family of candidates, drawn at random: closed loops on a batcher whose batches take a fixed time and
some more for each request in them, so that throughput and latency rise with the load; the best of them lie within some
percent of each other, and near the SLO. Each launch is quicker or slower than the next by `--noise` (log-normal, on
throughput and latency alike), and within a launch, requests differ, too. The search launches each candidate once; a
single-shot pick takes the best of its numbers, and the finalists are what `tuner.recommend.verify` makes of them. What
both recommend is then measured again, in many launches of 60 s. Prints, over all runs, the median of what was reported
over what was measured again, how many picks then break the SLO, what they give of the best possible, and the launches
spent.
With `--slower`, all of the machine is so much slower from the end of the search on, as one that others use may be.
With `--hosts`, launches take turns on so many hosts, each faster or slower by `--host-effect` (log-normal), and as many
`--slots` carry out rounds of the finalists at a time. The truth is then that of all of these hosts.

With `--at-limit`, nothing is picked. Servers whose p99 is just the limit, at all rates and loads, are given to
`tuner.recommend.certify` and to the nightly comparison: each that is said to hold the SLO is one too many. For
certifying, the limit is that of the one server that is launched; for the nightly gate, that of all launches together,
which differ by `--noise`. Servers with some room to the limit tell what that costs: how many are said to hold the SLO,
and after how many seconds (of certifying a rate) or pairs of launches.

    python benchmarks/picks.py [--runs 40] [--noise 0.08 0.2] [--budget 600] [--slower 1.0] [--at-limit]
        [--hosts 1] [--host-effect 0.0] [--slots 1]
"""

from __future__ import annotations

import argparse
import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from scipy import special

from tuner.core.loads import Concurrency, Load
from tuner.core.record import Interval
from tuner.core.slo import PERCENTILES, SLO, share_of
from tuner.measure.client_view import ClientView
from tuner.measure.plan import points_of, result_of
from tuner.measure.points import OperatingPoint
from tuner.measure.sweep import in_order_of_load, sweep
from tuner.measure.trial import TrialResult
from tuner.nightly.compare import ComparisonTerms, compare
from tuner.nightly.comparison import PairedLaunch
from tuner.nightly.gate import decide
from tuner.recommend.certify import certify
from tuner.recommend.front import TrialPoint
from tuner.recommend.host_effects import BaselineLaunch, HostRecord
from tuner.recommend.recommend import Recommendation, recommend
from tuner.recommend.rounds import Relaunch, Round, VerificationTerms
from tuner.recommend.verify import FinalsPlan
from tuner.stats.slo_verdict import SLOTest

LIMIT = SLO({"p99": 25.0})
CANDIDATES = 24
# Seconds that a level of the search, a round of the finalists, and a launch take.
SWEEP_S, ROUND_S, LAUNCH_S = 1.0, 2.0, 2.0
# The share of the budget that is left when the search is over.
FINALS_SHARE = 0.25
AGAIN, AGAIN_S = 25, 60.0
# Seconds that certifying offers a rate, and how far under the limit p99 is.
CERTIFY_S, ROOMS = 3.0, (0.0, 0.1, 0.2, 0.3)
# Standard deviations of a normal distribution from its median to its p99.
Z99 = 2.326
# Batch-mates end together: so many requests tell as much as one would.
DESIGN_EFFECT = 4.0


@dataclass(frozen=True)
class Batcher:
    """What a candidate truly is.

    Attributes:
        fixed_ms: Time of a batch of any size.
        item_ms: Time that each request in it adds.
        largest: The largest batch.
        tail: The p99 of a request's latency over its median, as a logarithm.
    """

    fixed_ms: float
    item_ms: float
    largest: int
    tail: float

    def throughput(self, concurrency: int) -> float:
        """Requests a second."""
        batch = min(concurrency, self.largest)
        return batch / (self.fixed_ms + self.item_ms * batch) * 1e3

    def median_ms(self, concurrency: int) -> float:
        """Of the latency, by Little's law."""
        return concurrency / self.throughput(concurrency) * 1e3

    def p99_ms(self, concurrency: int, noise: float) -> float:
        """Of the latency of all requests of many launches."""
        return self.median_ms(concurrency) * math.exp(Z99 * math.hypot(self.tail / Z99, noise))

    def slowed(self, factor: float) -> Batcher:
        """The same on a machine that is slower by a factor."""
        return replace(self, fixed_ms=factor * self.fixed_ms, item_ms=factor * self.item_ms)


class Machine:
    """Measures candidates, each launch with a speed of its own.

    Args:
        noise: Standard deviation of the speed's logarithm from launch to launch.
        effects: The logarithm of the speed of each host.
    """

    def __init__(self, noise: float, rng: np.random.Generator, effects: Sequence[float] = (0.0,)) -> None:
        self._noise, self._rng, self._effects = noise, rng, effects
        self.wall_s = 0.0
        self.launches = 0

    @property
    def hosts(self) -> int:
        """The number of hosts."""
        return len(self._effects)

    def launch(self, batcher: Batcher, host: int = 0) -> Callable[[Load, float], OperatingPoint]:
        """A server of a candidate on a host; what it returns measures it under a load for some seconds."""
        speed = math.exp(self._noise * self._rng.standard_normal() + self._effects[host % self.hosts])
        self.launches += 1
        self.wall_s += LAUNCH_S

        def measure(load: Load, seconds: float) -> OperatingPoint:
            self.wall_s += seconds
            return self._point(batcher, int(load.level), speed, seconds)

        return measure

    def _point(self, batcher: Batcher, concurrency: int, speed: float, seconds: float) -> OperatingPoint:
        true, median_ms = batcher.throughput(concurrency) * speed, batcher.median_ms(concurrency) / speed
        return measured(Concurrency(concurrency), true, median_ms, tail=batcher.tail, seconds=seconds, rng=self._rng)


def measured(
    load: Load, per_s: float, median_ms: float, *, tail: float, seconds: float, rng: np.random.Generator
) -> OperatingPoint:
    """What so many seconds show of a server that gives so much, by log-normal latencies."""
    requests = max(20, round(per_s * seconds))
    independent = max(5, round(requests / DESIGN_EFFECT))
    rate = per_s * (1 + rng.standard_normal() / math.sqrt(independent) / 2)
    half = rate / math.sqrt(independent)
    latency_ms = median_ms * np.exp(tail / Z99 * rng.standard_normal(independent))
    quantiles = np.quantile(latency_ms, [share_of(name) for name in PERCENTILES])
    values = dict(zip(PERCENTILES, map(float, quantiles), strict=True))
    return OperatingPoint(
        load=load,
        throughput=Interval(value=rate, low=rate - half, high=rate + half),
        latency_ms={name: Interval(value=v, low=0.95 * v, high=1.05 * v) for name, v in values.items()},
        requests=requests,
        errors=0,
        window_s=seconds,
        client=ClientView(cpu=0.1),
        kept_up=None if isinstance(load, Concurrency) else True,
        limits=tuple(
            SLOTest(
                percentile=name,
                limit_ms=limit_ms,
                requests=requests,
                over=round(float(np.mean(latency_ms > limit_ms)) * requests),
                design_effect=DESIGN_EFFECT,
            )
            for _, name, limit_ms in LIMIT.limits
        ),
    )


def family(rng: np.random.Generator) -> list[Batcher]:
    """Candidates of which the best are close, the user's own config first, which does not batch."""
    drawn = [
        Batcher(
            rng.uniform(2.0, 6.0), rng.uniform(0.25, 0.40), int(rng.choice([8, 16, 32, 64])), rng.uniform(0.15, 0.5)
        )
        for _ in range(CANDIDATES - 1)
    ]
    return [Batcher(1.2, 0.4, 1, 0.3), *drawn]


def search(machine: Machine, candidates: Sequence[Batcher]) -> tuple[list[TrialResult], list[HostRecord]]:
    """One launch of each candidate, under rising load, on the hosts in turn; and the baseline on every host."""
    trials = [
        TrialResult(
            number=number,
            parameters={},
            config="",
            effective_config=None,
            curve=_swept(machine, batcher, number),
            failure=None,
            launch_s=LAUNCH_S,
            first_answer_s=0.01,
            wall_s=1.0,
            host=_name(number, machine),
        )
        for number, batcher in enumerate(candidates)
    ]
    others = (
        (host, BaselineLaunch(curve=_swept(machine, candidates[0], host), at=float(host)))
        for host in range(1, machine.hosts)
    )
    records = [HostRecord(name=_name(host, machine), launches=(launch,)) for host, launch in others]
    return trials, [HostRecord(name=_name(0, machine)), *records]


def _swept(machine: Machine, batcher: Batcher, host: int) -> tuple[OperatingPoint, ...]:
    measure = machine.launch(batcher, host)
    return in_order_of_load(points_of(sweep(slo=LIMIT, max_concurrency=256), lambda load: measure(load, SWEEP_S)))


def _name(host: int, machine: Machine) -> str:
    return f"host-{host % machine.hosts}"


@dataclass(frozen=True)
class Finals:
    """How the finalists are verified.

    Attributes:
        seconds: The time for it.
        seed: The seed of the order of launches.
        slots: The number of rounds that are carried out at a time.
    """

    seconds: float
    seed: int
    slots: int = 1


def finals(
    machine: Machine,
    candidates: Sequence[Batcher],
    trials: Sequence[TrialResult],
    records: Sequence[HostRecord],
    asked: Finals,
) -> Recommendation:
    """What the finalists say."""
    now_s, free = 0.0, list(range(asked.slots))
    terms = VerificationTerms(
        slo=LIMIT,
        until=asked.seconds,
        launch_s=LAUNCH_S + ROUND_S,
        seed=asked.seed,
        now=lambda: now_s,
        slots=asked.slots,
    )
    plan = FinalsPlan(trials, terms, hosts=records)
    running: list[tuple[float, int, int, Round, list[tuple[list[OperatingPoint], float]]]] = []
    while True:
        while free and (due := plan.due()):
            slot = free.pop(0)
            results = [_relaunched(machine, candidates, launch, slot) for launch in due.launches]
            heapq.heappush(running, (now_s + sum(took_s for _, took_s in results), due.number, slot, due, results))
        if not running:
            return recommend(trials, LIMIT, plan.verifications)
        now_s, _, slot, due, results = heapq.heappop(running)
        for launch, (points, took_s) in zip(due.launches, results, strict=True):
            plan.begin(due, launch)
            plan.receive(due, launch, points, host=_name(slot, machine), took_s=took_s)
        plan.end(due)
        free.append(slot)


def _relaunched(
    machine: Machine, candidates: Sequence[Batcher], launch: Relaunch, host: int
) -> tuple[list[OperatingPoint], float]:
    """The points of a launch, and its seconds."""
    began_s = machine.wall_s
    measure = machine.launch(candidates[launch.trial.number], host)
    points = [measure(load, ROUND_S) for load in launch.loads]
    return points, machine.wall_s - began_s


@dataclass(frozen=True)
class Pick:
    """A recommendation, and what became of it.

    Attributes:
        overstated: Reported throughput over that measured again.
        over: The share of requests over the limit, measured again.
        of_best: Its throughput over that of the best candidate and load that truly hold the SLO.
        launches: Spent on it after the search.
        gain_covers: Whether the true gain lies in the reported interval.
    """

    overstated: float
    over: float
    of_best: float
    launches: int
    gain_covers: bool


def judged(
    found: Recommendation, candidates: Sequence[Batcher], machine: Machine, possible: float, launches: int
) -> Pick | None:
    """Measure a recommendation again; None when there is none."""
    if found.best is None or found.baseline is None or found.gain is None:
        return None
    throughput, over = _measured_again(found.best, candidates, machine)
    true, baseline = (
        candidates[each.trial.number].throughput(int(each.point.load.level)) for each in (found.best, found.baseline)
    )
    return Pick(
        overstated=found.best.point.throughput.value / throughput,
        over=over,
        of_best=throughput / possible,
        launches=launches,
        gain_covers=found.gain.low <= true / baseline <= found.gain.high,
    )


def _measured_again(pick: TrialPoint, candidates: Sequence[Batcher], machine: Machine) -> tuple[float, float]:
    """Mean throughput, and the share of all requests over the limit, of launches of a minute each, on all hosts."""
    batcher = candidates[pick.trial.number]
    launches = machine.hosts * math.ceil(AGAIN / machine.hosts)
    points = [machine.launch(batcher, host)(pick.point.load, AGAIN_S) for host in range(launches)]
    requests = sum(p.requests for p in points)
    over = sum(test.over for p in points for test in p.limits)
    return fmean(p.throughput.value for p in points), over / requests


def best_possible(candidates: Sequence[Batcher], noise: float, effects: Sequence[float]) -> float:
    """The highest throughput that truly holds the SLO, over all launches on all hosts."""
    limit_ms = min(LIMIT.root.values(), default=math.inf)
    spread = math.hypot(noise, math.sqrt(fmean(effect**2 for effect in effects)))
    speed = fmean(math.exp(effect) for effect in effects)
    return speed * max(b.throughput(c) for b in candidates for c in range(1, 257) if b.p99_ms(c, spread) <= limit_ms)


@dataclass(frozen=True)
class Hosts:
    """Where launches take place.

    Attributes:
        count: The number of hosts.
        effect: Standard deviation of the logarithm of their speed.
        slots: The number of rounds that are carried out at a time.
    """

    count: int = 1
    effect: float = 0.0
    slots: int = 1

    def drawn(self, rng: np.random.Generator) -> list[float]:
        """The logarithm of the speed of each host."""
        return (
            [self.effect * float(rng.standard_normal()) for _ in range(self.count)]
            if self.effect
            else [0.0] * self.count
        )


def simulate(  # noqa: PLR0917 (one for each option)
    runs: int, noise: float, budget_s: float, seed: int = 0, slower: float = 1.0, hosts: Hosts = Hosts()
) -> tuple[list[Pick], list[Pick]]:
    """The single-shot picks and the finalists' of so many runs, whose machine gets slower after the search."""
    single, verified = [], []
    for run in range(runs):
        rng = np.random.default_rng([seed, run])
        candidates, effects = family(rng), hosts.drawn(rng)
        machine = Machine(noise, rng, effects)
        trials, records = search(machine, candidates)
        launched = machine.launches
        candidates = [each.slowed(slower) for each in candidates]
        again = Machine(noise, rng, effects)
        possible = best_possible(candidates, noise, effects)
        if pick := judged(recommend(trials, LIMIT), candidates, again, possible, 0):
            single.append(pick)
        found = finals(machine, candidates, trials, records, Finals(FINALS_SHARE * budget_s, run, hosts.slots))
        if pick := judged(found, candidates, again, possible, machine.launches - launched):
            verified.append(pick)
    return single, verified


@dataclass(frozen=True)
class Held:
    """How often something was said to hold the SLO.

    Attributes:
        runs: Of so many.
        efforts: Of each that was said to, seconds of measuring or pairs of launches.
    """

    runs: int
    efforts: tuple[float, ...]

    @property
    def share(self) -> float:
        """Of all."""
        return len(self.efforts) / self.runs

    @property
    def at_most(self) -> float:
        """The upper end of the share's 95 % interval (Clopper and Pearson 1934), one-sided."""
        count = len(self.efforts)
        return 1.0 if count == self.runs else float(special.betaincinv(count + 1, self.runs - count, 0.95))


def certified(runs: int, room: float = 0.0, seed: int = 0) -> Held:
    """Of servers whose p99 is so far under the limit at every rate, how many have a rate certified."""
    efforts = (_certified(room, np.random.default_rng([seed, run])) for run in range(runs))
    return Held(runs, tuple(effort for effort in efforts if effort is not None))


def _certified(room: float, rng: np.random.Generator) -> float | None:
    """The seconds that the first rate took, if any was certified."""
    median_ms, tail = _near_limit(rng, room, 0.0)
    rates: list[float] = []

    def measure(load: Load) -> OperatingPoint:
        rates.append(load.level)
        return measured(load, load.level, median_ms, tail=tail, seconds=CERTIFY_S, rng=rng)

    found = result_of(certify(rng.uniform(200, 2_000), slo=LIMIT, until=math.inf), measure)
    return CERTIFY_S * rates.count(rates[0]) if found else None


def let_through(runs: int, noise: float, room: float = 0.0, seed: int = 0) -> Held:
    """Of candidates of a night that give half as much again, with p99 so far under the limit, how many it acts on."""
    efforts = (_let_through(noise, room, np.random.default_rng([seed, run])) for run in range(runs))
    return Held(runs, tuple(effort for effort in efforts if effort is not None))


def _let_through(noise: float, room: float, rng: np.random.Generator) -> float | None:
    """How many pairs of launches it took, if it acts."""
    (median_ms, tail), per_s = _near_limit(rng, room, noise), rng.uniform(200, 2_000)
    loads = (Concurrency(64), Concurrency(32))

    def launched(rate: float, typical_ms: float, loads: Sequence[Concurrency]) -> PairedLaunch:
        speed = math.exp(noise * rng.standard_normal())
        given = (
            measured(load, rate * speed, typical_ms / speed, tail=tail, seconds=ROUND_S, rng=rng) for load in loads
        )
        return PairedLaunch(points=tuple(given))

    terms = ComparisonTerms(slo=LIMIT, loads=loads, min_gain=0.03, seed=0, until=1.0, at_last=1.0, now=lambda: 0.0)
    told = compare(lambda _: launched(per_s, 1.0, loads[:1]), lambda _: launched(1.5 * per_s, median_ms, loads), terms)
    return float(told.pairs) if decide(told, min_gain=terms.min_gain).act else None


def _near_limit(rng: np.random.Generator, room: float, noise: float) -> tuple[float, float]:
    """The median of the latency in ms, and its tail, of a server whose p99 is so far under the limit, as a share."""
    (limit_ms,) = LIMIT.root.values()
    tail = rng.uniform(0.15, 0.5)
    return limit_ms * (1 - room) * math.exp(-Z99 * math.hypot(tail / Z99, noise)), tail


def overstatement(picks: Sequence[Pick]) -> float:
    """The median share by which throughput is overstated."""
    return median(pick.overstated for pick in picks) - 1


def broken(picks: Sequence[Pick]) -> int:
    """How many break the SLO when they are measured again."""
    return sum(pick.over > 1 - share_of(LIMIT.percentile) for pick in picks)


def at_limit(runs: int, noise: float, seed: int) -> Table:
    """How many servers are said to hold the SLO, at the limit and with room to it."""
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("", "p99 under the limit by", "runs", "said to hold", "at most (95 %)", "after (median)"):
        table.add_column(column, justify="right")
    for room in ROOMS:
        some = runs if not room else max(1, runs // 20)
        for name, unit, held in (
            ("certify", " s", certified(some, room, seed)),
            ("nightly gate", " pairs", let_through(some, noise, room, seed)),
        ):
            after = f"{median(held.efforts):g}{unit}" if held.efforts else ""
            table.add_row(name, f"{room:.0%}", str(some), f"{held.share:.2%}", f"{held.at_most:.2%}", after)
    return table


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--noise", type=float, nargs="+", default=[0.08, 0.2], help="how much launches differ")
    parser.add_argument("--budget", type=float, default=600.0, help="seconds")
    parser.add_argument("--slower", type=float, default=1.0, help="a factor")
    parser.add_argument("--hosts", type=int, default=1)
    parser.add_argument("--host-effect", type=float, default=0.0, help="how much hosts differ")
    parser.add_argument("--slots", type=int, default=1, help="rounds of the finalists at a time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at-limit", action="store_true", help="count what is wrongly said to hold the SLO")
    asked = parser.parse_args()
    console = Console(width=120)
    if asked.at_limit:
        for noise in asked.noise:
            console.print(at_limit(asked.runs, noise, asked.seed))
        return
    table = Table(box=box.SIMPLE_HEAD)
    for column in (
        "launches differ",
        "",
        "runs",
        "overstated",
        "break the SLO",
        "of the best",
        "gain covered",
        "launches",
    ):
        table.add_column(column, justify="right")
    for noise in asked.noise:
        hosts = Hosts(asked.hosts, asked.host_effect, asked.slots)
        both = simulate(asked.runs, noise, asked.budget, asked.seed, asked.slower, hosts)
        for name, picks in zip(("single shot", "finalists"), both, strict=True):
            table.add_row(
                f"{noise:.0%}",
                name,
                str(len(picks)),
                f"{overstatement(picks):+.1%}",
                str(broken(picks)),
                f"{median(pick.of_best for pick in picks):.1%}",
                f"{fmean(pick.gain_covers for pick in picks):.0%}",
                f"{median(pick.launches for pick in picks):g}",
            )
    console.print(table)


if __name__ == "__main__":
    main()
