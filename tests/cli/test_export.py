"""`tritontune export`, from a study that needed no Triton."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest
import yaml
from google.protobuf import json_format
from support.builders import MLP, identity, point, space, trial
from tritonclient.grpc import model_config_pb2

from tuner.cli.export import export
from tuner.cli.export_target import Target
from tuner.config.config import ModelConfig
from tuner.config.deploy import is_half_replaced
from tuner.config.patch import Patch
from tuner.core.errors import ConfigError, JobError, SLOError
from tuner.results.result_files import without_provenance, write_results
from tuner.study import study as study_module
from tuner.study.run_folder import RunFolder
from tuner.study.study import Study


@pytest.fixture
def run(study: Study, tmp_path: Path) -> Path:
    """The folder of the run."""
    write_results(RunFolder(tmp_path / "run"), study)
    return tmp_path / "run"


def _best(run: Path) -> str:
    return (run / "mlp/best/config.pbtxt").read_text()


def test_without_options_it_prints_the_best_and_says_what_that_is(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export(run, (), (), Target())
    told = capsys.readouterr()
    assert told.out == _best(run)
    assert told.err == (
        "mlp: trial 1: 391 inferences/s, p99 20 ms at concurrency 8; "
        "SLO p99 <= 25 ms held (99 % confidence): 3 launches, p99 20 ms (18.9 to 21.2)\n"
    )


def test_a_model_without_a_trial_leaves_the_others_their_turn(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Study.create_or_resume(RunFolder(run).database, identity(model="untried"))
    with pytest.raises(
        JobError, match="^not exported: .*: the study of model 'untried' has no finished trial$"
    ) as ended:
        export(run, (), (), Target(folder=tmp_path / "out"))
    assert ended.value.exit_code == 2
    assert (tmp_path / "out/mlp/config.pbtxt").read_text() == _best(run)
    assert f"{tmp_path / 'out/mlp'}: written" in capsys.readouterr().err
    with pytest.raises(JobError, match="^[^:]*: the study of model 'untried' has no finished trial$"):
        export(run, ("mlp", "untried"), (), Target(folder=tmp_path / "named"))
    assert not (tmp_path / "named").exists()


def test_a_model_that_breaks_the_limit_leaves_the_others_their_turn(
    run: Path, repository: Path, tmp_path: Path
) -> None:
    shutil.copytree(repository / "mlp", repository / "slow")
    built = space(config=MLP)
    slow = Study.create_or_resume(
        RunFolder(run).database, identity(model="slow", repository=str(repository), config=MLP)
    )
    slow.add(trial(0, point(1, 100, 900), parameters=built.baseline, config=MLP), built)
    with pytest.raises(
        SLOError, match="not exported: no measured candidate of model 'slow' holds p99 <= 25 ms"
    ) as ended:
        export(run, (), (), Target(folder=tmp_path / "out"))
    assert ended.value.exit_code == 3
    assert [folder.name for folder in (tmp_path / "out").iterdir()] == ["mlp"]


def test_in_place_where_there_was_no_file_it_is_written(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = repository / "mlp/config.pbtxt"
    path.unlink()
    run, built = RunFolder(tmp_path / "other"), space(config=MLP)
    run.path.mkdir()
    study = Study.create_or_resume(run.database, identity(repository=str(repository), config=""))
    study.add(trial(0, point(1, 100, 2), parameters=built.baseline, config=MLP), built)
    export(run.path, (), (), Target(in_place=True))
    assert capsys.readouterr().err.endswith(f"{path}: created\n")
    assert path.exists()


def test_comments_survive_where_the_field_under_them_is_untouched(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export(run, (), (), Target())
    text = capsys.readouterr().out
    for line in ("# Ours, since 2019.", 'backend: "python"   # numpy', "# One per socket."):
        assert f"\n{line}\n" in text
    config = ModelConfig.parse(text, "exported").proto
    assert (config.instance_group[0].count, config.HasField("dynamic_batching")) == (2, True)


_ONCE = "not verified: the best of 2 single measurements, likely too good"
_AS_IT_IS = "this is the baseline; no measured candidate beats it within this limit"
_OTHER_LIMIT = "held as measured; tested only for p99 <= 25 ms"


@pytest.mark.parametrize(
    ("slo", "words"),
    [
        ("p99=50ms", f"trial 1: 500 inferences/s, p99 40 ms at concurrency 16; SLO p99 <= 50 ms {_ONCE}"),
        ("p99=21ms", f"trial 1: 391 inferences/s, p99 20 ms at concurrency 8; SLO p99 <= 21 ms {_OTHER_LIMIT}"),
        ("p99=5ms", f"trial 0: 100 inferences/s, p99 2 ms at concurrency 1; SLO p99 <= 5 ms {_ONCE}; {_AS_IT_IS}"),
    ],
)
def test_another_slo_picks_another_point_and_says_how_sure_that_is(
    run: Path, slo: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    export(run, ("mlp", "mlp"), (slo,), Target())
    told = capsys.readouterr()
    assert told.err == f"mlp: {words}\n"
    assert f"# tritontune: trial {words[6]} of 2 for model mlp\n" in told.out


def test_the_studys_own_slo_gives_what_front_json_has(run: Path, study: Study) -> None:
    front = json.loads((run / "mlp/front.json").read_text())
    found = study.recommendation_for(study.identity.slo)
    assert found == study.recommendation
    assert found.best is not None
    assert found.gain is not None
    assert front["best"]["trial"] == found.best.trial.number
    assert front["best"]["gain"]["throughput"]["value"] == pytest.approx(found.gain.value, rel=1e-4)


def test_as_json(run: Path, tmp_path: Path) -> None:
    export(run, (), (), Target.of(tmp_path / "mlp.json", None, in_place=False))
    text = (tmp_path / "mlp.json").read_text()
    assert json.loads(text)["max_batch_size"] == 32
    parsed = json_format.Parse(text, model_config_pb2.ModelConfig())
    assert parsed == ModelConfig.parse(_best(run), "best").proto


def test_json_does_not_lose_what_it_cannot_say(study: Study, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    newer = study.trials[0].config + "instance_group [ { rate_limiter { speed: 3 } } ]\nfrom_the_future { a: 1 }\n"
    study.add(trial(2, point(1, 900, 5), parameters=study.trials[0].parameters, config=newer), space())
    with pytest.raises(
        ConfigError,
        match=r"^mlp: instance_group.rate_limiter.speed, from_the_future: unknown field, which JSON would lose",
    ):
        export(run, (), (), Target("json"))
    assert capsys.readouterr().out == ""
    export(run, (), (), Target("configmap"))
    assert "from_the_future { a: 1 }" in yaml.safe_load(capsys.readouterr().out)["data"]["config.pbtxt"]


def test_as_a_configmap(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export(run, (), (), Target("configmap"))
    told = yaml.safe_load(capsys.readouterr().out)
    assert (told["apiVersion"], told["kind"], told["metadata"]["name"]) == ("v1", "ConfigMap", "mlp-config")
    assert told["data"] == {"config.pbtxt": _best(run)}


def test_a_folder_that_can_be_deployed(run: Path, repository: Path, tmp_path: Path) -> None:
    export(run, (), (), Target(folder=tmp_path / "deploy"))
    folder = tmp_path / "deploy/mlp"
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*")) == [
        "1",
        "1/model.py",
        "1/weights.bin",
        "config.pbtxt",
    ]
    assert (folder / "config.pbtxt").read_text() == _best(run)
    # It stands alone: the repository may go.
    assert not (folder / "1/weights.bin").is_symlink()
    assert (folder / "1/weights.bin").read_bytes() == b"weights"
    with pytest.raises(JobError, match=r"deploy/mlp exists already; choose another folder, or remove it$"):
        export(run, (), (), Target(folder=tmp_path / "deploy"))
    with pytest.raises(JobError, match=r"is in the model repository; use --in-place to write there$"):
        export(run, (), (), Target(folder=repository / "mlp"))
    assert [p.name for p in (tmp_path / "deploy").iterdir()] == ["mlp"]


def test_in_place_a_second_time_changes_nothing(
    run: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = repository / "mlp/config.pbtxt"
    tuned = path.read_text()
    export(run, (), (), Target(in_place=True))
    assert path.read_text() == _best(run)
    (backup,) = (p for p in path.parent.glob("config.pbtxt.bak-*") if "20260101" not in p.name)
    assert backup.read_text() == tuned
    files, status = sorted(path.parent.iterdir()), path.stat()
    capsys.readouterr()
    export(run, (), (), Target(in_place=True))
    assert capsys.readouterr().err.endswith(f"{path}: unchanged, it is this config already\n")
    assert sorted(path.parent.iterdir()) == files
    assert path.stat() == status


def test_in_place_the_config_as_it_is_stays_as_it_is(
    run: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = repository / "mlp/config.pbtxt"
    tuned = path.read_text()
    export(run, (), ("p99=5ms",), Target(in_place=True))
    assert "this is the baseline" in capsys.readouterr().err
    assert path.read_text() == tuned


@pytest.mark.parametrize(
    ("now", "how"), [("max_batch_size: 7\n", "changed"), (None, "removed"), ("# a comment more\n", "changed")]
)
def test_in_place_refuses_what_is_no_longer_what_was_tuned(
    run: Path, repository: Path, now: str | None, how: str
) -> None:
    path = repository / "mlp/config.pbtxt"
    if now is None:
        path.unlink()
    else:
        path.write_text(path.read_text() + now)
    files = sorted(path.parent.iterdir())
    with pytest.raises(ConfigError, match=rf"config.pbtxt: {how} since the run; nothing was written. Restore"):
        export(run, (), (), Target(in_place=True))
    assert sorted(path.parent.iterdir()) == files


def test_in_place_takes_back_what_was_exported_in_place(run: Path, repository: Path) -> None:
    path = repository / "mlp/config.pbtxt"
    tuned = path.read_text()
    export(run, (), (), Target(in_place=True))
    exported = path.read_text()
    assert exported != tuned
    export(run, (), ("p99=5ms",), Target(in_place=True))
    assert without_provenance(path.read_text()) == without_provenance(tuned)
    path.write_text(exported + "# a comment more\n")
    with pytest.raises(ConfigError, match="config.pbtxt: changed since the run"):
        export(run, (), ("p99=5ms",), Target(in_place=True))


def test_of_several_models_in_place_all_or_none(run: Path, study: Study, repository: Path) -> None:
    (repository / "other/1").mkdir(parents=True)
    changed = repository / "other/config.pbtxt"
    changed.write_text("# by hand\n")
    more = Study.create_or_resume(
        RunFolder(run).database, identity(model="other", repository=str(repository), config=study.identity.config)
    )
    more.add(study.trials[0], space())
    more.add(study.trials[1], space())
    with pytest.raises(JobError, match=r"holds several models; choose one with --model: mlp, other$"):
        export(run, (), (), Target())
    before = (repository / "mlp/config.pbtxt").read_text()
    with pytest.raises(ConfigError, match="other/config.pbtxt: changed since the run"):
        export(run, (), (), Target(in_place=True))
    assert (repository / "mlp/config.pbtxt").read_text() == before
    changed.write_text(before)
    export(run, (), (), Target(in_place=True))
    assert "# tritontune: trial 1 of 2 for model other\n" in changed.read_text()


def test_what_nothing_holds(run: Path) -> None:
    with pytest.raises(SLOError, match=r"^no measured candidate of model 'mlp' holds p99 <= 1 ms$"):
        export(run, (), ("p99=1ms",), Target())


def test_a_file_that_is_no_study_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_text("junk\n")
    with pytest.raises(JobError, match=r"study.db: cannot be read as the study of a run: file is not a database$"):
        export(tmp_path, (), (), Target())


def test_a_study_that_another_process_holds_is_one_line(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_module, "_LOCK_TIMEOUT_S", 0.05)
    database = RunFolder(run).database
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        for read in (lambda: export(run, (), (), Target()), lambda: Study.load(database, "mlp")):
            with pytest.raises(JobError, match="study of a run: locked by another process$"):
                read()


@pytest.fixture
def run_of_two_files(repository: Path, tmp_path: Path) -> Path:
    """The folder of a run whose best candidate changes the config and a JSON file."""
    (repository / "mlp/1/model.json").write_text('{"n": 1}')
    run, built, own = RunFolder(tmp_path / "two"), space(config=MLP), (repository / "mlp/config.pbtxt").read_text()
    run.path.mkdir()
    study = Study.create_or_resume(run.database, identity(repository=str(repository), config=own))
    for number, (config, n, rate) in enumerate(((own, 1, 100.0), (own.replace("count: 1", "count: 2"), 2, 400.0))):
        files = Patch(files={"mlp/1/model.json": f'{{"n": {n}}}'})
        found = trial(number, point(1, rate, 2), parameters=built.baseline, config=config)
        study.add(found.model_copy(update={"others": files}), built)
    return run.path


def test_several_files_go_into_a_folder_or_into_place_but_not_into_one_file(
    run_of_two_files: Path, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(JobError, match=r"is several files \(mlp/config\.pbtxt, mlp/1/model\.json\); use --to FOLDER"):
        export(run_of_two_files, (), (), Target())
    assert capsys.readouterr().out == ""
    export(run_of_two_files, (), (), Target(folder=tmp_path / "deploy"))
    assert (tmp_path / "deploy/mlp/1/model.json").read_text() == '{"n": 2}'
    (repository / "mlp/1/model.json").write_text('{"n": 7}')
    before = (repository / "mlp/config.pbtxt").read_text()
    with pytest.raises(ConfigError, match=r"model\.json: changed since the run; nothing was written"):
        export(run_of_two_files, (), (), Target(in_place=True))
    assert (repository / "mlp/config.pbtxt").read_text() == before


@pytest.mark.slow
def test_an_export_of_two_files_that_is_killed_at_any_moment_is_whole_after_the_next(
    run_of_two_files: Path, repository: Path
) -> None:
    files = [repository / "mlp/config.pbtxt", repository / "mlp/1/model.json"]
    old = [file.read_text() for file in files]
    command = [sys.executable, "-c", "from tuner.cli.main import main; main()"]
    command += ["export", str(run_of_two_files), "--in-place"]
    dice = random.Random(3)  # noqa: S311 (no secret)
    took_s = 0.5
    for _ in range(10):
        for file, text in zip(files, old, strict=True):
            file.write_text(text)
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with suppress(subprocess.TimeoutExpired):
            process.wait(dice.uniform(0.5, 1.0) * took_s)
            took_s = time.monotonic() - began
        process.kill()
        process.wait()
        now = [without_provenance(file.read_text()) for file in files]
        whole = now == old or all("2" in text for text in now)
        assert whole or is_half_replaced(repository)
        export(run_of_two_files, (), (), Target(in_place=True))
        assert "count: 2" in files[0].read_text()
        assert files[1].read_text() == '{"n": 2}'
        assert [path.name for path in repository.rglob("*") if ".new-" in path.name] == []
        assert not is_half_replaced(repository)
