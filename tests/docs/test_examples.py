"""What the documentation shows works: commands, job files, search spaces and Python."""

from __future__ import annotations

import ast
import importlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.builders import SMALL_SPACE, identity, space
from support.command_line import tritontune
from support.known_truth import Truth
from support.pages import ROOT, Block, Command, blocks, inline_code, named_commands, pages, sessions, shown_commands
from support.web_peer import Reply, WebPeer

from tuner.cli.main import cli
from tuner.core.yaml_files import read_yaml
from tuner.nightly.jobs import JobsFile
from tuner.options.groups import Options
from tuner.options.measure_job import MeasureJob
from tuner.options.tune_job import TuneJob
from tuner.results.result_files import write_results
from tuner.search.twin_sampler import calibrations
from tuner.service.settings import ServiceSettings
from tuner.space.spec import load_space, parse_space
from tuner.study.run_folder import RunFolder
from tuner.study.study import Study

# Options of other programs.
_FOREIGN = {
    *("--at-limit", "--dry-run", "--runs", "--slower"),  # benchmarks
    *("--cpus", "--group-add", "--volume"),  # docker run
    *("--backend-directory", "--cache-config", "--http-address", "--log-file"),  # tritonserver
    *("--model-control-mode", "--trace-config"),  # the same
    *("--dashboard-port", "--max-worker-port", "--min-worker-port", "--node-manager-port"),  # ray start
    *("--object-manager-port", "--port", "--ray-client-server-port"),  # the same
    "--exclusive",  # sbatch
    "--strict",  # mypy
}


def _parsed(command: Command) -> dict[str, Any]:
    """The options of a command as click reads them."""
    name, *arguments = command.words
    assert name in cli.commands, f"{command.place}: unknown command {name!r}"
    context = cli.commands[name].make_context(name, arguments)
    return {name: value for name, value in context.params.items() if value not in {None, ()}}


def test_there_are_examples_of_every_command() -> None:
    assert {command.words[0] for command in shown_commands()} == set(cli.commands)


@pytest.mark.parametrize("command", shown_commands(), ids=lambda command: command.place)
def test_a_command_line_asks_for_what_can_be_done(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("HF_TOKEN", "its value")
    given = _parsed(command)
    kinds: dict[str, type[Options]] = {"run": TuneJob, "measure": MeasureJob}
    kind = kinds.get(command.words[0])
    # A run that is resumed, or has a job file, is asked for there.
    if kind and not given.get("resume") and not given.get("job"):
        kind.make({name: value for name, value in given.items() if name in kind.model_fields})


@pytest.mark.parametrize("command", named_commands(), ids=lambda command: command.place)
def test_a_command_that_a_sentence_names_is_one(command: Command) -> None:
    assert {command.words[0]} <= {*cli.commands, "COMMAND"}, command.place


def test_options_that_sentences_name_are_options() -> None:
    known = {name for command in cli.commands.values() for option in command.params for name in option.opts}
    known |= {name for command in cli.commands.values() for option in command.params for name in option.secondary_opts}
    words = ((place, code.split()[0].split("=")[0]) for place, code in inline_code() if code.startswith("--"))
    assert [(place, word) for place, word in words if word not in known | _FOREIGN | {"--help"}] == []


@pytest.mark.parametrize(
    "block", [block for block in blocks() if block.language == "yaml"], ids=lambda block: block.place
)
def test_a_file_is_read(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLACK_WEBHOOK", "https://hooks.example.com/x")
    file = tmp_path / block.title
    readers: dict[str, Callable[[Path], object]] = {
        "jobs.yaml": JobsFile.read,
        "job.yaml": TuneJob.read,
        "prometheus.yml": read_yaml,
        "service.yaml": ServiceSettings.read,
        "space.yaml": lambda path: load_space(str(path)),
    }
    assert block.title in readers, f"{block.place}: give it one of these titles: {', '.join(readers)}"
    file.write_text(block.text)
    assert readers[block.title](file)


@pytest.mark.parametrize(
    "block", [block for block in blocks() if block.language == "python"], ids=lambda block: block.place
)
def test_python_compiles_and_imports_what_there_is(block: Block) -> None:
    tree = ast.parse(block.text)
    compile(tree, block.place, "exec")
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert imports
    for node in imports:
        module = importlib.import_module(node.module or "")
        assert [name.name for name in node.names if not hasattr(module, name.name)] == [], node.module


def test_a_job_of_python_is_one() -> None:
    """The calls of `TuneJob` in examples are right, too."""
    calls = [
        ast.unparse(node)
        for block in blocks()
        if block.language == "python"
        for node in ast.walk(ast.parse(block.text))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "TuneJob"
    ]
    assert calls
    for call in calls:
        assert eval(call, {"TuneJob": TuneJob}).budget == 600.0  # noqa: S307 (ours)


def test_targets_of_make_that_pages_name_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = {name for line in re.findall(r"^([a-z][\w -]*):(?!=)", makefile, re.MULTILINE) for name in line.split()}
    text = "\n".join(page.read_text("utf-8") for page in pages())
    named = set(re.findall(r"(?:^ *|`)make ([a-z-]+)", text, re.MULTILINE))
    assert {"demo", "test", "docs"} <= named <= targets


def test_the_readme_is_one_page() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 150


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as examples expect it: `model_repository` with `mlp`, a run of it in RUN_DIR, and `jobs.yaml`."""
    shutil.copytree(ROOT / "examples/model_repository", tmp_path / "model_repository")
    config = (tmp_path / "model_repository/mlp/config.pbtxt").read_text()
    built, run = space(SMALL_SPACE, config=config), RunFolder(tmp_path / "RUN_DIR")
    run.path.mkdir()
    spec = parse_space(SMALL_SPACE, "space.yaml").model_dump_json(by_alias=True)
    study = Study.create_or_resume(
        run.database,
        identity(repository=str(tmp_path / "model_repository"), config=config, space=spec, slo={"p99": "40ms"}),
    )
    truth = Truth(fixed_ms=1.0, item_ms=0.2, neighbour=0.3)
    for number, assignment in enumerate([built.baseline, *calibrations(built)]):
        study.add(truth.trial(built, number, assignment), built)
    write_results(run, study)
    (tmp_path / "serving").mkdir()
    jobs = next(block for block in blocks() if block.title == "jobs.yaml")
    (tmp_path / "jobs.yaml").write_text(jobs.text)
    return tmp_path


def _is_quick(command: Command) -> bool:
    """Whether it measures nothing, and needs nothing that is not in the folder."""
    words = command.words
    reads_a_run = words[0] in {"export", "report", "estimate"} and words[1:2] == ("RUN_DIR",)
    return reads_a_run or "--check" in words or words[0] == "doctor"


@pytest.mark.usefixtures("fake_on_path")
@pytest.mark.parametrize(
    "command", {each.words: each for each in shown_commands() if _is_quick(each)}.values(), ids=lambda each: each.place
)
def test_a_quick_command_does_it(command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with WebPeer(lambda _: Reply(404)) as peer:
        monkeypatch.setenv("SLACK_WEBHOOK", f"http://{peer.address}/x")
        done = tritontune(*command.words, cwd=folder)
    assert (done.returncode, command.place) == (0, command.place), done.stderr
    assert done.stdout or done.stderr


@pytest.mark.usefixtures("fake_on_path")
@pytest.mark.parametrize(("command", "printed"), sessions(), ids=lambda each: getattr(each, "place", ""))
def test_a_command_prints_what_the_page_says(command: Command, printed: str, folder: Path) -> None:
    done = tritontune(*command.words, cwd=folder)
    assert done.stdout + done.stderr == printed


def test_the_report_is_written_from_python(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = next(block for block in blocks() if block.language == "python" and "write_report" in block.text)
    (folder / "RUN_DIR").rename(folder / "run")
    monkeypatch.chdir(folder)
    exec(block.text, {})  # noqa: S102 (ours)
    assert (folder / "run/report.html").stat().st_size > 100_000


@pytest.mark.slow
@pytest.mark.usefixtures("fake_on_path")
def test_the_example_that_measures(folder: Path) -> None:
    words = next(each.words for each in shown_commands() if each.words[:2] == ("measure", "model_repository"))
    done = tritontune(*words, "--time", "0.3s", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "64" in done.stdout
