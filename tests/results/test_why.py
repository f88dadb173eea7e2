from __future__ import annotations

from typing import Any

import pytest
from support.builders import MLP, interval, point, served_point, trial

from tuner.analysis.effects import FieldEffect
from tuner.core.errors import Cause
from tuner.core.loads import RequestRate
from tuner.core.slo import SLO
from tuner.measure.client_view import ClientView
from tuner.measure.gpu_view import GpuUsage, GpuView
from tuner.measure.points import OperatingPoint
from tuner.measure.server_resources import ServerResources
from tuner.recommend.front import TrialPoint
from tuner.results.why import effect_in_words, effects_in_short, effects_in_words, why_in_words

BATCHING = MLP + "dynamic_batching { }\n"


def why(point: OperatingPoint, config: str = MLP) -> str:
    return why_in_words(TrialPoint(trial(1, point, config=config), point))


def instances(count: int, config: str = MLP) -> str:
    return config.replace("count: 1", f"count: {count}")


def test_full_instances() -> None:
    assert why(served_point(64, batch=32, executions=96, queue_ms=12.26, service_ms=20), instances(2, BATCHING)) == (
        "batches of 32.0 on average; 38% of a request's time in the queue; both instances busy 96% of the time: "
        "more load only makes the queue longer"
    )


def test_an_idle_instance() -> None:
    assert why(served_point(1, executions=29)) == (
        "each request executed by itself; 0% of a request's time in the queue; the instance idle 71% of the time: "
        "most of the latency is the model's own"
    )


def test_batches_that_may_grow() -> None:
    told = why(served_point(16, batch=8, executions=95, queue_ms=10), BATCHING)
    assert told.startswith("batches of 8.0 on average; ")
    assert told.endswith(": more load makes the batches larger")


def test_many_instances() -> None:
    assert "; the 4 instances busy 60% of the time" in why(served_point(8, executions=240), instances(4))


def test_what_the_machine_had_to_do() -> None:
    busy = served_point(4, executions=95, queue_ms=30)
    with_cores = busy.model_copy(update={"server_resources": ServerResources(cpu_cores=1.44, memory_bytes=1)})
    assert "; 1.4 CPU cores taken: more load only makes the queue longer" in why(with_cores)
    view = GpuView(gpu="GPU 0", uuid="GPU-0", utilization_percent=97.3)
    told = why(with_cores.model_copy(update={"gpu": GpuUsage(gpus=(view,))}))
    assert "; GPU utilisation 97%: the GPU is almost always busy, so more load only makes the queue longer" in told
    assert "cores" not in told


def test_time_on_the_way() -> None:
    told = why(served_point(executions=29, service_ms=10, outside_ms=30))
    assert "% of latency is outside queue and model (network, frontend, client)" in told


def test_a_queue_delay() -> None:
    config = MLP + "dynamic_batching { max_queue_delay_microseconds: 5000 }\n"
    told = why(served_point(8, batch=4, executions=40, queue_ms=4), config)
    assert told.endswith(": requests wait up to the queue delay for others to share their batch")


def test_the_load_generator_and_the_rate() -> None:
    bound = {"client": ClientView(cpu=0.9, bound="it took 90% of a core")}
    told = why(served_point(4, executions=95, queue_ms=30).model_copy(update=bound))
    assert told.endswith(": the load generator was the limit, not the server (it took 90% of a core)")
    held_up = served_point(4).model_copy(update={"client": ClientView(cpu=0.03, bound="it was late")})
    assert why(held_up).endswith(": the load generator could not send in time (it was late)")
    late = served_point(RequestRate(200), executions=95, queue_ms=300).model_copy(update={"kept_up": False})
    assert why(late).endswith(": the server does not keep up with this rate")


def test_nothing_is_made_up() -> None:
    """Neither where the server is silent, nor where its numbers allow no conclusion."""
    assert why(point().model_copy(update={"server": None})) == ""
    told = why(served_point(2, executions=80, queue_ms=8))
    assert told.endswith("the instance busy 80% of the time")


def test_a_request_of_several_inferences_is_no_batch_of_the_servers() -> None:
    told = why(served_point(4, batch=8, executions=95, queue_ms=30).model_copy(update={"batch_size": 8}))
    assert told.startswith("each request executed by itself; ")


def effect(**changes: Any) -> FieldEffect:
    """Of two instances, against a trial of one that gives 200 inferences/s at p99 18 ms."""
    without = trial(4, point(4, 200, 18))
    known: dict[str, Any] = {
        "name": "instance_group.count",
        "value": 2,
        "was": 1,
        "without": {"instance_group.count": 1},
        "trial": without,
        "point": TrialPoint(without, without.curve[0]),
        "gain": interval(2.0, 0.1),
    }
    return FieldEffect(**{**known, **changes})


LIMIT = SLO({"p99": 25.0})
NOTHING = {"point": None, "gain": None}
WITHOUT = "200 inferences/s, p99 18 ms at concurrency 4 (trial 4, launched once)"
NOISE = "no effect on throughput beyond noise (0.98 to 1.04)"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "2.00 x the throughput (1.80 to 2.20); without it " + WITHOUT),
        (
            {"gain": interval(0.8, 0.1)},
            "0.80 x the throughput (0.72 to 0.88); better without it: " + WITHOUT,
        ),
        (
            {"gain": interval(1.01, 0.03)},
            NOISE,
        ),
        (
            {"gain": interval(1.01, 0.03), "latency": interval(0.7, 0.1)},
            NOISE + "; p99 0.70 x (0.63 to 0.77), without it 18 ms",
        ),
        (
            {"gain": interval(1.01, 0.03), "latency": interval(1, 0.1)},
            NOISE,
        ),
        (NOTHING, "without it the config violates p99 <= 25 ms at every measured load (trial 4)"),
        (
            {**NOTHING, "trial": trial(4, failure=Cause.OUT_OF_MEMORY)},
            "without it: out_of_memory: it did not work (trial 4)",
        ),
        ({**NOTHING, "trial": None}, "effect not known: no trial differs in this alone; --explain measures it"),
        ({**NOTHING, "trial": None, "without": None}, "follows from the other changes"),
    ],
)
def test_what_a_change_does(changes: dict[str, Any], words: str) -> None:
    assert effect_in_words(effect(**changes), LIMIT) == f"instance_group.count 2 (was 1): {words}"


def test_without_a_limit_none_is_broken() -> None:
    told = effect_in_words(effect(**NOTHING), SLO())
    assert told.endswith(": without it the config fails some requests at every measured load (trial 4)")


@pytest.mark.parametrize(
    ("changes", "head"),
    [
        ({"name": "dynamic_batching", "value": "on", "was": "off"}, "dynamic_batching on (was off): "),
        ({"value": (4, 8), "was": "off"}, "instance_group.count [4, 8] (was off): "),
        ({"was": "as is"}, "instance_group.count 2 (was of several values): "),
        ({"together": ("a",)}, "instance_group.count 2 (was 1), and with it a: "),
        ({"together": ("a", "b", "c")}, "instance_group.count 2 (was 1), and with it a, b and c: "),
    ],
)
def test_how_a_change_is_named(changes: dict[str, Any], head: str) -> None:
    assert effect_in_words(effect(**changes), LIMIT).startswith(head)


UNKNOWN: dict[str, Any] = {**NOTHING, "trial": None}


def test_a_sentence_that_is_too_long_loses_its_last_facts_first() -> None:
    busy = served_point(4, executions=95, queue_ms=30)
    point = busy.model_copy(update={"server_resources": ServerResources(cpu_cores=1.44, memory_bytes=1)})
    whole = why(point)
    at = TrialPoint(trial(1, point, config=MLP), point)
    assert why_in_words(at, len(whole)) == whole
    assert why_in_words(at, len(whole) - 1) == whole.replace("; 1.4 CPU cores taken", "")
    assert why_in_words(at, 1) == whole.split(": ")[-1]


def test_effects_that_are_not_known_share_a_line() -> None:
    effects = [effect(**UNKNOWN), effect(name="dynamic_batching", value="on", was="off"), effect(**UNKNOWN, name="a")]
    known, unknown = effects_in_words(effects, LIMIT)
    assert known.startswith("dynamic_batching on (was off): 2.00 x the throughput")
    assert unknown == (
        "effect not known: instance_group.count 2 (was 1), a 2 (was 1) "
        "(no trial differs in one of these alone; --explain measures it)"
    )
    assert list(effects_in_words([effect(**UNKNOWN)], LIMIT)) == [
        "effect not known: instance_group.count 2 (was 1) (no trial differs in this alone; --explain measures it)"
    ]


def test_effects_in_a_few_words() -> None:
    effects = [
        effect(name="dynamic_batching"),
        effect(gain=interval(1.01, 0.03)),
        effect(**NOTHING, name="a"),
        effect(**UNKNOWN, name="dynamic_batching.max_queue_delay_microseconds"),
        effect(**{**UNKNOWN, "without": None}, name="b"),
    ]
    assert effects_in_short(effects) == (
        "dynamic_batching 2.00 x, instance_group.count no effect, a is needed, b follows from others; "
        "effect unknown without --explain: max_queue_delay_microseconds"
    )
    assert effects_in_short([effect(**UNKNOWN)]) == "effect unknown without --explain: instance_group.count"
