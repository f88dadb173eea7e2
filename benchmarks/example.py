"""Tunes the example repository again and again: what is gained, and does the exported config measure as reported?

    python benchmarks/example.py [--runs 3] [--budget 90s]

Each run tunes `examples/model_repository` with p99 <= 100 ms, exports the best config, and measures it anew on a server
of its own at the load that was reported. The opponent is the example's own config.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

_REPOSITORY = Path(__file__).parent.parent / "examples/model_repository"
_TRITONTUNE = str(Path(sys.executable).with_name("tritontune"))


def main() -> None:
    """Print a line for each run, and the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--budget", default="90s")
    options = parser.parse_args()
    gains, ratios = [], []
    for number in range(options.runs):
        with tempfile.TemporaryDirectory() as folder:
            best, again = _run(Path(folder), number, options.budget)
        gain, ratio = best["gain"]["throughput"], again["throughput"]["value"] / best["throughput"]["value"]
        gains.append(gain["value"])
        ratios.append(ratio)
        print(f"run {number}: {_words(best)}, gain {gain['value']:.2f}; measured again {_words(again)}")
    spread = f"({min(ratios):.3f} to {max(ratios):.3f})"
    print(f"median gain over the baseline: {statistics.median(gains):.2f}")
    print(f"median of measured again / reported:  {statistics.median(ratios):.3f} {spread}")


def _words(point: dict[str, Any]) -> str:
    return f"{point['throughput']['value']:.0f} inferences/s at p99 {point['latency_ms']['p99']['value']:.1f} ms"


def _run(folder: Path, seed: int, budget: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The best point as it was reported, and as the exported config measures."""
    out = folder / "run"
    limits = ["--slo", "p99=100ms", "--budget", budget]
    _tritontune("run", str(_REPOSITORY), *limits, "--seed", str(seed), "--out", str(out))
    _tritontune("export", str(out), "--to", str(folder / "deploy"))
    best = json.loads((out / "mlp/front.json").read_text())["best"]
    concurrency = str(best["load"]["concurrency"])
    measured = _tritontune("measure", str(folder / "deploy"), "--concurrency", concurrency, "--json")
    return best, json.loads(measured)["points"][0]


def _tritontune(*arguments: str) -> str:
    return subprocess.run([_TRITONTUNE, *arguments], check=True, text=True, stdout=subprocess.PIPE).stdout


if __name__ == "__main__":
    main()
