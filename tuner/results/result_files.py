"""The result files of a model, written from its stored study alone."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tuner.analysis.effects import FieldEffect, field_effects
from tuner.config.diff import patch_diff
from tuner.config.documents import SUFFIXES
from tuner.config.patch import ENV, OTHER_MODELS, SERVER_ARGS, Patch, patch_files, written_path
from tuner.config.repository import CONFIG
from tuner.core.atomic_file import write_atomically
from tuner.core.json_text import json_text
from tuner.core.loads import Concurrency, RequestRate
from tuner.core.objectives import THROUGHPUT, Objective
from tuner.core.record import Interval
from tuner.core.slo import PERCENTILES, SLO
from tuner.measure.points import OperatingPoint
from tuner.measure.trial import TrialResult
from tuner.recommend.certified import CertifiedRate
from tuner.recommend.front import TrialPoint, points_of
from tuner.recommend.not_chosen import NotChosen
from tuner.recommend.recommend import Recommendation, is_certain
from tuner.recommend.warm_up import WarmUp
from tuner.results.hosts import host_results, hosts_json
from tuner.results.picked import not_chosen_in_words
from tuner.results.points_csv import MACHINE_COLUMNS, machine_cells, warnings_cell
from tuner.results.points_json import interval_json, load_json, point_json
from tuner.results.why import effect_in_words, why_in_words
from tuner.results.words import certified_in_words, gain_in_words, point_in_words
from tuner.study.run_folder import RunFolder
from tuner.study.study import Identity, Study

BEST = "best"
"""Folder of the best config, in the folder of the model."""
FRONT = "front.json"
"""The result of a model for machines, in its folder."""
TRIALS = "trials.csv"
"""All operating points of a model, in its folder."""
_DIFF = "config.diff"
BEST_CONFIG, BEST_DIFF = f"{BEST}/{CONFIG}", f"{BEST}/{_DIFF}"
"""Paths in the folder of a model."""
_PROVENANCE = "# tritontune: "


def write_results(run: RunFolder, study: Study) -> Recommendation:
    """Write `front.json`, `trials.csv` and `best/` of a model, each atomically. Returns the written recommendation.

    `best/` is removed if there is no best config. Outdated files are removed before new ones are written, so that a
    killed run never leaves files that contradict each other.
    """
    folder = run.model(study.identity.model)
    recommendation = study.recommendation
    best = _best_files(study, recommendation)
    remove_outdated(folder / BEST, best)
    write_atomically(folder / FRONT, json_text(front_json(study, recommendation), indent=1) + "\n")
    write_atomically(folder / TRIALS, trials_csv(study))
    for name, text in best.items():
        write_atomically(folder / BEST / name, text)
    return recommendation


def _best_files(study: Study, recommendation: Recommendation) -> dict[str, str]:
    """The texts of the files in `best/` by name; empty if there is no best config."""
    best = recommendation.best
    if best is None:
        return {}
    text = config_with_provenance(study, best, recommendation.gain, recommendation.slo)
    files = patch_files(study.identity.model, changes_of(study, best).with_config(text))
    return {_DIFF: best_diff(study, best), **files}


def remove_outdated(folder: Path, now: Mapping[str, str]) -> None:
    """Remove the files of a written patch and its diff in a folder, unless all exist and are up to date.

    Args:
        folder: The folder; it is removed, too, if it contains nothing else.
        now: Their current texts by path; empty: there is no best config.
    """
    there = [path for path in sorted(folder.rglob("*"), reverse=True) if path.is_dir() or _is_ours(path, folder)]
    written = {str(path.relative_to(folder)) for path in there if not path.is_dir()}
    if now and written == now.keys() and all(_holds(folder / name, text) for name, text in now.items()):
        return
    for path in (*there, folder):
        with suppress(OSError):  # a folder does not exist, or contains other files
            path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)


def _is_ours(path: Path, folder: Path) -> bool:
    """Whether a file in the folder of a best config may be part of a written patch."""
    within = path.relative_to(folder)
    fixed = {CONFIG, _DIFF, SERVER_ARGS, ENV}
    return str(within) in fixed or within.parts[0] == OTHER_MODELS or path.name.endswith(SUFFIXES)


def _holds(file: Path, text: str) -> bool:
    try:
        return file.read_bytes() == text.encode(errors="backslashreplace")
    except OSError:
        return False


def front_json(study: Study, recommendation: Recommendation) -> dict[str, Any]:
    """The contents of `front.json`, schema 1."""
    best, gain, objective = recommendation.best, recommendation.gain, recommendation.objective
    of = recommendation.merits and [objective.value_of(merit) for merit in recommendation.merits]
    return {
        "schema": 1,
        "model": study.identity.model,
        "slo": {f"{limit.key}_ms": limit.limit_ms for limit in recommendation.slo.limits},
        "objective": {
            "metric": objective.name,
            "direction": objective.direction,
            "unit": objective.unit,
            "request_rate": objective.rate,
        },
        "baseline": [_trial_point(trial_point) for trial_point in points_of(study.trials[0], study.verified)],
        "front": [_front_point(trial_point, objective) for trial_point in recommendation.front],
        "best": best
        and {
            **_front_point(best, objective),
            "config": BEST_CONFIG,
            **_others_json(study, best),
            "gain": {
                "throughput": gain and interval_json(gain) if objective == THROUGHPUT else None,
                "ratio": gain and interval_json(gain),
                "pairs": recommendation.pairs,
                "of": of and dict(zip(("best", "baseline"), of, strict=True)),
            },
            "fields": [_effect_json(effect, study.identity) for effect in field_effects(study, best)],
            "slo_certain": None if not recommendation.slo.root else is_certain(best, recommendation.slo),
            **_certified_json(study.certified),
            "warm_up": _warm_up_json(study.warm_up),
        },
        "not_chosen": [_not_chosen_json(better, recommendation) for better in study.not_chosen],
        "budget": {
            "wall_s": round(study.took_s, 1),
            "launches": study.launches,
            "operating_points": sum(len(trial.curve) for trial in study.trials),
        },
        **({"hosts": hosts} if (hosts := hosts_json(host_results(study))) else {}),
    }


def _others_json(study: Study, best: TrialPoint) -> dict[str, Any]:
    """What to deploy beside the config: files by path in the repository, server arguments and variables."""
    changes, model = changes_of(study, best), study.identity.model
    return {
        "files": {path: f"{BEST}/{written_path(model, path)}" for path in changes.files},
        "server_args": dict(changes.server_args),
        "env": dict(changes.env),
    }


def trials_csv(study: Study) -> str:
    """The text of `trials.csv`: a row for each operating point, or the failure of a trial without points."""
    names = list(dict.fromkeys(name for trial in study.trials for name in trial.parameters))
    columns = ["trial", *names, "concurrency", "request_rate", "throughput", "throughput_low", "throughput_high"]
    columns += [f"{percentile}_ms" for percentile in PERCENTILES]
    columns += ["average_batch_size", "requests", "errors", "hypervolume", "launch_s", "failure", "message"]
    columns += [*MACHINE_COLUMNS, "gpu_memory_taken_bytes", "doubts", "host"]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for trial, hypervolume in zip(study.trials, study.hypervolumes, strict=True):
        shared = {
            "trial": trial.number,
            **{name: _cell(value) for name, value in trial.parameters.items()},
            "hypervolume": _number(hypervolume, ".6g"),
            "launch_s": _number(trial.launch_s, ".2f"),
            "failure": trial.failure and trial.failure.cause.value,
            "message": trial.failure and trial.failure.message,
            "gpu_memory_taken_bytes": trial.gpu_memory and trial.gpu_memory.peak_bytes,
            "host": trial.host,
        }
        writer.writerows({**shared, **_row(point)} for point in trial.curve)
        if not trial.curve:
            writer.writerow(shared)
    return text.getvalue()


def config_with_provenance(study: Study, best: TrialPoint, gain: Interval | None, slo: SLO) -> str:
    """The config to deploy, with a comment on top: the trial, its measurement, the SLO and the machine."""
    certified = study.certified if slo == study.identity.slo else None
    objective, percentile = study.identity.objective, study.identity.objective.percentile_for(slo)
    lines = [
        f"trial {best.trial.number} of {len(study.trials)} for model {study.identity.model}",
        f"{'verified' if best.verified else 'measured'} {point_in_words(best.point, percentile, objective)}; SLO: {slo}"
        + ("" if objective == THROUGHPUT else f"; objective: {objective}"),
        f"gain {gain_in_words(gain, objective)}" if gain and best.trial.number else "",
        certified_in_words(certified, slo, study.hosts) if certified and certified.point else "",
        f"on {study.identity.machine}, {study.identity.server}",
    ]
    comment = "".join(f"{_PROVENANCE}{line}\n" for line in lines if line)
    # An exported config already has such a comment, about an earlier measurement.
    return comment + without_provenance(best.trial.deployable_config)


def without_provenance(text: str) -> str:
    """A config without the comment of `config_with_provenance`."""
    # Not splitlines(): in the text format only \n ends a line.
    return "".join(line for line in re.split(r"(?<=\n)", text) if not line.startswith(_PROVENANCE))


def best_diff(study: Study, best: TrialPoint) -> str:
    """The unified diff from the user's files and settings to the best ones; empty when they are the same."""
    return trial_diff(study, best.trial)


def trial_diff(study: Study, trial: TrialResult) -> str:
    """The unified diff from the user's files and settings to those of a trial; empty when they are the same."""
    before = study.own_patch
    return patch_diff(before, trial.deployable, study.identity.model)


def changes_of(study: Study, best: TrialPoint) -> Patch:
    """The best config, and the other files and settings that differ from the user's."""
    return best.trial.deployable.changed_from(study.trials[0].others)


def _trial_point(trial_point: TrialPoint) -> dict[str, Any]:
    parameters = dict(trial_point.trial.parameters)
    return {
        "trial": trial_point.trial.number,
        "parameters": parameters,
        **({"host": trial_point.trial.host} if trial_point.trial.host else {}),
        **point_json(trial_point.point, verified=trial_point.verified),
    }


def _front_point(trial_point: TrialPoint, objective: Objective) -> dict[str, Any]:
    value = trial_point.point.value(objective)
    return {
        **_trial_point(trial_point),
        "objective_value": value and interval_json(value),
        "why": why_in_words(trial_point) or None,
    }


def _not_chosen_json(better: NotChosen, recommendation: Recommendation) -> dict[str, Any]:
    """A point that looked better than the best during the search, and why it was not chosen."""
    return {
        **_trial_point(better.searched),
        "reason": better.why.name.lower(),
        "why": not_chosen_in_words(better, recommendation.percentile, recommendation.objective),
    }


def _effect_json(effect: FieldEffect, identity: Identity) -> dict[str, Any]:
    """A changed field. `effect` is the ratio of merit with and without the change, null when unknown."""
    return {
        "name": effect.name,
        "value": effect.value,
        "was": effect.was,
        "together": list(effect.together),
        "effect": effect.gain and interval_json(effect.gain),
        "trial": effect.trial and effect.trial.number,
        "why": effect_in_words(effect, identity.slo, identity.objective),
    }


def _certified_json(certified: CertifiedRate | None) -> dict[str, Any]:
    """The certified rate, or why there is none; both are null without an attempt."""
    point = certified.point if certified else None
    host = {"host": certified.host, "host_class": certified.host_class} if certified and certified.host else {}
    rate = point and {**load_json(point.load), **point_json(point, verified=True), **host}
    return {"certified_rate": rate, "not_certified": certified and certified.reason}


def _warm_up_json(warm_up: WarmUp | None) -> dict[str, Any] | None:
    """The first answers without and with a warm-up; null if the first answer was not slow."""
    if warm_up is None:
        return None
    return {
        "without": warm_up.without and warm_up.without.model_dump(),
        "warmed": warm_up.warmed and warm_up.warmed.model_dump(),
        "reason": warm_up.reason or None,
    }


def _row(point: OperatingPoint) -> Mapping[str, Any]:
    return {
        "concurrency": point.load.requests if isinstance(point.load, Concurrency) else None,
        "request_rate": point.load.per_s if isinstance(point.load, RequestRate) else None,
        "throughput": _number(point.throughput.value, ".2f"),
        "throughput_low": _number(point.throughput.low, ".2f"),
        "throughput_high": _number(point.throughput.high, ".2f"),
        **{f"{percentile}_ms": _number(point.latency_ms[percentile].value, ".3f") for percentile in PERCENTILES},
        "average_batch_size": _number(point.average_batch_size, ".2f"),
        "requests": point.requests,
        "errors": point.errors,
        **machine_cells(point),
        "doubts": warnings_cell(point),
    }


def _number(value: float | None, form: str) -> str | None:
    """A number as a cell; None, an empty cell, if it is unknown or infinite (null in JSON)."""
    return None if value is None or not math.isfinite(value) else format(value, form)


def _cell(value: Any) -> Any:
    return " ".join(map(str, value)) if isinstance(value, Iterable) and not isinstance(value, str) else value
