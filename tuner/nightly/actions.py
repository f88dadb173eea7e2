"""The actions on an improvement: propose it, deploy it, or run the user's command."""

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
from tuner.results.result_files import remove_outdated

PROPOSED = "proposed"
"""Name of the folder of proposals in the work folder."""


@dataclass(frozen=True)
class Improvement:
    """A config that passed the gate.

    Attributes:
        before: The text of the deployed config; empty: there is none.
        text: The text of the new config.
        diff: The unified diff between the two, for `patch`.
        gain: The ratio of throughputs, new over deployed.
        measured: The measurement of the new config.
    """

    before: str
    text: str
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
    kept = improved(night)
    _write(kept, improvement)
    if task.job.action == "propose":
        folder = work / PROPOSED / task.folder
        _write(folder, improvement)
        return f"proposed in {folder}"
    if task.job.action == "apply":
        expected = hashlib.sha256(improvement.before.encode()).hexdigest() if improvement.before else None
        backup = replace_config(task.config_path, improvement.text, expected_sha256=expected)
        before = f"replaced; backup: {backup.name}" if backup else "written; there was none before"
        return f"{task.config_path} {before}"
    run_hook(
        task.job.command,
        stdin=improvement.diff,
        variables=_variables(task, improvement, kept),
        within_s=task.job.command_timeout,
        log=night / "command.log",
    )
    return f"ran {task.job.command[0]}"


def improved(night: Path) -> Path:
    """The folder in a model's night that keeps the improved config and its diff."""
    return night / "improved"


def withdraw(task: Task, *, work: Path) -> str:
    """Remove a proposal that no longer applies to the deployed config. Returns why; empty: it stays."""
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
    """Whether a proposal is complete, and its diff applies to the deployed config."""
    path = f"{task.model.name}/config.pbtxt"
    try:
        proposed = ModelConfig.read(folder / "config.pbtxt").text
        deployed = ModelConfig.read(task.config_path).text if task.config_path.exists() else ""
        diff = (folder / "config.diff").read_text(encoding="utf-8")
        return unified_diff(ModelConfig.parse(deployed, path), ModelConfig.parse(proposed, path)) == diff
    except (ConfigError, OSError, UnicodeDecodeError):
        return False


def is_deployed(task: Task, config: Path) -> bool:
    """Whether a config equals the deployed one, apart from comments and white space."""
    try:
        deployed, other = (config_fingerprint(ModelConfig.read(path).text) for path in (task.config_path, config))
    except ConfigError:  # one of them does not exist
        return False
    return deployed == other


def _write(folder: Path, improvement: Improvement) -> None:
    # Outdated files are removed first, so that a kill never leaves an old diff beside a new config.
    files = {"config.diff": improvement.diff, "config.pbtxt": improvement.text}
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
        "CONCURRENCY": str(measured.concurrency),
        "SLO": str(task.job.slo),
    }
    return {f"TRITONTUNE_{name}": value for name, value in values.items()}
