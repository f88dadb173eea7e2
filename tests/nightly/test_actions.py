from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.builders import interval
from support.nights import jobs_file, measured

from tuner.config.config import ModelConfig
from tuner.config.diff import patch_diff, unified_diff
from tuner.config.patch import Patch
from tuner.core.atomic_file import remove_unfinished
from tuner.core.errors import ConfigError, TuningError
from tuner.nightly.actions import Improvement, act, withdraw
from tuner.nightly.jobs import JobsFile
from tuner.nightly.tasks import Task, tasks_of
from tuner.testing.repositories import ModelRepositoryFactory, config_text

OLD, NEW = config_text(), config_text(instances=2)
FOUND = Improvement(Patch(config=OLD), Patch(config=NEW), "-old\n+new\n", interval(1.3), measured(130.0, 20.0))


def _task(tmp_path: Path, repository: ModelRepositoryFactory, **job: Any) -> Task:
    if not (repository.path / "slow").exists():
        repository.add("slow", config=OLD)
    path = jobs_file(tmp_path / "jobs.yaml", {"repository": str(repository.path), "slo": {"p99": "40ms"}, **job})
    (task,) = tasks_of(JobsFile.read(path), path, print)
    return task


def _act(task: Task, tmp_path: Path) -> str:
    return act(task, FOUND, work=tmp_path / "work", night=tmp_path / "night")


def test_a_proposal_lies_beside(model_repository: ModelRepositoryFactory, tmp_path: Path) -> None:
    task = _task(tmp_path, model_repository)
    before = sorted(model_repository.path.rglob("*"))
    folder = tmp_path / "work/proposed/model_repository/slow"
    assert _act(task, tmp_path) == f"proposed in {folder}"
    assert (folder / "config.pbtxt").read_text() == NEW
    assert (folder / "config.diff").read_text() == "-old\n+new\n"
    assert sorted(model_repository.path.rglob("*")) == before
    assert task.config_path.read_text() == OLD


def _proposed(task: Task, tmp_path: Path) -> Path:
    """The folder of a proposal that is whole."""
    path = "slow/config.pbtxt"
    diff = unified_diff(ModelConfig.parse(OLD, path), ModelConfig.parse(NEW, path))
    act(task, replace(FOUND, diff=diff), work=tmp_path / "work", night=tmp_path / "night")
    return tmp_path / "work/proposed/model_repository/slow"


def test_a_proposal_stays_while_it_holds(model_repository: ModelRepositoryFactory, tmp_path: Path) -> None:
    task = _task(tmp_path, model_repository)
    folder = _proposed(task, tmp_path)
    assert withdraw(task, work=tmp_path / "work") == ""
    assert (folder / "config.pbtxt").exists()


@pytest.mark.parametrize(
    ("deployed", "why"),
    [
        (NEW, "is deployed now"),
        (OLD.replace("max_batch_size: 8", "max_batch_size: 4"), "has changed since"),
        (None, "has changed since"),
    ],
)
def test_a_proposal_goes_with_what_it_was_for(
    model_repository: ModelRepositoryFactory, tmp_path: Path, deployed: str | None, why: str
) -> None:
    task = _task(tmp_path, model_repository)
    folder = _proposed(task, tmp_path)
    if deployed is None:
        task.config_path.unlink()
    else:
        task.config_path.write_text(deployed)
    assert why in withdraw(task, work=tmp_path / "work")
    assert not folder.exists()


def test_half_a_proposal_goes(model_repository: ModelRepositoryFactory, tmp_path: Path) -> None:
    task = _task(tmp_path, model_repository)
    folder = _proposed(task, tmp_path)
    (folder / "config.diff").unlink()
    assert withdraw(task, work=tmp_path / "work")
    assert not folder.exists()


def test_it_is_put_in_place(model_repository: ModelRepositoryFactory, tmp_path: Path) -> None:
    task = _task(tmp_path, model_repository, action="apply")
    told = _act(task, tmp_path)
    assert task.config_path.read_text() == NEW
    (backup,) = task.config_path.parent.glob("config.pbtxt.bak-*")
    assert backup.read_text() == OLD
    assert told == f"{task.config_path} replaced; backup: {backup.name}"
    assert (tmp_path / "night/improved/config.pbtxt").read_text() == NEW


def _with_more(**settings: Any) -> Improvement:
    """An improvement that changes a file beside the config, and perhaps the server's arguments or variables."""
    before = Patch(config=OLD, files={"slow/1/model.json": "{}", "slow/1/same.json": "{}"})
    after = Patch(config=NEW, files={"slow/1/model.json": '{"n": 1}', "slow/1/same.json": "{}"}, **settings)
    return replace(FOUND, before=before, patch=after.changed_from(before), diff=patch_diff(before, after, "slow"))


def test_all_files_of_an_improvement_are_deployed(model_repository: ModelRepositoryFactory, tmp_path: Path) -> None:
    task = _task(tmp_path, model_repository, action="apply")
    file = task.model.path / "1/model.json"
    file.write_text("{}")
    improvement = _with_more(env={"OMP_NUM_THREADS": "1"})
    told = act(task, improvement, work=tmp_path / "work", night=tmp_path / "night")
    assert (task.config_path.read_text(), file.read_text()) == (NEW, '{"n": 1}')
    assert "config.pbtxt replaced; backup: " in told
    assert "model.json replaced; backup: " in told
    assert told.endswith("; set the environment variable OMP_NUM_THREADS=1")
    kept = tmp_path / "night/improved"
    assert sorted(str(p.relative_to(kept)) for p in kept.rglob("*") if p.is_file()) == [
        "1/model.json",
        "config.diff",
        "config.pbtxt",
        "server.env",
    ]


def test_if_a_file_has_changed_nothing_is_deployed(model_repository: ModelRepositoryFactory, tmp_path: Path) -> None:
    task = _task(tmp_path, model_repository, action="apply")
    (task.model.path / "1/model.json").write_text("by hand")
    with pytest.raises(ConfigError, match=r"model\.json: has changed since it was read; nothing was written$"):
        act(task, _with_more(), work=tmp_path / "work", night=tmp_path / "night")
    assert task.config_path.read_text() == OLD


def test_a_proposal_of_several_files_stays_until_all_are_deployed_or_one_has_changed(
    model_repository: ModelRepositoryFactory, tmp_path: Path
) -> None:
    task = _task(tmp_path, model_repository)
    file, work = task.model.path / "1/model.json", tmp_path / "work"
    file.write_text("{}")
    act(task, _with_more(), work=work, night=tmp_path / "night")
    assert withdraw(task, work=work) == ""
    task.config_path.write_text(NEW)
    file.write_text('{"n": 1}')
    assert withdraw(task, work=work) == "the proposed config is deployed now"
    task.config_path.write_text(OLD)
    file.write_text("{}")
    act(task, _with_more(), work=work, night=tmp_path / "night")
    file.write_text("by hand")
    assert "has changed since" in withdraw(task, work=work)


def test_a_proposal_with_settings_of_the_server_is_never_known_to_be_deployed(
    model_repository: ModelRepositoryFactory, tmp_path: Path
) -> None:
    task = _task(tmp_path, model_repository)
    (task.model.path / "1/model.json").write_text("{}")
    act(task, _with_more(server_args={"--http-thread-count": "2"}), work=tmp_path / "work", night=tmp_path / "night")
    assert withdraw(task, work=tmp_path / "work") == ""


def test_where_there_was_no_config_one_is_written(model_repository: ModelRepositoryFactory, tmp_path: Path) -> None:
    task = _task(tmp_path, model_repository, action="apply")
    task.config_path.unlink()
    told = act(task, replace(FOUND, before=Patch()), work=tmp_path / "work", night=tmp_path / "night")
    assert told == f"{task.config_path} written; there was none before"
    assert task.config_path.read_text() == NEW


def test_backups_are_no_part_of_the_model(model_repository: ModelRepositoryFactory, tmp_path: Path) -> None:
    task = _task(tmp_path, model_repository, action="apply")
    before = task.model.fingerprint()
    _act(task, tmp_path)
    assert task.model.fingerprint() == before


def test_what_changed_meanwhile_is_left_alone(model_repository: ModelRepositoryFactory, tmp_path: Path) -> None:
    task = _task(tmp_path, model_repository, action="apply")
    task.config_path.write_text(OLD + "# a hand was here\n")
    with pytest.raises(ConfigError, match="has changed since it was read; nothing was written"):
        _act(task, tmp_path)
    assert task.config_path.read_text().endswith("# a hand was here\n")
    assert (tmp_path / "night/improved/config.pbtxt").read_text() == NEW


def test_a_command_gets_all_that_it_needs(model_repository: ModelRepositoryFactory, tmp_path: Path) -> None:
    script = (
        "import json, os, sys; ours = {k: v for k, v in os.environ.items() if 'TRITONTUNE' in k};"
        "print(json.dumps([sys.stdin.read(), ours]))"
    )
    before = {name for name in os.environ if "TRITONTUNE" in name}  # of the tests themselves
    task = _task(tmp_path, model_repository, action="command", command=[sys.executable, "-c", script])
    assert _act(task, tmp_path) == f"ran {sys.executable}"
    stdin, variables = json.loads((tmp_path / "night/command.log").read_text())
    assert stdin == "-old\n+new\n"
    told = {name.removeprefix("TRITONTUNE_"): value for name, value in variables.items() if name not in before}
    assert told == {
        "REPOSITORY": str(model_repository.path),
        "MODEL": "slow",
        "DEPLOYED": str(task.config_path),
        "CONFIG": str(tmp_path / "night/improved/config.pbtxt"),
        "DIFF": str(tmp_path / "night/improved/config.diff"),
        "GAIN": "1.3000",
        "GAIN_LOW": "1.2740",
        "GAIN_HIGH": "1.3260",
        "THROUGHPUT": "130.00",
        "P99_MS": "20.000",
        "PERCENTILE": "p99",
        "LATENCY_MS": "20.000",
        "CONCURRENCY": "8",
        "REQUEST_RATE": "",
        "OBJECTIVE": "throughput",
        "SLO": "p99 <= 40 ms",
    }


def test_a_command_that_fails_loses_nothing(model_repository: ModelRepositoryFactory, tmp_path: Path) -> None:
    task = _task(tmp_path, model_repository, action="command", command=["sh", "-c", "echo no >&2; exit 1"])
    with pytest.raises(TuningError, match="sh exited with status 1: no"):
        _act(task, tmp_path)
    assert (tmp_path / "night/improved/config.pbtxt").read_text() == NEW
    assert task.config_path.read_text() == OLD


_APPLIES = """\
import hashlib, itertools, sys
from pathlib import Path
from tuner.config.deploy import Replacement, replace_files
path, texts = Path(sys.argv[1]), [Path(each).read_text() for each in sys.argv[2:]]
print("begun", flush=True)
for old, new in itertools.cycle([texts, texts[::-1]]):
    replacement = Replacement(path, new, hashlib.sha256(old.encode()).hexdigest())
    replace_files(path.parent, [replacement])[0].unlink()
"""


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_a_whole_config(tmp_path: Path) -> None:
    """Configs of half a MiB are put in place without a pause; ten times SIGKILL comes at a random moment."""
    dice = random.Random(11)  # noqa: S311 (no secret)
    path, names = tmp_path / "model/config.pbtxt", ("old", "new")
    texts = {name: config_text(more=f"# {name} {'x' * 2**19}") for name in names}
    path.parent.mkdir()
    for name in names:
        (tmp_path / name).write_text(texts[name])
    unfinished = 0
    for _ in range(10):
        path.write_text(texts["old"])
        command = [sys.executable, "-c", _APPLIES, str(path), *(str(tmp_path / name) for name in names)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout
            assert process.stdout.readline() == "begun\n"
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(dice.uniform(0.0, 0.08))
        finally:
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()
        found = path.read_text()
        assert found in texts.values()
        ModelConfig.parse(found, str(path))
        for backup in path.parent.glob("config.pbtxt.bak-*"):
            assert backup.read_text() in texts.values()
            backup.unlink()
        unfinished += remove_unfinished(path)
        assert [each.name for each in path.parent.iterdir()] == ["config.pbtxt"]
    assert unfinished, "no kill came while anything was being written"
