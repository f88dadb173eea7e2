"""Triton's scheduler, event by event, compiled.

Rules are those of Triton's core (`dynamic_batch_scheduler.cc`, `rate_limiter.cc`, `instance_queue.cc`; read at r24.10):

- Without dynamic batching each request is a payload of its own, and waits for an instance in order.
- With it, a thread puts the requests that wait into the current payload, and hands that over to the instances; up to
  two payloads an instance lie ahead of them, and one that is not saturated grows until an instance takes it.
- A batch goes at a preferred size; when it cannot grow; when its oldest request has waited for the delay; or at once
  where there is no delay. Arrivals wake the thread only when they reach the next preferred size, or when the current
  payload is not there to grow; so do instances that take a payload or end one.
- With a delay, an instance that takes a payload takes along those behind it that have waited for longer, as far as
  `max_batch_size` allows.

Instances slow each other down: how long an execution takes depends on how many are busy meanwhile, and with what: a
large batch is in the way of a small one for longer than another small one would be. Responses leave the server one
after the other, and the clients' next requests come as they do.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tuner.search.twin.compiling import compiled

_NEVER = np.inf
# From an arrival until the batcher's thread looks at the queue: what else comes meanwhile goes along.
_REACTION_MS = 0.05


@compiled
def serve(  # noqa: C901, PLR0912, PLR0915, PLR0917 (compiled, so that one function is one loop)
    service_ms: NDArray[np.float64],
    spread: float,
    pause_share: float,
    pause_ms: float,
    preferred: NDArray[np.bool_],
    dynamic: bool,  # noqa: FBT001 (numba takes no keyword-only arguments)
    delay_ms: float,
    unit: int,
    concurrency: int,
    due_ms: NDArray[np.float64],
    answer_ms: float,
    away_ms: float,
    apart_ms: float,
    warm_up: int,
    latency_ms: NDArray[np.float64],
    seed: int,
) -> tuple[float, float, float]:
    """Serve requests until `warm_up + len(latency_ms)` of them are answered.

    Args:
        service_ms: By batch size (rows, the first is of none) and instances that are busy with the same (columns, the
            first is of one). There are as many instances as columns, and batches are no larger than the last row.
        spread: Standard deviation of the logarithm of an execution's time.
        pause_share: Of executions, those that something holds up.
        pause_ms: For how long, in the mean.
        preferred: Whether each batch size, from 0, is a preferred one.
        dynamic: Whether batches are formed; else each request is an execution.
        delay_ms: How long a request may wait for others.
        unit: Inferences in each request.
        concurrency: Requests under way; 0: they come when they are due.
        due_ms: When, in order; as many as are served.
        answer_ms: That each answer keeps the server from sending the next one.
        away_ms: From an answer to the client's next request, at the server, in the mean (exponentially distributed, so
            that clients that were answered together do not stay together); an open loop's latency has it, too.
        apart_ms: Between the first requests of the clients of a closed loop.
        warm_up: Requests, in order of arrival, that do not count.
        latency_ms: Takes the latency of each that counts, in order of arrival.
        seed: Of what is by chance.

    Returns:
        Inferences a second, mean batch size (inferences an execution), mean number of busy instances.
    """
    np.random.seed(seed)
    largest, instances = service_ms.shape[0] - 1, service_ms.shape[1]
    # What an execution adds to each other one that runs meanwhile.
    adds_ms = np.zeros_like(service_ms)
    for others in range(1, instances):
        adds_ms[:, others] = (service_ms[:, others] - service_ms[:, 0]) / others
    last_preferred = 0
    for size in range(largest + 1):
        if preferred[size]:
            last_preferred = size
    requests = warm_up + len(latency_ms)
    # Requests overtake each other where there are several instances, and so some more are served than count.
    room = 2 * (requests + concurrency) if concurrency > 0 else requests
    came_ms = np.empty(room)
    came = 0  # requests whose arrival is known
    if concurrency > 0:
        for number in range(concurrency):
            came_ms[number] = number * apart_ms
        came = concurrency
    else:
        for number in range(requests):
            came_ms[number] = due_ms[number]
        came = requests
    arrived = 0  # of them, those at the server
    queued = 0  # the first that is in no payload yet
    # Payloads that wait, a ring: the first request, how many, and whether it is there at all.
    slots = 2 * instances if dynamic else room
    first = np.empty(slots + 1, np.int64)
    count = np.empty(slots + 1, np.int64)
    head = tail = 0
    ring = slots + 1
    # The current payload: its place in the ring, -1 while it is empty or gone.
    growing = -1
    saturated = False
    next_preferred = 0
    wakes_ms = _NEVER
    busy = 0
    running_first = np.zeros(instances, np.int64)
    running_count = np.zeros(instances, np.int64)
    left = np.zeros(instances)  # of its execution, as a share
    length = np.zeros(instances)  # times how long that takes in the mean
    takes_ms = np.zeros(instances)  # beside those that run now
    now = sent_ms = 0.0
    told = done = executions = 0
    busy_ms = began_ms = 0.0
    counted = 0
    while told < len(latency_ms):
        all_add_ms = 0.0
        for place in range(instances):
            if running_count[place] > 0:
                all_add_ms += adds_ms[running_count[place] * unit, busy - 1]
        soonest, which = _NEVER, -1
        for place in range(instances):
            if running_count[place] > 0:
                size = running_count[place] * unit
                others_add_ms = all_add_ms - adds_ms[size, busy - 1]
                takes_ms[place] = length[place] * (service_ms[size, 0] + others_add_ms)
                ends = now + left[place] * takes_ms[place]
                if ends < soonest:
                    soonest, which = ends, place
        arrives = came_ms[arrived] if arrived < came else _NEVER
        then = min(soonest, arrives, wakes_ms)
        if then == _NEVER:
            break
        for place in range(instances):
            if running_count[place] > 0:
                left[place] -= (then - now) / takes_ms[place]
        if done > warm_up:
            busy_ms += (then - now) * busy
        now = then
        wake = False
        if then == soonest:
            for number in range(running_first[which], running_first[which] + running_count[which]):
                sent_ms = max(sent_ms, now) + answer_ms
                if number >= warm_up and number < requests:
                    latency_ms[number - warm_up] = sent_ms - came_ms[number] + away_ms
                    told += 1
                if concurrency > 0 and came < room:
                    # In order of arrival: who was answered first may be back last.
                    comes_ms = sent_ms + np.random.exponential(away_ms)
                    position = came
                    while position > arrived and came_ms[position - 1] > comes_ms:
                        came_ms[position] = came_ms[position - 1]
                        position -= 1
                    came_ms[position] = comes_ms
                    came += 1
            if done <= warm_up < done + running_count[which]:
                began_ms, counted = now, done + running_count[which]
            elif done > warm_up:
                executions += 1
            done += running_count[which]
            running_count[which] = 0
            busy -= 1
            wake = True
        elif then == arrives:
            arrived += 1
            if not dynamic:
                first[tail], count[tail] = arrived - 1, 1
                tail = (tail + 1) % ring
                queued = arrived
            else:
                free = (tail - head) % ring < slots
                if free and (saturated or (arrived - queued) * unit >= next_preferred):
                    wakes_ms = min(wakes_ms, now + _REACTION_MS)
        else:
            wakes_ms = _NEVER
            wake = True
        # Instances take payloads, which wakes the batcher; what that makes of the queue, instances may take.
        while True:
            while busy < instances and head != tail:
                place = 0
                while running_count[place] > 0:
                    place += 1
                running_first[place], running_count[place] = first[head], 0
                merges = True
                while merges:
                    running_count[place] += count[head]
                    if growing == head:
                        growing, next_preferred = -1, 0
                    head = (head + 1) % ring
                    merges = (
                        dynamic
                        and delay_ms > 0
                        and head != tail
                        and now - came_ms[first[head]] > delay_ms
                        and (running_count[place] + count[head]) * unit <= largest
                    )
                left[place] = 1.0
                length[place] = np.exp(np.random.normal(0.0, spread) - spread**2 / 2)
                busy += 1
                if pause_share > 0 and np.random.random() < pause_share:
                    size = running_count[place] * unit
                    mean_ms = length[place] * service_ms[size, busy - 1]
                    left[place] += np.random.exponential(pause_ms) / mean_ms
                wake = True
            if not (dynamic and wake):
                break
            # One turn of the batcher's thread.
            wake = False
            wakes_ms = _NEVER
            if saturated:
                growing, saturated, next_preferred = -1, False, 0
            if arrived == queued or (tail - head) % ring >= slots:
                break
            held = 0 if growing < 0 else count[growing] * unit
            pending, best, cannot_grow = 0, 0, False
            for _ in range(arrived - queued):
                if held + pending > 0:
                    if held + pending + unit > last_preferred and best == 0:
                        best = pending
                        saturated = True
                    if held + pending + unit > largest:
                        cannot_grow = True
                        break
                pending += unit
                if preferred[held + pending]:
                    best = pending
            exceeded = delay_ms > 0 and now - came_ms[queued] >= delay_ms - 1e-9
            goes = 0
            if best > 0 and not exceeded:
                goes = best
                saturated |= delay_ms == 0
            elif pending > 0:
                if cannot_grow or held + pending >= last_preferred:
                    goes = pending
                    saturated = True
                elif exceeded or delay_ms == 0:
                    goes = pending
                else:
                    size = held + pending + 1
                    while size < last_preferred and not preferred[size]:
                        size += 1
                    next_preferred = size - held
                    if held > 0 and not saturated and not preferred[held]:
                        goes = pending
                    else:
                        wakes_ms = came_ms[queued] + delay_ms
            if goes > 0:
                if growing < 0:
                    first[tail], count[tail] = queued, 0
                    growing = tail
                    tail = (tail + 1) % ring
                count[growing] += goes // unit
                queued += goes // unit
            wake = goes > 0 or saturated
    lasted_ms = now - began_ms
    inferences = (done - counted) * unit
    if lasted_ms <= 0 or executions == 0:
        return 0.0, 0.0, 0.0
    return inferences / lasted_ms * 1e3, inferences / executions, busy_ms / lasted_ms
