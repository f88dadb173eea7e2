"""Triton's scheduler, simulated event by event, as compiled code.

The rules are those of Triton's core (`dynamic_batch_scheduler.cc`, `rate_limiter.cc`, `instance_queue.cc`; read at
r24.10):

- Without dynamic batching, each request is a separate payload. Payloads wait for an instance in order.
- With dynamic batching, a thread moves waiting requests into the current payload, and passes it to the instances. Up to
two
  payloads per instance wait for an instance. A payload that is not saturated grows until an instance takes it.
- A payload leaves at a preferred size, or when it cannot grow. It also leaves when its oldest request has waited for
the delay, or at once if there is no delay. once if there is no delay. An arrival wakes the thread only if the requests
reach the next preferred size, or if no current payload can grow. An instance that takes or ends a payload wakes the
thread, too.
- With a delay, an instance that takes a payload also takes those behind it that have waited for longer than the delay,
  up to `max_batch_size`.

Instances slow each other down: the time of an execution depends on how many instances are busy meanwhile, and on the
sizes of their batches. Responses leave the server one after the other, and each client then sends its next request.
"""

from __future__ import annotations

from typing import NamedTuple, get_type_hints

import numpy as np
from numpy.typing import NDArray

from tuner.search.twin.compiling import compiled, inlined

_NEVER = np.inf
# Time from an arrival until the batcher's thread looks at the queue; requests that arrive meanwhile join the payload.
_REACTION_MS = 0.05


class Scenario(NamedTuple):
    """A simulated server, its rules for batches, and its load.

    Attributes:
        service_ms: Mean execution time, by batch size (rows; row 0 is unused) and by number of busy instances (columns,
            the first for one) that all execute batches of this size. It has one column for each instance, and its last
            row is the largest batch.
        preferred: Whether a batch size is a preferred one, for each size from 0 to the largest.
        dynamic: Whether the server forms batches; else it executes each request by itself.
        delay_ms: How long a request may wait for others (`max_queue_delay_microseconds`).
        request_size: Inferences in each request.
        concurrency: Requests in flight of a closed loop; 0: an open loop.
        due_ms: Arrival times of an open loop, ascending, one for each request; unused in a closed loop.
        spread: Standard deviation of the logarithm of an execution's time.
        pause_share: Share of executions that a pause prolongs.
        pause_ms: Mean length of a pause (exponentially distributed).
        answer_ms: Time for which an answer keeps the server from sending the next one.
        away_ms: Mean time from an answer to the client's next request at the server. It is exponentially distributed,
            so that clients that were answered together do not stay together. It is part of the latency in an open loop,
            too.
        apart_ms: Time between the first requests of the clients of a closed loop.
        warm_up: Number of first requests, in order of arrival, that do not count.
    """

    service_ms: NDArray[np.float64]
    preferred: NDArray[np.bool_]
    dynamic: bool = False
    delay_ms: float = 0.0
    request_size: int = 1
    concurrency: int = 0
    due_ms: NDArray[np.float64] = np.empty(0)
    spread: float = 0.0
    pause_share: float = 0.0
    pause_ms: float = 0.0
    answer_ms: float = 0.0
    away_ms: float = 0.0
    apart_ms: float = 0.0
    warm_up: int = 0


class _Queue(NamedTuple):
    """Requests that arrive, and the ring of payloads that wait for an instance.

    Attributes:
        came_ms: Arrival time of each request, ascending.
        first: Number of each payload's first request.
        requests: Number of each payload's requests.
    """

    came_ms: NDArray[np.float64]
    first: NDArray[np.int64]
    requests: NDArray[np.int64]


class _Instances(NamedTuple):
    """The execution of each instance.

    Attributes:
        first: Number of the first request.
        requests: Number of requests; 0: idle.
        left: Remaining share of the execution.
        length: Time of this execution over the mean one.
        takes_ms: Time of the whole execution beside the instances that are busy now.
        adds_ms: Additional time of another execution beside one of this batch size (rows), by number of other busy
            instances (columns).
    """

    first: NDArray[np.int64]
    requests: NDArray[np.int64]
    left: NDArray[np.float64]
    length: NDArray[np.float64]
    takes_ms: NDArray[np.float64]
    adds_ms: NDArray[np.float64]


class _State:
    """The state of a simulation; in compiled code a numpy record, which is passed by reference.

    Attributes:
        now_ms: The simulated time.
        came: Number of requests whose arrival time is known.
        arrived: Number of requests that have arrived at the server.
        queued: Number of the first request that is not in a payload.
        head: Place of the first payload in the ring.
        tail: Place behind the last one.
        growing: Place of the current payload; -1: it is empty or has left.
        saturated: Whether the current payload takes no more requests.
        next_preferred: Waiting inferences at which an arrival wakes the batcher's thread.
        last_preferred: The largest preferred size.
        awake: Whether the batcher's thread must look at the queue.
        wakes_ms: When it wakes by itself.
        busy: Number of busy instances.
        sent_ms: When the last answer left the server.
        answered: Number of latencies that are known.
        done: Number of requests that were executed.
        began_ms: When the counts of the results began, at the end of the execution that ended the warm-up.
        warmed: The value of `done` at that time.
        executions: Number of executions that ended since.
        busy_ms: Busy time of all instances since.
    """

    now_ms: float
    came: int
    arrived: int
    queued: int
    head: int
    tail: int
    growing: int
    saturated: bool
    next_preferred: int
    last_preferred: int
    awake: bool
    wakes_ms: float
    busy: int
    sent_ms: float
    answered: int
    done: int
    began_ms: float
    warmed: int
    executions: int
    busy_ms: float


_RECORD = np.dtype(list(get_type_hints(_State).items()), align=True)


@compiled
def serve(scenario: Scenario, latency_ms: NDArray[np.float64], seed: int) -> tuple[float, float, float]:
    """Serve requests until `warm_up + len(latency_ms)` of them are answered.

    Args:
        scenario: The simulated server and load.
        latency_ms: Takes the latency of each request that counts, in order of arrival.
        seed: Seed of the random numbers.

    Returns:
        Inferences per second, mean batch size (inferences per execution), mean number of busy instances.
    """
    np.random.seed(seed)
    requests = scenario.warm_up + len(latency_ms)
    # With several instances, requests overtake each other. So more requests are served than are counted.
    room = 2 * (requests + scenario.concurrency) if scenario.concurrency > 0 else requests
    number = scenario.service_ms.shape[1]
    ring = (2 * number if scenario.dynamic else room) + 1
    queue = _Queue(np.empty(room), np.empty(ring, np.int64), np.empty(ring, np.int64))
    instances = _Instances(
        np.zeros(number, np.int64),
        np.zeros(number, np.int64),
        np.zeros(number),
        np.zeros(number),
        np.zeros(number),
        np.zeros_like(scenario.service_ms),
    )
    return _run(scenario, np.zeros(1, _RECORD), queue, instances, latency_ms)


@inlined
def _begin(scenario: Scenario, state: _State, queue: _Queue, instances: _Instances) -> None:
    """Set the initial values that are not 0."""
    state.growing = -1
    state.wakes_ms = _NEVER
    for size in range(len(scenario.preferred)):
        if scenario.preferred[size]:
            state.last_preferred = size
        for others in range(1, len(instances.requests)):
            slower_ms = scenario.service_ms[size, others] - scenario.service_ms[size, 0]
            instances.adds_ms[size, others] = slower_ms / others
    closed = scenario.concurrency > 0
    state.came = scenario.concurrency if closed else len(queue.came_ms)
    for number in range(state.came):
        queue.came_ms[number] = number * scenario.apart_ms if closed else scenario.due_ms[number]


@inlined
def _run(
    scenario: Scenario, states: NDArray[np.void], queue: _Queue, instances: _Instances, latency_ms: NDArray[np.float64]
) -> tuple[float, float, float]:
    """Go from event to event: an execution ends, a request arrives, or the batcher's thread wakes.

    It takes the state as an array of one record, since a record alone would not keep its memory alive.
    """
    state: _State = states[0]
    _begin(scenario, state, queue, instances)
    while state.answered < len(latency_ms):
        ends_ms, which = _next_end(scenario, state, instances)
        arrives_ms = queue.came_ms[state.arrived] if state.arrived < state.came else _NEVER
        then_ms = min(ends_ms, arrives_ms, state.wakes_ms)
        if then_ms == _NEVER:
            break
        _advance(scenario, state, instances, then_ms)
        if then_ms == ends_ms:
            for number in range(instances.first[which], instances.first[which] + instances.requests[which]):
                _answer(scenario, state, queue.came_ms, number, latency_ms)
            _end(scenario, state, instances, which)
            state.awake = True
        elif then_ms == arrives_ms:
            _arrive(scenario, state, queue)
        else:
            state.awake = True
        _schedule(scenario, state, queue, instances)
    return _figures(scenario, state)


@inlined
def _figures(scenario: Scenario, state: _State) -> tuple[float, float, float]:
    """Compute what `serve` returns."""
    lasted_ms = state.now_ms - state.began_ms
    if lasted_ms <= 0 or state.executions == 0:
        return 0.0, 0.0, 0.0
    inferences = (state.done - state.warmed) * scenario.request_size
    return inferences / lasted_ms * 1e3, inferences / state.executions, state.busy_ms / lasted_ms


@inlined
def _next_end(scenario: Scenario, state: _State, instances: _Instances) -> tuple[float, int]:
    """The time of the next end of an execution, and its instance; infinity and -1 if none is busy."""
    all_add_ms = 0.0
    for place in range(len(instances.requests)):
        if instances.requests[place] > 0:
            all_add_ms += instances.adds_ms[instances.requests[place] * scenario.request_size, state.busy - 1]
    soonest_ms, which = _NEVER, -1
    for place in range(len(instances.requests)):
        if instances.requests[place] > 0:
            size = instances.requests[place] * scenario.request_size
            others_add_ms = all_add_ms - instances.adds_ms[size, state.busy - 1]
            instances.takes_ms[place] = instances.length[place] * (scenario.service_ms[size, 0] + others_add_ms)
            ends_ms = state.now_ms + instances.left[place] * instances.takes_ms[place]
            if ends_ms < soonest_ms:
                soonest_ms, which = ends_ms, place
    return soonest_ms, which


@inlined
def _advance(scenario: Scenario, state: _State, instances: _Instances, then_ms: float) -> None:
    """Advance to the time of the next event."""
    for place in range(len(instances.requests)):
        if instances.requests[place] > 0:
            instances.left[place] -= (then_ms - state.now_ms) / instances.takes_ms[place]
    if state.done > scenario.warm_up:
        state.busy_ms += (then_ms - state.now_ms) * state.busy
    state.now_ms = then_ms


@inlined
def _answer(
    scenario: Scenario, state: _State, came_ms: NDArray[np.float64], number: int, latency_ms: NDArray[np.float64]
) -> None:
    """Send an answer; in a closed loop, its client then sends the next request."""
    state.sent_ms = max(state.sent_ms, state.now_ms) + scenario.answer_ms
    if 0 <= number - scenario.warm_up < len(latency_ms):
        latency_ms[number - scenario.warm_up] = state.sent_ms - came_ms[number] + scenario.away_ms
        state.answered += 1
    if scenario.concurrency > 0 and state.came < len(came_ms):
        # Insert in order of time, since the client that was answered first may send last.
        comes_ms = state.sent_ms + np.random.exponential(scenario.away_ms)
        position = state.came
        while position > state.arrived and came_ms[position - 1] > comes_ms:
            came_ms[position] = came_ms[position - 1]
            position -= 1
        came_ms[position] = comes_ms
        state.came += 1


@inlined
def _end(scenario: Scenario, state: _State, instances: _Instances, which: int) -> None:
    """End an execution."""
    done = state.done + instances.requests[which]
    if state.done <= scenario.warm_up < done:
        state.began_ms, state.warmed = state.now_ms, done
    elif state.done > scenario.warm_up:
        state.executions += 1
    state.done = done
    instances.requests[which] = 0
    state.busy -= 1


@inlined
def _arrive(scenario: Scenario, state: _State, queue: _Queue) -> None:
    """Let the next request arrive."""
    state.arrived += 1
    if not scenario.dynamic:
        queue.first[state.tail], queue.requests[state.tail] = state.queued, 1
        state.tail = (state.tail + 1) % len(queue.first)
        state.queued = state.arrived
        return
    waiting = (state.arrived - state.queued) * scenario.request_size
    if _has_room(state, queue) and (state.saturated or waiting >= state.next_preferred):
        state.wakes_ms = min(state.wakes_ms, state.now_ms + _REACTION_MS)


@inlined
def _has_room(state: _State, queue: _Queue) -> bool:
    """Whether the ring has room for another payload."""
    ring = len(queue.first)
    return (state.tail - state.head) % ring < ring - 1


@inlined
def _schedule(scenario: Scenario, state: _State, queue: _Queue, instances: _Instances) -> None:
    """Let idle instances take payloads, and the woken thread form new ones, until neither can continue."""
    while True:
        while state.busy < len(instances.requests) and state.head != state.tail:
            _take(scenario, state, queue, instances)
            state.awake = True
        if not (scenario.dynamic and state.awake):
            break
        state.awake = _form(scenario, state, queue)


@inlined
def _take(scenario: Scenario, state: _State, queue: _Queue, instances: _Instances) -> None:
    """Let an idle instance take the first payload; with a delay, the late ones behind it, too."""
    place = 0
    while instances.requests[place] > 0:
        place += 1
    instances.first[place] = queue.first[state.head]
    count = _pop(state, queue)
    while _is_late(scenario, state, queue, count):
        count += _pop(state, queue)
    instances.requests[place] = count
    state.busy += 1
    instances.left[place] = 1.0
    instances.length[place] = np.exp(np.random.normal(0.0, scenario.spread) - scenario.spread**2 / 2)
    if scenario.pause_share > 0 and np.random.random() < scenario.pause_share:
        mean_ms = instances.length[place] * scenario.service_ms[count * scenario.request_size, state.busy - 1]
        instances.left[place] += np.random.exponential(scenario.pause_ms) / mean_ms


@inlined
def _pop(state: _State, queue: _Queue) -> int:
    """Remove the first payload from the ring, and return its number of requests."""
    count = queue.requests[state.head]
    if state.growing == state.head:
        state.growing, state.next_preferred = -1, 0
    state.head = (state.head + 1) % len(queue.first)
    return int(count)


@inlined
def _is_late(scenario: Scenario, state: _State, queue: _Queue, count: int) -> bool:
    """Whether the first payload has waited for longer than the delay, and fits behind `count` requests."""
    return (
        scenario.dynamic
        and scenario.delay_ms > 0
        and state.head != state.tail
        and state.now_ms - queue.came_ms[queue.first[state.head]] > scenario.delay_ms
        and (count + queue.requests[state.head]) * scenario.request_size < len(scenario.preferred)
    )


@inlined
def _form(scenario: Scenario, state: _State, queue: _Queue) -> bool:
    """One turn of the batcher's thread; returns whether another one follows."""
    state.wakes_ms = _NEVER
    if state.saturated:
        state.growing, state.saturated, state.next_preferred = -1, False, 0
    if state.arrived == state.queued or not _has_room(state, queue):
        return False
    held = 0 if state.growing < 0 else queue.requests[state.growing] * scenario.request_size
    requests = _leaving(scenario, state, queue.came_ms[state.queued], held) // scenario.request_size
    if requests > 0:
        if state.growing < 0:
            queue.first[state.tail], queue.requests[state.tail] = state.queued, 0
            state.growing = state.tail
            state.tail = (state.tail + 1) % len(queue.first)
        queue.requests[state.growing] += requests
        state.queued += requests
    return requests > 0 or state.saturated


@inlined
def _leaving(scenario: Scenario, state: _State, oldest_ms: float, held: int) -> int:
    """The number of inferences that join the `held` ones in the current payload; 0: they wait until `wakes_ms`."""
    pending, best, cannot_grow = _look_through(scenario, state, held)
    exceeded = scenario.delay_ms > 0 and state.now_ms - oldest_ms >= scenario.delay_ms - 1e-9
    if best > 0 and not exceeded:
        state.saturated = state.saturated or scenario.delay_ms == 0
        return best
    if pending > 0 and (cannot_grow or held + pending >= state.last_preferred):
        state.saturated = True
        return pending
    if pending == 0 or exceeded or scenario.delay_ms == 0:
        return pending
    size = held + pending + 1
    while size < state.last_preferred and not scenario.preferred[size]:
        size += 1
    state.next_preferred = size - held
    if held > 0 and not state.saturated and not scenario.preferred[held]:
        return pending
    state.wakes_ms = oldest_ms + scenario.delay_ms
    return 0


@inlined
def _look_through(scenario: Scenario, state: _State, held: int) -> tuple[int, int, bool]:
    """Count the waiting inferences that fit behind `held`.

    Returns:
        Inferences that fit; inferences up to the largest preferred size; whether more are waiting that do not fit.
    """
    pending = best = 0
    for _ in range(state.arrived - state.queued):
        after = held + pending + scenario.request_size
        if held + pending > 0:
            if after > state.last_preferred and best == 0:
                best = pending
                state.saturated = True
            if after >= len(scenario.preferred):
                return pending, best, True
        pending += scenario.request_size
        if scenario.preferred[after]:
            best = pending
    return pending, best, False
