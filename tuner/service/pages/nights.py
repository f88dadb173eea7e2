"""The nights of models, with their plots."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tuner.client.resources import NightEntry
from tuner.service.pages.drawing import Drawing
from tuner.service.pages.history_plots import history_drawings

MOST_MODELS = 12
"""Models whose plots are on one page."""


@dataclass(frozen=True)
class ModelNights:
    """The plots of one model: throughput and latency."""

    model: str
    drawings: tuple[Drawing, ...]


def nights_by_model(nights: Iterable[NightEntry], slo: str) -> tuple[ModelNights, ...]:
    """The plots of each model, by name, of at most `MOST_MODELS` models."""
    by_model: dict[str, list[NightEntry]] = {}
    for night in nights:
        by_model.setdefault(night.model, []).append(night)
    return tuple(ModelNights(model, history_drawings(by_model[model], slo)) for model in sorted(by_model)[:MOST_MODELS])
