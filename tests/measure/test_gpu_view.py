from __future__ import annotations

from support.nvml import GIB

from tuner.measure.gpu_view import GpuUsage, GpuView, usage_together


def view(number: int = 0, **told: object) -> GpuView:
    return GpuView.model_validate({"gpu": f"GPU {number}", "uuid": f"GPU-{number}", **told})


def test_several_gpus_together() -> None:
    usage = GpuUsage(
        gpus=(
            view(
                0, utilization_percent=80, memory_bytes=5 * GIB, run_memory_bytes=6 * GIB, power_w=300, temperature_c=60
            ),
            view(
                1,
                utilization_percent=40,
                memory_bytes=9 * GIB,
                run_memory_bytes=9 * GIB,
                idle_memory_bytes=4 * GIB,
                power_w=100,
                sm_clock_mhz=900,
                throttle_reasons=("hw_slowdown",),
            ),
        )
    )
    assert (usage.utilization_percent, usage.power_w, usage.memory_bytes) == (60, 400, 9 * GIB)
    assert (usage.temperature_c, usage.sm_clock_mhz, usage.memory_clock_mhz) == (60, 900, None)
    assert usage.throttle_reasons == ("hw_slowdown",)
    # Of the second, four were in use before.
    assert usage.taken_bytes == 6 * GIB


def test_power_of_which_a_part_is_unknown_is_unknown() -> None:
    usage = GpuUsage(gpus=(view(0, power_w=300), view(1)))
    assert (usage.power_w, usage.memory_bytes, usage.taken_bytes, usage.utilization_percent) == (None, None, None, None)


def test_rounds_together() -> None:
    rounds = [
        GpuUsage(
            gpus=(
                view(power_w=300, energy_j=30, memory_bytes=5, run_memory_bytes=7, throttle_reasons=("sync_boost",)),
            ),
            energy_per_inference_j=0.2,
        ),
        None,
        GpuUsage(
            gpus=(
                view(power_w=200, energy_j=40, memory_bytes=6, run_memory_bytes=6, throttle_reasons=("hw_slowdown",)),
            ),
            energy_per_inference_j=0.4,
        ),
    ]
    together = usage_together(rounds)
    assert together is not None
    (one,) = together.gpus
    assert (one.power_w, one.energy_j, one.memory_bytes, one.run_memory_bytes) == (250, 70, 6, 7)
    assert one.throttle_reasons == ("hw_slowdown", "sync_boost")
    assert together.energy_per_inference_j is not None
    assert abs(together.energy_per_inference_j - 0.3) < 1e-9
    assert usage_together([None, None]) is None


def test_it_comes_back_from_disk_as_it_was() -> None:
    usage = GpuUsage(gpus=(view(throttle_reasons=("hw_slowdown",), power_w=3.5),), energy_per_inference_j=None)
    assert GpuUsage.model_validate_json(usage.model_dump_json()) == usage
