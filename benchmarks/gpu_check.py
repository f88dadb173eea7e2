"""Checks tritontune on a machine with an NVIDIA GPU: no network, Python 3.12, PyTorch, and one archive of 64 MiB.

Make the archive where there is a network, carry it over, and run it there; it takes less than ten minutes:

    python benchmarks/gpu_check.py --pack gpu_check.tar
    python3.12 -m tarfile -e gpu_check.tar check && python3.12 check/benchmarks/gpu_check.py

`--dry-run` runs everything without a GPU, on the CPU, where each check that needs a GPU is `not run: no GPU`. Prints
one table, also after a failed check, and exits with 1 if a check failed.

The archive has tritontune, the Triton of the wheel nvidia-pytriton, and the packages that tritontune imports. It has no
numba, which the simulator needs, so the search uses TPE. The machine's own NumPy is used where it has one, as PyTorch
needs it.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import io
import json
import lzma
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import textwrap
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]
_ALL_S = 580.0
_MOST_BYTES = 64 << 20
# Of an archive: packages of the folder `numpy` are used only on a machine without NumPy.
_VENDOR, _NUMPY = "vendor", "vendor-numpy"
_PYTHON = "3.12"
_PLATFORMS = ("manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux_2_27_x86_64", "manylinux_2_28_x86_64")
_TRITON = "nvidia-pytriton"
_LEFT_OUT = frozenset({"numba"})
_UNUSED = (
    "*/tests/*",
    "*.pyi",
    "*.a",
    "*.h",
    "*.pxd",
    "*.whl",
    "pytriton/tritonserver/python_backend_stubs/*",
    "nvidia_pytriton.libs/libpython*",
    "plotly/package_data/*",
    "plotly/labextension/*",
    "*.data/data/share/jupyter/*",
    *(
        f"scipy/{part}/*"
        for part in ("cluster", "datasets", "differentiate", "fftpack", "io", "misc", "ndimage", "odr")
    ),
    "scipy/signal/*",
    *(f"numpy/{part}/*" for part in ("distutils", "f2py")),
)
_USED = (f"pytriton/tritonserver/python_backend_stubs/{_PYTHON}/*", "plotly/package_data/plotly.min.js")
# Figures of tritontune and of nvidia-smi may differ by so much.
_TOLERANCE = 0.05
_SMI_MS = 100
# The most characters of a message in the table.
_WIDEST = 120
_MODEL = "net"
_WIDTH, _OUT, _MOST_BATCH = 1024, 16, 64
_CONFIG = """\
backend: "python"
max_batch_size: {most}
input [ {{ name: "IN" data_type: TYPE_FP32 dims: [ {width} ] }} ]
output [ {{ name: "OUT" data_type: TYPE_FP32 dims: [ {out} ] }} ]
instance_group [ {{ kind: {kind} count: {instances} }} ]
{batching}
"""
_CODE = '''\
"""A network of {layers} layers, on the GPU where there is one."""

import sys

sys.path += {packages}  # the Python of the wheel's stub does not read PYTHONPATH

import numpy as np
import triton_python_backend_utils as pb_utils

try:
    import torch
except ImportError:
    torch = None


class TritonPythonModel:
    def initialize(self, args):
        kind, number = args["model_instance_kind"], args["model_instance_device_id"]
        rng = np.random.default_rng(0)
        sizes = [{width}] + [{hidden}] * {layers} + [{out}]
        weights = [rng.standard_normal(pair, np.float32) / np.sqrt(pair[0]) for pair in zip(sizes, sizes[1:])]
        if torch is None:
            self.weights, self.device = weights, None
            return
        use = torch.cuda.is_available() and kind != "CPU"
        self.device = torch.device(f"cuda:{{number if kind == 'GPU' else 0}}" if use else "cpu")
        self.weights = [torch.from_numpy(each).to(self.device) for each in weights]

    def execute(self, requests):
        inputs = [pb_utils.get_input_tensor_by_name(request, "IN") for request in requests]
        values = self._answers([each.as_numpy() for each in inputs])
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", each)]) for each in values]

    def _answers(self, inputs):
        ends = np.cumsum([len(each) for each in inputs])[:-1]
        values = np.concatenate(inputs)
        if self.device is None:
            for weights in self.weights:
                values = np.maximum(values @ weights, 0)
        else:
            with torch.inference_mode():
                values = torch.from_numpy(values).to(self.device)
                for weights in self.weights:
                    values = torch.relu(values @ weights)
                values = values.cpu().numpy()
        return np.split(values, ends)
'''
_SPACE = """\
schema: 1
parameters:
  dynamic_batching: {ladder: [off, on]}
  max_batch_size: {ladder: [16, 64]}
  instance_group.count: {field: "instance_group[*].count", ladder: [1, 2, 4]}
"""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        check: What is checked.
        measured: What was measured, with its unit.
        reference: What it is compared with; empty: nothing.
        verdict: `ok`, `FAILED: why`, `not run: why`, or a remark.
    """

    check: str
    measured: str
    reference: str
    verdict: str

    @property
    def failed(self) -> bool:
        """Whether the check failed."""
        return self.verdict.startswith("FAILED")


def compared(check: str, measured: float | None, reference: float | None, unit: str, tolerance: float) -> Row:
    """Compare a figure with its reference; within a share `tolerance` of the reference it is ok."""
    shown = "unknown" if measured is None else f"{measured:.4g} {unit}"
    beside = "unknown" if reference is None else f"{reference:.4g} {unit}"
    if measured is None or reference is None:
        return Row(check, shown, beside, "FAILED: unknown")
    off = abs(measured - reference)
    within = off <= tolerance * abs(reference)
    share = off / abs(reference) if reference else float("inf")
    words = f"{share:.1%} apart" if off else "equal"
    return Row(check, shown, beside, f"ok: {words}" if within else f"FAILED: {words}, more than {tolerance:.0%}")


def not_run(check: str, why: str) -> Row:
    """A check that needs what is not there."""
    return Row(check, "", "", f"not run: {why}")


def table(rows: Sequence[Row]) -> str:
    """A Markdown table, which is readable as text: columns are padded."""
    cells = [
        ("check", "measured", "reference", "verdict"),
        *((r.check, r.measured, r.reference, r.verdict) for r in rows),
    ]
    widths = [max(len(row[column]) for row in cells) for column in range(4)]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "".join(f"{line}\n" for line in lines)


def busy_part(samples: Sequence[float]) -> slice:
    """The longest run of samples that are at least half of the largest one: what lies between start and stop."""
    level = max(samples, default=0.0) / 2
    best, start = slice(0, 0), 0
    for place in range(len(samples) + 1):
        if place == len(samples) or samples[place] < level:
            if place - start > best.stop - best.start:
                best = slice(start, place)
            start = place + 1
    return best


def packed(name: str) -> bool:
    """Whether a file of a wheel belongs into the archive."""
    return any(fnmatch(name, used) for used in _USED) or not any(fnmatch(name, unused) for unused in _UNUSED)


def requirements(declared: Iterable[str], installed: Callable[[str], str]) -> list[str]:
    """The distributions to pack, in the versions of this environment.

    Args:
        declared: Requirements of tritontune, such as `tritonclient[grpc]>=2.60`; those of extras are left out.
        installed: Gives the installed version of a distribution.
    """
    pinned = []
    for text in declared:
        if "extra ==" in text:
            continue
        wanted = text.partition(";")[0].strip()
        full = wanted[: next((at for at, letter in enumerate(wanted) if letter in "<>=!~ "), len(wanted))]
        name = full.partition("[")[0]
        if name.lower() not in _LEFT_OUT:
            pinned.append(f"{full}=={installed(name)}")
    return pinned


def pack(to: Path) -> int:
    """Write the archive. Returns its size in bytes.

    Raises:
        SystemExit: it is larger than may be carried, or pip failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        wheels, tree = Path(folder) / "wheels", Path(folder) / "tree"
        _download(requirements(metadata.requires("tritontune") or [], metadata.version), wheels)
        _download(
            [f"{_TRITON}=={metadata.version(_TRITON)}"], wheels, "--no-deps", "--platform", "manylinux_2_35_x86_64"
        )
        for wheel in sorted(wheels.iterdir()):
            name = wheel.name.partition("-")[0].lower()
            _unpack(wheel, tree / (_NUMPY if name == "numpy" else _VENDOR) / "site-packages")
        for part in ("tuner", "search_spaces"):
            shutil.copytree(_ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
        _record(tree / _VENDOR / "site-packages")
        (tree / "benchmarks").mkdir()
        shutil.copy2(__file__, tree / "benchmarks")
        _strip(tree)
        # Machine code is a third smaller with its filter.
        filters: list[dict[str, int]] = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 6}]
        with lzma.open(to, "wb", filters=filters) as file, tarfile.open(fileobj=file, mode="w|") as archive:
            archive.add(tree, arcname="")
    size = to.stat().st_size
    if size > _MOST_BYTES:
        raise SystemExit(f"{to}: {size / 2**20:.1f} MiB, more than {_MOST_BYTES >> 20} MiB")
    return size


def _download(wanted: Sequence[str], to: Path, *options: str) -> None:
    platforms = [part for platform in _PLATFORMS for part in ("--platform", platform)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(to), "--only-binary=:all:"]
    command += ["--python-version", _PYTHON, "--implementation", "cp", *platforms, *options, *wanted]
    if subprocess.run(command, check=False).returncode:
        raise SystemExit(f"pip download failed: {' '.join(wanted)}")


def _unpack(wheel: Path, to: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            if not member.is_dir() and packed(member.filename):
                path = Path(archive.extract(member, to))
                # The mode that the wheel gives, as pip sets it: programs stay programs.
                path.chmod(0o644 | (member.external_attr >> 16) & 0o111)


def _strip(tree: Path) -> None:
    """Remove debug symbols from extension modules; those of the folders `*.libs` have none."""
    modules = [str(path) for path in tree.rglob("*.cpython-*.so")]
    if modules and (strip := shutil.which("strip")):
        subprocess.run([strip, "--strip-debug", *modules], check=True)


def _record(site: Path) -> None:
    """Metadata of tritontune, which asks for its own version."""
    folder = site / f"tritontune-{metadata.version('tritontune')}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: tritontune\nVersion: {metadata.version('tritontune')}\n"
    )


class Check:
    """Runs tritontune, and collects the rows.

    Args:
        folder: A folder for repositories and runs.
        gpu: Whether the GPU is used.
        seconds: Seconds of each measurement.
        budget_s: Budget of the search.
    """

    def __init__(self, folder: Path, *, gpu: bool, seconds: float, budget_s: float) -> None:
        self.rows: list[Row] = []
        self._folder = folder
        self._gpu = gpu
        self._seconds = seconds
        self._budget_s = budget_s
        self._until = time.monotonic() + _ALL_S
        self._kind = "KIND_GPU" if gpu else "KIND_CPU"
        self._has_torch = importlib.util.find_spec("torch") is not None
        self._load = 32 if gpu else 4
        self._taken: int | None = None

    def run(self) -> None:
        """All checks, one after the other; a failed one does not keep the next from running."""
        steps: Sequence[tuple[str, Callable[[], None]]] = (
            ("launch on the GPU", self._launch),
            ("tuned by process", self._tune),
            ("figures beside nvidia-smi", self._figures),
            ("two instances against one", self._instances),
            ("CUDA shared memory", self._shared_memory),
            ("--max-gpu-memory", self._memory_limit),
        )
        for name, step in steps:
            print(f"{name} ...", file=sys.stderr, flush=True)
            try:
                step()
            except Exception as error:  # noqa: BLE001 (the table shows it, and the other checks go on)
                reason = str(error) if isinstance(error, _Failed) else f"{type(error).__name__}: {error}"
                self.rows.append(Row(name, "", "", f"FAILED: {textwrap.shorten(reason, _WIDEST)}"))

    def _launch(self) -> None:
        """Whether the server takes KIND_GPU; else the model chooses the device itself (KIND_MODEL)."""
        if not self._gpu:
            self.rows.append(not_run("KIND_GPU", "no GPU"))
            return
        try:
            self._measure("launch", seconds=2.0)
        except _Failed as failed:
            self._kind = "KIND_MODEL"
            self.rows.append(
                Row("KIND_GPU", "", "", f"refused, KIND_MODEL is used: {textwrap.shorten(str(failed), _WIDEST)}")
            )
        else:
            self.rows.append(Row("KIND_GPU", "served", "", "ok"))

    def _tune(self) -> None:
        repository, out = self._repository("tune"), self._folder / "run"
        space = self._folder / "space.yaml"
        space.write_text(_SPACE)
        began = time.monotonic()
        options = ("--slo", "p99=100ms", "--budget", f"{self._budget_s:g}s", "--sampler", "tpe", "--space", space)
        self._tritontune("run", repository, *options, "--max-concurrency", 8 * self._load, "--out", out)
        took_s = time.monotonic() - began
        front = json.loads((out / _MODEL / "front.json").read_text())
        best = front["best"]
        if best is None:
            raise _Failed("no config holds p99 <= 100 ms")
        ratio = (best["gain"] or {}).get("throughput") or {"value": 1.0}
        self.rows += [
            Row("tuned by process", f"{best['throughput']['value']:.4g}/s, {ratio['value']:.2f} x", "", "ok"),
            Row("  launches", str(front["budget"]["launches"]), "", f"in {took_s:.0f} s"),
        ]
        with (out / _MODEL / "trials.csv").open() as file:
            taken = [
                int(row["gpu_memory_taken_bytes"]) for row in csv.DictReader(file) if row["gpu_memory_taken_bytes"]
            ]
        self._taken = taken[0] if taken else None

    def _figures(self) -> None:
        names = ("GPU utilisation", "GPU memory", "board power", "energy per inference")
        if not self._gpu:
            self.rows += [not_run(name, "no GPU") for name in names]
            return
        with _smi() as samples:
            # With a fixed number of processes, the load does not begin anew while it is sampled.
            point = self._measure("figures", "--processes", "4", seconds=self._seconds)
        part = busy_part([utilization for utilization, _, _ in samples])
        seen = samples[part]
        if not seen:
            raise _Failed("nvidia-smi saw no load")
        utilization, power = (statistics.fmean(sample[column] for sample in seen) for column in (0, 2))
        memory = max(sample[1] for sample in seen) * 2**20
        view = point["gpu"]["gpus"][0]
        # In the busy part, the ends are those of the load, and the mean is of the window.
        self.rows += [
            compared(names[0], view["utilization_percent"], utilization, "%", _TOLERANCE),
            compared(names[1], _scaled(view["memory_bytes"], 2**-20), memory / 2**20, "MiB", _TOLERANCE),
            compared(names[2], view["power_w"], power, "W", _TOLERANCE),
            compared(
                names[3],
                _scaled(point["gpu"]["energy_per_inference_j"], 1e3),
                power / point["throughput"]["value"] * 1e3,
                "mJ",
                _TOLERANCE,
            ),
        ]

    def _instances(self) -> None:
        one, two = (self._measure(f"instances-{n}", instances=n, seconds=self._seconds / 2) for n in (1, 2))
        per_s = [point["throughput"]["value"] for point in (one, two)]
        remark = "on the GPU" if self._gpu else "on the CPU"
        self.rows.append(
            Row(
                "two instances against one",
                f"{per_s[1]:.4g}/s",
                f"{per_s[0]:.4g}/s",
                f"{per_s[1] / per_s[0]:.2f} x {remark}",
            )
        )

    def _shared_memory(self) -> None:
        names = {"system": "system shared memory", "cuda": "CUDA shared memory"}
        plain = self._measure("plain", seconds=self._seconds / 2)["throughput"]["value"]
        for kind, name in names.items():
            if kind == "cuda" and not self._gpu:
                self.rows.append(not_run(name, "no GPU"))
                continue
            try:
                point = self._measure(f"shared-{kind}", "--shared-memory", kind, seconds=self._seconds / 2)
            except _Failed as failed:
                self.rows.append(Row(name, "", f"{plain:.4g}/s", f"FAILED: {textwrap.shorten(str(failed), _WIDEST)}"))
                continue
            per_s, bad = point["throughput"]["value"], point["errors"]
            verdict = f"FAILED: {bad} errors" if bad else f"ok: {per_s / plain:.2f} x"
            self.rows.append(Row(name, f"{per_s:.4g}/s", f"{plain:.4g}/s", verdict))

    def _memory_limit(self) -> None:
        name = "--max-gpu-memory"
        if not self._gpu or self._taken is None:
            self.rows.append(not_run(name, "GPU memory is unknown" if self._gpu else "no GPU"))
            return
        # Room for one instance and a half: configs with two or more are not recommended.
        limit, out = int(1.5 * self._taken), self._folder / "limited"
        space = self._folder / "instances.yaml"
        space.write_text('schema: 1\nparameters: {n: {field: "instance_group[*].count", ladder: [1, 2]}}\n')
        options = ("--max-gpu-memory", limit, "--budget", "40s", "--sampler", "grid", "--space", space, "--no-verify")
        self._tritontune("run", self._repository("limited"), *options, "--max-concurrency", self._load, "--out", out)
        best = json.loads((out / _MODEL / "front.json").read_text())["best"]
        taken = best and max(gpu["run_memory_bytes"] - gpu["idle_memory_bytes"] for gpu in best["gpu"]["gpus"])
        if taken is None:
            raise _Failed("no config is within the limit")
        verdict = "ok" if taken <= limit else "FAILED: the best config takes more"
        self.rows.append(Row(name, f"{taken / 2**20:.0f} MiB", f"at most {limit / 2**20:.0f} MiB", verdict))

    def _measure(self, name: str, *options: str, instances: int = 1, seconds: float) -> dict[str, Any]:
        repository = self._repository(name, instances=instances, batching="dynamic_batching { }")
        more = ("--concurrency", self._load, "--time", f"{seconds:g}s", "--json")
        point: dict[str, Any] = json.loads(self._tritontune("measure", repository, *more, *options))["points"][0]
        return point

    def _repository(self, name: str, *, instances: int = 1, batching: str = "") -> Path:
        folder = self._folder / name / "repository"
        version = folder / _MODEL / "1"
        version.mkdir(parents=True)
        config = _CONFIG.format(
            most=_MOST_BATCH, width=_WIDTH, out=_OUT, kind=self._kind, instances=instances, batching=batching
        )
        (folder / _MODEL / "config.pbtxt").write_text(config)
        layers, hidden = (12, 2048) if self._gpu else (2, 128)
        code = _CODE.format(width=_WIDTH, out=_OUT, layers=layers, hidden=hidden, packages=_numpy())
        (version / "model.py").write_text(code)
        return folder

    def _tritontune(self, *words: object) -> str:
        """Run a command. Returns its output.

        Raises:
            _Failed: it failed, or took too long.
        """
        command = [sys.executable, "-c", "from tuner.cli.main import main; main()", *map(str, words)]
        left_s = self._until - time.monotonic()
        if left_s <= 0:
            raise _Failed("no time left")
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=left_s, env=environment(), check=False
            )
        except subprocess.TimeoutExpired:
            raise _Failed(f"no time left: tritontune {words[0]} did not end") from None
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise _Failed(f"tritontune {words[0]}: exit {done.returncode}: {last}")
        return done.stdout


class _Failed(Exception):  # noqa: N818 (a check that failed is no error of the script)
    """A check failed."""


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


@contextmanager
def _smi() -> Iterator[list[tuple[float, float, float]]]:
    """Sample nvidia-smi meanwhile: utilisation in percent, memory in MiB, and power in W; filled at the end."""
    query = "--query-gpu=utilization.gpu,memory.used,power.draw"
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits", "--id=0", f"--loop-ms={_SMI_MS}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        samples: list[tuple[float, float, float]] = []
        try:
            yield samples
        finally:
            process.terminate()
            text, _ = process.communicate()
            samples += smi_samples(text)


def smi_samples(text: str) -> list[tuple[float, float, float]]:
    """The rows of nvidia-smi that have three numbers; the last one may be cut off."""
    samples = []
    for row in csv.reader(io.StringIO(text)):
        try:
            utilization, memory, power = map(float, row)
        except ValueError:
            continue
        samples.append((utilization, memory, power))
    return samples


def environment() -> dict[str, str]:
    """The environment of tritontune: with the archive's packages first, if this is one."""
    folders = [str(_ROOT)]
    if (_ROOT / _VENDOR).is_dir():
        folders.insert(0, str(_ROOT / _VENDOR / "site-packages"))
        folders += _numpy()
    present = [path for path in [os.environ.get("PYTHONPATH")] if path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*folders, *present])}


def _numpy() -> list[str]:
    """The folder of the archive's NumPy, if this is an archive, and the machine has no NumPy of its own."""
    folder = _ROOT / _NUMPY / "site-packages"
    return [str(folder)] if folder.is_dir() and importlib.util.find_spec("numpy") is None else []


def _has_gpu() -> bool:
    program = shutil.which("nvidia-smi")
    listed = program and subprocess.run([program, "-L"], capture_output=True, check=False)
    return bool(listed and not listed.returncode and listed.stdout.strip())


def _machine(*, gpu: bool) -> Row:
    code = "import torch; print('PyTorch', torch.__version__, 'CUDA', torch.version.cuda)"
    torch = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    name = "no GPU"
    if gpu:
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader", "--id=0"]
        name = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    what = torch.stdout.strip() if not torch.returncode else "no PyTorch: the model uses NumPy"
    return Row("machine", f"{name}; Python {sys.version.partition(' ')[0]}", what, "")


def main() -> None:
    """Run the checks, or write the archive."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", metavar="FILE.tar", type=Path, help="write the archive instead")
    parser.add_argument("--dry-run", action="store_true", help="run without a GPU, on the CPU")
    parser.add_argument("--budget", metavar="S", type=float, default=240.0, help="seconds of the search (default 240)")
    parser.add_argument("--seconds", metavar="S", type=float, default=16.0, help="of each measurement (default 16)")
    options = parser.parse_args()
    if options.pack:
        size = pack(options.pack)
        print(f"{options.pack}: {size / 2**20:.1f} MiB of {_MOST_BYTES >> 20} MiB")
        return
    gpu = not options.dry_run
    if gpu and not _has_gpu():
        raise SystemExit("nvidia-smi lists no GPU here; --dry-run runs the checks without one")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        check = Check(Path(folder), gpu=gpu, seconds=options.seconds, budget_s=options.budget)
        check.rows.append(_machine(gpu=gpu))
        check.run()
    check.rows.append(Row("all checks", f"{time.monotonic() - began:.0f} s", "600 s", ""))
    print(table(check.rows), end="")
    sys.exit(any(row.failed for row in check.rows))


if __name__ == "__main__":
    main()
