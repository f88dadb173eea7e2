"""What carrying out a piece of work in a slot costs beside the work itself: the fake Triton in slots of this machine.

The overhead of a piece is the time from its submission until its outcome is there, without the time that the slot took
for the launch and its measurements. So it is the way of the work to the process of the slot, and that of the outcome
back. The first piece of each slot comes apart.

    python benchmarks/work_overhead.py [--pieces 20] [--slots 2]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from queue import SimpleQueue

from tuner.cluster.local import local_executor
from tuner.cluster.slot_context import SlotRecipe
from tuner.config.patch import Patch
from tuner.core.loads import Concurrency
from tuner.measure.rules import LevelRules
from tuner.measure.work import UNHEARD, Limits, Loads, Outcome, TrialTerms, Work
from tuner.options.groups import LoadOptions
from tuner.options.tune_job import TuneJob
from tuner.testing.installations import fake_installation
from tuner.testing.repositories import ModelRepositoryFactory, config_text

MODEL = "identity"


def main() -> None:
    """Print the overheads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pieces", type=int, default=20)
    parser.add_argument("--slots", type=int, default=2)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        repository = ModelRepositoryFactory(folder / "models")
        model = repository.add("identity", name=MODEL)
        fake = fake_installation(folder / "fake")
        options = {"repository": repository.path, "server": "process", "triton_path": fake.root}
        job = TuneJob.make({**options, "parallel": asked.slots})
        firsts, others, worked_s = _overheads(SlotRecipe(job, (model,), repository.path), asked.pieces, folder)
    print(f"work of {statistics.median(worked_s):.2f} s in the median, {asked.slots} slots")
    for what, overheads in (("first of a slot", firsts), ("others", others)):
        print(f"overhead, {what}: median {statistics.median(overheads):.3f} s, most {max(overheads):.3f} s")


def _put_time(ended: SimpleQueue[float], _future: Future[Outcome]) -> None:
    ended.put(time.monotonic())


def _overheads(recipe: SlotRecipe, pieces: int, folder: Path) -> tuple[list[float], list[float], list[float]]:
    rules = LevelRules(throughput_precision=1e-9, min_s=0.1, max_s=0.5, slow_max_s=0.5, min_requests=1)
    terms = TrialTerms(MODEL, LoadOptions(), rules, max_concurrency=2)
    limits = Limits(launch_s=60, first_answer_s=60, total_s=600)
    work = Work(terms, Patch(config=config_text()), Loads((Concurrency(1),)), limits)
    firsts, others, worked_s = list[float](), list[float](), list[float]()
    with local_executor(recipe, note=print) as executor:
        for turn in range(pieces):
            running = []
            for number, slot in enumerate(executor.slots):
                began, ended = time.monotonic(), SimpleQueue[float]()
                future = executor.submit(work, slot, folder / "trials" / f"{turn}-{number}", UNHEARD)
                future.add_done_callback(partial(_put_time, ended))
                running.append((began, ended, future))
            for began, ended, future in running:
                outcome = future.result()
                worked_s.append(outcome.wall_s)
                (others if turn else firsts).append(ended.get() - began - outcome.wall_s)
    return firsts, others, worked_s


if __name__ == "__main__":
    main()
