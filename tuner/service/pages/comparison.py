"""Jobs side by side: which options differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuner.client.resources import FrontPoint, Job, ModelResult
from tuner.service.pages.front_plots import point_in_words
from tuner.service.store.pages import LARGEST_ID


@dataclass(frozen=True)
class DifferingOption:
    """An option that differs.

    Attributes:
        name: Its name, with dots between levels.
        values: Its value in each job; None: not given.
    """

    name: str
    values: tuple[str | None, ...]


def differing_options(jobs: Sequence[Job]) -> tuple[DifferingOption, ...]:
    """The options that are not equal in all jobs, by name."""
    options = [dict(_flat({"kind": job.kind, **job.job})) for job in jobs]
    names = sorted({name for each in options for name in each})
    rows = (DifferingOption(name, tuple(each.get(name) for each in options)) for name in names)
    return tuple(row for row in rows if len(set(row.values)) > 1)


def result_of(job: Job, model: str) -> ModelResult | None:
    """The result of a model in a job; None: there is none."""
    return next((result for result in job.results if result.model == model), None)


def best_in_words(front: Sequence[FrontPoint]) -> str:
    """The best point of a front; empty: there is none."""
    return next((point_in_words(p.model_copy(update={"best": False})) for p in front if p.best), "")


def common_models(jobs: Sequence[Job]) -> tuple[str, ...]:
    """Models with a result, those of most jobs first."""
    names = [result.model for job in jobs for result in job.results]
    return tuple(sorted(dict.fromkeys(names), key=lambda name: (-names.count(name), name)))


def job_ids(texts: Sequence[str], most: int) -> tuple[int, ...]:
    """The ids in `12,13`, each once.

    Raises:
        ValueError: one is not the id of a job, or there are more than `most`; the message says which.
    """
    parts = [part.strip() for text in texts for part in text.replace(" ", ",").split(",") if part.strip()]
    for part in parts:
        if not (part.isascii() and part.isdigit() and 0 < int(part[:12]) <= LARGEST_ID):
            raise ValueError(f"{part[:40]!r} is not the id of a job")
    ids = tuple(dict.fromkeys(int(part) for part in parts))
    if len(ids) > most:
        raise ValueError(f"at most {most} jobs at once, got {len(ids)}")
    return ids


def _flat(options: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for name, value in options.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{before}{name}.")
        else:
            # `model: mlp` and `model: [mlp]` are the same.
            alone = value[0] if isinstance(value, list | tuple) and len(value) == 1 else value
            yield f"{before}{name}", alone if isinstance(alone, str) else json.dumps(alone, ensure_ascii=False)
