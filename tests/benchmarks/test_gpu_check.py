"""The parts of `benchmarks/gpu_check.py` that need no GPU."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from gpu_check import Check, Row, busy_part, compared, not_run, packed, requirements, smi_samples, table


@pytest.mark.parametrize(
    ("measured", "reference", "verdict"),
    [
        (100.0, 100.0, "ok: equal"),
        (95.0, 100.0, "ok: 5.0% apart"),
        (94.9, 100.0, "FAILED: 5.1% apart, more than 5%"),
        (105.1, 100.0, "FAILED: 5.1% apart, more than 5%"),
        (0.0, 0.0, "ok: equal"),
        (1.0, 0.0, "FAILED: inf% apart, more than 5%"),
        (None, 100.0, "FAILED: unknown"),
        (100.0, None, "FAILED: unknown"),
    ],
)
def test_within_the_tolerance(measured: float | None, reference: float | None, verdict: str) -> None:
    row = compared("power", measured, reference, "W", 0.05)
    assert row.verdict == verdict
    assert row.failed == verdict.startswith("FAILED")


def test_the_table_is_markdown_with_columns_below_each_other() -> None:
    rows = [Row("power", "412 W", "410 W", "ok: 0.5% apart"), not_run("energy per inference", "no GPU")]
    assert table(rows) == (
        "| check                | measured | reference | verdict         |\n"
        "| -------------------- | -------- | --------- | --------------- |\n"
        "| power                | 412 W    | 410 W     | ok: 0.5% apart  |\n"
        "| energy per inference |          |           | not run: no GPU |\n"
    )
    assert not rows[1].failed


@pytest.mark.parametrize(
    ("samples", "busy"),
    [
        ([], []),
        ([0, 0, 90, 95, 91, 0], [90, 95, 91]),
        # A short peak while the server starts.
        ([0, 99, 0, 0, 60, 62, 61, 2], [60, 62, 61]),
        ([80, 81], [80, 81]),
    ],
)
def test_the_busy_part_lies_between_start_and_stop(samples: list[float], busy: list[float]) -> None:
    assert samples[busy_part(samples)] == busy


def test_what_nvidia_smi_cannot_say_or_was_cut_off_in_is_no_sample() -> None:
    text = "0, 512, 71.20\n97, 2048, 412.5\n98, 2048, [N/A]\n97, 2048\n96, 20"
    assert smi_samples(text) == [(0, 512, 71.2), (97, 2048, 412.5)]


@pytest.mark.parametrize(
    ("name", "goes"),
    [
        ("pytriton/tritonserver/bin/tritonserver", True),
        ("pytriton/tritonserver/python_backend_stubs/3.12/triton_python_backend_stub", True),
        ("pytriton/tritonserver/python_backend_stubs/3.11/triton_python_backend_stub", False),
        ("nvidia_pytriton.libs/libtritonserver-1.so", True),
        ("nvidia_pytriton.libs/libpython3-1.13.so.1.0", False),
        ("plotly/package_data/plotly.min.js", True),
        ("plotly/package_data/datasets/iris.csv.gz", False),
        ("scipy/special/_ufuncs.so", True),
        ("scipy/special/tests/test_basic.py", False),
        ("scipy/io/_fast_matrix_market/_fmm_core.so", False),
        ("numpy/core/_multiarray_umath.so", True),
        ("numpy/core/__init__.pyi", False),
        ("nvidia_pytriton-0.7.0.dist-info/METADATA", True),
    ],
)
def test_what_goes_into_the_archive(name: str, *, goes: bool) -> None:
    assert packed(name) == goes


def test_packages_have_the_versions_of_this_environment_and_the_simulators_stay() -> None:
    declared = [
        "numpy>=1.26",
        "numba>=0.61",
        "tritonclient[grpc]>=2.60",
        "PyYAML",
        'torch>=2.2; extra == "gp"',
        'tomli>=2; python_version < "3.11"',
    ]
    assert requirements(declared, lambda name: f"1.{len(name)}") == [
        "numpy==1.5",
        "tritonclient[grpc]==1.12",
        "PyYAML==1.6",
        "tomli==1.5",
    ]


POINT: dict[str, Any] = {
    "throughput": {"value": 1_000.0},
    "errors": 0,
    "gpu": {
        "energy_per_inference_j": 0.4,
        "gpus": [{"utilization_percent": 97.0, "memory_bytes": 2048 << 20, "power_w": 400.0}],
    },
}


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An nvidia-smi that prints the samples of a load, and waits to be ended; returns the file that it then writes."""
    done = tmp_path / "written"
    program = tmp_path / "bin/nvidia-smi"
    program.parent.mkdir()
    rows = "".join(f"echo {row!r}\n" for row in ["0, 512, 71.0", "96, 2048, 402.0", "98, 2048, 410.0", "0, 512, 90"])
    program.write_text(f"#!/bin/sh\n{rows}touch {done}\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return done


def test_figures_are_compared_with_those_of_nvidia_smi(
    tmp_path: Path, written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(*_: object, **__: object) -> dict[str, Any]:
        while not written.exists():
            time.sleep(0.01)
        return POINT

    monkeypatch.setattr(Check, "_measure", measured)
    check = Check(tmp_path, gpu=True, seconds=1.0, budget_s=1.0)
    check._figures()
    assert [(row.measured, row.reference) for row in check.rows] == [
        ("97 %", "97 %"),
        ("2048 MiB", "2048 MiB"),
        ("400 W", "406 W"),
        ("400 mJ", "406 mJ"),
    ]
    assert not any(row.failed for row in check.rows)


def test_a_failed_check_leaves_the_others_their_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> str:
        raise KeyError("gpus")

    monkeypatch.setattr(Check, "_tritontune", refused)
    check = Check(tmp_path, gpu=False, seconds=1.0, budget_s=1.0)
    check.run()
    verdicts = {row.check: row.verdict for row in check.rows}
    assert verdicts["tuned by process"] == "FAILED: KeyError: 'gpus'"
    assert verdicts["two instances against one"].startswith("FAILED")
    without_gpu = {
        "KIND_GPU",
        "GPU utilisation",
        "GPU memory",
        "board power",
        "energy per inference",
        "--max-gpu-memory",
    }
    assert {name for name, verdict in verdicts.items() if verdict == "not run: no GPU"} == without_gpu
