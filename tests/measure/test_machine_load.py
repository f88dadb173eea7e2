from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tuner.measure import machine_load as module
from tuner.measure.machine_load import (
    MachineLoad,
    ProcessorTimes,
    is_of_this_machine,
    loads_together,
    machine_load,
    processor_times,
)
from tuner.measure.sampling import Sample
from tuner.servers.usage import ServerUsage

SECOND = 10**9


def machine(at_s: float, *, cores: int = 4, lost_s: float = 0.0) -> Sample[ProcessorTimes]:
    """Of four cores, 1 is idle, 0.25 in interrupts, 0.25 stolen, and 0.5 ours; the rest of them is taken."""
    times = ProcessorTimes(cores, at_s, at_s / 4, at_s / 4, 4 * at_s - lost_s, at_s / 2)
    return Sample(round(at_s * SECOND), times)


def server(at_s: float, cores: float = 1.0) -> Sample[ServerUsage]:
    return Sample(round(at_s * SECOND), ServerUsage(cores * at_s, 1))


SAMPLES = [machine(10), machine(11), machine(12.5), machine(14)]


def test_elsewhere_is_what_neither_side_took() -> None:
    # Of times that are those of the server's samples.
    found = machine_load(SAMPLES, [server(10.5), server(13.5)], workers_cores=0.25, server_elsewhere=False)
    assert found is not None
    assert found.cores == 4
    assert (found.idle_cores, found.stolen_cores) == pytest.approx((1, 0.25))
    assert found.elsewhere_cores == pytest.approx(2.5 - 0.5 - 0.25 - 1)


def test_a_server_that_nobody_sees_may_be_here_or_not() -> None:
    unknown = machine_load(SAMPLES, [], workers_cores=0.25, server_elsewhere=False)
    assert unknown is not None
    assert unknown.elsewhere_cores is None
    assert unknown.idle_cores == pytest.approx(1)
    remote = machine_load(SAMPLES, [], workers_cores=0.25, server_elsewhere=True)
    assert remote is not None
    assert remote.elsewhere_cores == pytest.approx(1.75)


def test_too_little_is_known() -> None:
    both = [server(10), server(14)]
    assert machine_load(SAMPLES[:1], both, workers_cores=0, server_elsewhere=False) is None
    assert machine_load(SAMPLES[:2], [server(20), server(21)], workers_cores=0, server_elsewhere=False) is None


def test_clocks_that_make_no_sense_are_not_believed() -> None:
    odd = [machine(10, cores=8), machine(14, cores=8)]
    assert machine_load(odd, [server(10), server(14)], workers_cores=0, server_elsewhere=False) is None


def test_nobody_takes_less_than_nothing() -> None:
    greedy = machine_load(SAMPLES, [server(10, 3), server(14, 3)], workers_cores=0, server_elsewhere=False)
    assert greedy is not None
    assert greedy.elsewhere_cores == 0


def test_this_machine_is_read_and_what_we_take_is_ours() -> None:
    first = processor_times()
    if first is None:
        pytest.skip("this machine does not tell")
    began, samples = time.monotonic(), [Sample(time.monotonic_ns(), first)]
    while time.monotonic() - began < 0.5:
        pass
    last = processor_times()
    assert last is not None
    samples.append(Sample(time.monotonic_ns(), last))
    found = machine_load(samples, [], workers_cores=0.0, server_elsewhere=True)
    assert found is not None
    assert found.elsewhere_cores is not None
    own = (last.own_s - first.own_s) * 1e9 / (samples[1].at_ns - samples[0].at_ns)
    assert 0 < own <= 1.1
    assert own + found.elsewhere_cores + found.idle_cores <= found.cores + 0.2


@pytest.mark.parametrize(
    ("host", "is_own"),
    [("localhost", True), ("127.0.0.1", True), ("::1", True), ("192.0.2.7", False), ("no such host.invalid", True)],
)
def test_which_addresses_are_this_machine(host: str, is_own: bool) -> None:  # noqa: FBT001 (a parameter)
    assert is_of_this_machine(host) is is_own


def test_rounds_together() -> None:
    one = MachineLoad(cores=4, idle_cores=1, elsewhere_cores=None, stolen_cores=0)
    two = MachineLoad(cores=4, idle_cores=2, elsewhere_cores=0.5, stolen_cores=0.5)
    assert loads_together([one, None, two]) == MachineLoad(
        cores=4, idle_cores=1.5, elsewhere_cores=0.5, stolen_cores=0.25
    )
    assert loads_together([None]) is None


def test_the_times_of_some_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tick = os.sysconf("SC_CLK_TCK")
    states = tmp_path / "stat"
    each = {"cpu": "9 9 9 9 9 9 9 9", "cpu0": "9 9 9 9 9 9 9 9", "cpu2": "1 2 3 4 5 6 7 8", "cpu13": "1 1 1 1 1 1 1 1"}
    states.write_text("".join(f"{name} {ticks} 0 0\n" for name, ticks in each.items()) + "intr 5\n")
    monkeypatch.setattr(module, "_STATES", states)
    times = processor_times({2, 13})
    assert times is not None
    assert times.cores == 2
    seconds = (times.idle_s, times.interrupts_s, times.stolen_s)
    assert seconds == pytest.approx((11 / tick, 15 / tick, 9 / tick))
    assert times.total_s == pytest.approx(44 / tick)
    assert processor_times({1, 2}) is None
    monkeypatch.setattr(module, "_STATES", tmp_path / "nothing")
    assert processor_times({2}) is None


def test_the_times_of_these_processors_are_those_of_all() -> None:
    everywhere, here = processor_times(), processor_times(range(os.cpu_count() or 1))
    assert everywhere is not None
    assert here is not None
    assert here.cores == everywhere.cores
    assert here.total_s == pytest.approx(everywhere.total_s, rel=0.01)
