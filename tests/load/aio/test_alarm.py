from __future__ import annotations

import asyncio
import time

from tuner.load.aio.alarm import Alarm


def test_it_rings_on_time() -> None:
    async def lateness_us() -> list[float]:
        alarm = Alarm(asyncio.get_running_loop())
        late = []
        for _ in range(200):
            # A clock of milliseconds would be 0.7 ms late.
            due_ns = time.monotonic_ns() + 1_300_000
            await alarm.until(due_ns)
            late.append((time.monotonic_ns() - due_ns) / 1e3)
        alarm.close()
        return late

    late = sorted(asyncio.run(lateness_us()))
    assert late[0] >= 0
    # However busy the machine is, now and then it wakes somebody on time.
    assert late[4] < 500


def test_a_moment_that_has_passed_is_not_waited_for() -> None:
    async def wait() -> None:
        alarm = Alarm(asyncio.get_running_loop())
        await alarm.until(0)
        await alarm.until(time.monotonic_ns())
        alarm.close()

    asyncio.run(asyncio.wait_for(wait(), 30))


def test_who_gave_up_waiting_can_wait_again() -> None:
    async def wait() -> None:
        alarm = Alarm(asyncio.get_running_loop())
        waiting = asyncio.create_task(alarm.until(time.monotonic_ns() + 20_000_000))
        await asyncio.sleep(0.005)
        waiting.cancel()
        # The one before rings meanwhile.
        began = time.monotonic()
        await asyncio.sleep(0.03)
        await alarm.until(time.monotonic_ns() + 20_000_000)
        assert time.monotonic() - began >= 0.05
        alarm.close()

    asyncio.run(wait())
