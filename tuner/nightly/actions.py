"""The actions on an improvement: propose it, deploy it, or run the user's command."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tuner.config.config import ModelConfig
from tuner.config.deploy import Replacement, replace_files
from tuner.config.diff import patch_diff
from tuner.config.patch import ENV, OTHER_MODELS, SERVER_ARGS, Patch, patch_files
from tuner.config.repository import CONFIG
from tuner.core.atomic_file import write_atomically
from tuner.core.errors import ConfigError
from tuner.core.record import Interval
from tuner.nightly.hook import run_hook
from tuner.nightly.measured import Measured, config_fingerprint
from tuner.nightly.tasks import Task
from tuner.results.result_files import remove_outdated

PROPOSED = "proposed"
"""Name of the folder of proposals in the work folder."""


@dataclass(frozen=True)
class Improvement:
    """A config that passed the gate.

    Attributes:
        before: The deployed patch.
        patch: The new config, and the other files and settings that differ from the deployed ones.
        diff: The unified diff between the two, for `patch`.
        gain: The gain by the objective, new over deployed.
        measured: The measurement of the new config.
    """

    before: Patch
    patch: Patch
    diff: str
    gain: Interval
    measured: Measured


def act(task: Task, improvement: Improvement, *, work: Path, night: Path) -> str:
    """Carry out the action of the job. The config and the diff are always kept in the night's folder.

    Args:
        task: The model and its job.
        improvement: The improvement.
        work: The folder of all nights, which holds the proposals.
        night: The folder of this model's night.

    Returns:
        A message about the result, for the report.

    Raises:
        ConfigError: the deployed config has changed since it was read, or cannot be written; nothing was changed.
        TuningError: the command failed.
    """
    kept, model = improved(night), task.model.name
    _write(kept, improvement, model)
    if task.job.action == "propose":
        folder = work / PROPOSED / task.folder
        _write(folder, improvement, model)
        return f"proposed in {folder}"
    if task.job.action == "apply":
        return "; ".join([*_applied(task, improvement), *improvement.patch.settings_in_words()])
    run_hook(
        task.job.command,
        stdin=improvement.diff,
        variables=_variables(task, improvement, kept),
        within_s=task.job.command_timeout,
        log=night / "command.log",
    )
    return f"ran {task.job.command[0]}"


def _applied(task: Task, improvement: Improvement) -> Iterator[str]:
    """Replace the deployed files, all or none. Returns a message about each."""
    before, model = improvement.before, task.model.name
    old = {f"{model}/{CONFIG}": before.config, **before.files}
    new = {f"{model}/{CONFIG}": improvement.patch.config, **improvement.patch.files}
    root = task.model.path.parent
    replacements = [
        Replacement(root / path, text, hashlib.sha256(old[path].encode()).hexdigest() if old[path] else None)
        for path, text in new.items()
    ]
    for replacement, backup in zip(replacements, replace_files(root, replacements), strict=True):
        how = f"replaced; backup: {backup.name}" if backup else "written; there was none before"
        yield f"{replacement.path} {how}"


def improved(night: Path) -> Path:
    """The folder in a model's night that keeps the improved config and its diff."""
    return night / "improved"


def withdraw(task: Task, *, work: Path) -> str:
    """Remove a proposal that no longer applies to the deployed config. Returns why; empty: it stays."""
    folder = work / PROPOSED / task.folder
    if not folder.exists():
        return ""
    if is_deployed(task, folder):
        why = "the proposed config is deployed now"
    elif not is_made_for(task.model.path.parent, task.model.name, folder):
        why = "withdrew the proposal: the deployed config has changed since"
    else:
        return ""
    shutil.rmtree(folder, ignore_errors=True)
    return why


def is_made_for(repository: Path, model: str, folder: Path) -> bool:
    """Whether a written patch with its diff is complete, and the diff applies to the deployed files of the model.

    Args:
        repository: The folder of the repository.
        model: The tuned model.
        folder: The folder of the patch.
    """
    config = repository / model / CONFIG
    try:
        proposed = ModelConfig.read(folder / CONFIG).text
        deployed = ModelConfig.read(config).text if config.exists() else ""
        files = written_files(folder, model)
        before = {path: (repository / path).read_text(encoding="utf-8") for path in files}
        diff = (folder / "config.diff").read_text(encoding="utf-8")
    except (ConfigError, OSError, UnicodeDecodeError):
        return False
    between = patch_diff(Patch(config=deployed, files=before), Patch(config=proposed, files=files), model)
    return between == "".join(line for line in diff.splitlines(keepends=True) if not line.startswith("#"))


def written_files(folder: Path, model: str) -> dict[str, str]:
    """The texts of a written patch's files beside the config, by path in the repository."""
    files = {}
    for path in sorted(folder.rglob("*")):
        within = path.relative_to(folder)
        if path.is_file() and len(within.parts) > 1:
            other = within.parts[0] == OTHER_MODELS
            place = "/".join(within.parts[1:]) if other else f"{model}/{within.as_posix()}"
            files[place] = path.read_text(encoding="utf-8")
    return files


def is_deployed(task: Task, folder: Path) -> bool:
    """Whether a written patch is deployed: its config apart from comments and white space, and its other files.

    Arguments and variables of the deployed server are unknown, so a patch with any is never deployed.
    """
    if any((folder / name).exists() for name in (SERVER_ARGS, ENV)):
        return False
    try:
        configs = (task.config_path, folder / CONFIG)
        deployed, other = (config_fingerprint(ModelConfig.read(path).text) for path in configs)
        files = written_files(folder, task.model.name)
        same = all((task.model.path.parent / path).read_text(encoding="utf-8") == text for path, text in files.items())
    except (ConfigError, OSError, UnicodeDecodeError):  # one of them does not exist
        return False
    return deployed == other and same


def _write(folder: Path, improvement: Improvement, model: str) -> None:
    # Outdated files are removed first, so that a kill never leaves an old diff beside a new config.
    files = {"config.diff": improvement.diff, **patch_files(model, improvement.patch)}
    remove_outdated(folder, files)
    for name, text in files.items():
        write_atomically(folder / name, text)


def _variables(task: Task, improvement: Improvement, kept: Path) -> dict[str, str]:
    gain, measured = improvement.gain, improvement.measured
    values = {
        "REPOSITORY": task.repository_key,
        "MODEL": task.model.name,
        "DEPLOYED": str(task.config_path.absolute()),
        "CONFIG": str((kept / "config.pbtxt").absolute()),
        "DIFF": str((kept / "config.diff").absolute()),
        "GAIN": f"{gain.value:.4f}",
        "GAIN_LOW": f"{gain.low:.4f}",
        "GAIN_HIGH": f"{gain.high:.4f}",
        "THROUGHPUT": f"{measured.throughput.value:.2f}",
        "P99_MS": f"{measured.p99_ms.value:.3f}",
        "PERCENTILE": measured.percentile,
        "LATENCY_MS": f"{measured.latency.value:.3f}",
        "CONCURRENCY": "" if measured.concurrency is None else str(measured.concurrency),
        "REQUEST_RATE": "" if measured.request_rate is None else f"{measured.request_rate:g}",
        "OBJECTIVE": task.job.objective.name,
        "SLO": str(task.job.slo),
    }
    return {f"TRITONTUNE_{name}": value for name, value in values.items()}
