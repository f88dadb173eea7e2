"""What is done with an improvement: it is proposed, put in place, or handed to a command."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from tuner.config.config import ModelConfig
from tuner.config.deploy import replace_config
from tuner.config.diff import unified_diff
from tuner.core.atomic_file import write_atomically
from tuner.core.errors import ConfigError
from tuner.core.record import Interval
from tuner.nightly.hook import run_hook
from tuner.nightly.measured import Measured, config_fingerprint
from tuner.nightly.tasks import Task
from tuner.results.files import remove_outdated

PROPOSED = "proposed"
"""The folder of proposals, in the work folder."""


@dataclass(frozen=True)
class Improvement:
    """A config that the gate has let through.

    Attributes:
        before: The text of the deployed config; empty where there is none.
        text: That of the new one.
        diff: Between the two, for `patch`.
        gain: In throughput.
        measured: What the new one does.
    """

    before: str
    text: str
    diff: str
    gain: Interval
    measured: Measured


def act(task: Task, found: Improvement, *, work: Path, night: Path) -> str:
    """Do what the job says.

    Args:
        task: For which model.
        found: What to do it with.
        work: The folder of all nights, where proposals go.
        night: That of this model's night, where config and diff are kept in any case.

    Returns:
        What was done, in words.

    Raises:
        ConfigError: the deployed config has changed since it was read, or cannot be written; nothing was changed.
        TuningError: the command failed.
    """
    kept = improved(night)
    _write(kept, found)
    if task.job.action == "propose":
        folder = work / PROPOSED / task.folder
        _write(folder, found)
        return f"proposed in {folder}"
    if task.job.action == "apply":
        expected = hashlib.sha256(found.before.encode()).hexdigest() if found.before else None
        backup = replace_config(task.config_path, found.text, expected_sha256=expected)
        before = f"replaced; backup: {backup.name}" if backup else "written; there was none before"
        return f"{task.config_path} {before}"
    run_hook(
        task.job.command,
        stdin=found.diff,
        variables=_variables(task, found, kept),
        within_s=task.job.command_timeout,
        log=night / "command.log",
    )
    return f"ran {task.job.command[0]}"


def improved(night: Path) -> Path:
    """Where a model's night keeps the config that it has found, and the diff."""
    return night / "improved"


def withdraw(task: Task, *, work: Path) -> str:
    """Remove a proposal whose diff is not one of the deployed config any more. Returns why, empty where it stays."""
    folder = work / PROPOSED / task.folder
    if not folder.exists():
        return ""
    if is_deployed(task, folder / "config.pbtxt"):
        why = "the proposed config is deployed now"
    elif not _is_proposed_for(task, folder):
        why = "withdrew the proposal: the deployed config has changed since"
    else:
        return ""
    shutil.rmtree(folder, ignore_errors=True)
    return why


def _is_proposed_for(task: Task, folder: Path) -> bool:
    """Whether a proposal is whole, and of what is deployed now."""
    path = f"{task.model.name}/config.pbtxt"
    try:
        proposed = ModelConfig.read(folder / "config.pbtxt").text
        deployed = ModelConfig.read(task.config_path).text if task.config_path.exists() else ""
        diff = (folder / "config.diff").read_text(encoding="utf-8")
        return unified_diff(ModelConfig.parse(deployed, path), ModelConfig.parse(proposed, path)) == diff
    except (ConfigError, OSError, UnicodeDecodeError):
        return False


def is_deployed(task: Task, config: Path) -> bool:
    """Whether a config says the same as what is deployed now."""
    try:
        said = [config_fingerprint(ModelConfig.read(path).text) for path in (task.config_path, config)]
    except ConfigError:  # one of them is not there
        return False
    return said[0] == said[1]


def _write(folder: Path, found: Improvement) -> None:
    # A kill midway leaves no old diff beside a new config.
    files = {"config.diff": found.diff, "config.pbtxt": found.text}
    remove_outdated(folder, files)
    for name, text in files.items():
        write_atomically(folder / name, text)


def _variables(task: Task, found: Improvement, kept: Path) -> dict[str, str]:
    gain, measured = found.gain, found.measured
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
        "CONCURRENCY": str(measured.concurrency),
        "SLO": str(task.job.slo),
    }
    return {f"TRITONTUNE_{name}": value for name, value in values.items()}
