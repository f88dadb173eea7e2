"""The reference is complete: what is written by hand names all that the code has, and the rest is made from it."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

import pytest
from reference_pages import PARTS, on_page_markdown
from support.pages import ROOT, first_column, pages
from support.study_fixtures import run, study, verified

from tuner.cli.main import cli
from tuner.core.errors import Cause, TritontuneError
from tuner.measure.doubts import Gate
from tuner.options.tune_job import TuneJob
from tuner.results.files import front_json, trials_csv
from tuner.space.spec import ParameterSpec
from tuner.study.study import Study

__all__ = ["run", "study", "verified"]

_FRONT, _TRIALS = "docs/reference/front-json.md", "docs/reference/trials-csv.md"


def test_every_part_is_on_a_page_and_every_mark_is_one() -> None:
    marks = [mark for page in pages() for mark in re.findall(r"<!-- generated: (\S+) -->", page.read_text("utf-8"))]
    assert sorted(marks) == sorted(PARTS)


def test_the_command_line_has_every_option() -> None:
    made = on_page_markdown("<!-- generated: cli -->")
    assert re.findall(r"^## (\w+)$", made, re.MULTILINE) == list(cli.commands)
    options = {name for command in cli.commands.values() for each in command.params for name in each.opts}
    told = {
        word.strip(",")
        for names, _ in re.findall(r"^\| `(.+?)` \| (\S.*) \|$", made, re.MULTILINE)
        for word in names.split()
    }
    assert {name for name in options if name.startswith("-")} <= told


def test_a_job_file_has_every_option_with_its_values() -> None:
    made = on_page_markdown("<!-- generated: job-run -->")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", made, re.MULTILINE))
    assert list(rows) == list(TuneJob.model_fields)
    assert rows["compression"] == "`gzip` or `deflate`"
    assert rows["batch_size"] == "a whole number"


def test_errors_have_their_exit_codes() -> None:
    made = on_page_markdown("<!-- generated: errors -->")
    told = {name: int(code) for name, code in re.findall(r"^\| `(\w+)` \| (\d+) \|", made, re.MULTILINE)}
    assert told["SLOError"] == 3
    assert {TritontuneError.__name__, *(each.__name__ for each in TritontuneError.__subclasses__())} <= told.keys()
    documented = {
        int(code)
        for code in re.findall(r"^\| (\d+) \|", (ROOT / "docs/reference/exit-codes.md").read_text(), re.MULTILINE)
    }
    assert set(told.values()) <= documented


def test_a_mark_that_names_no_part_is_an_error() -> None:
    with pytest.raises(KeyError, match="nothing"):
        on_page_markdown("<!-- generated: nothing -->")


def test_every_cause_and_every_quality_check_is_told() -> None:
    assert first_column("docs/reference/exit-codes.md", "Why a trial failed") == [cause.value for cause in Cause]
    assert first_column("docs/reference/quality-warnings.md", "Quality warnings") == [gate.value for gate in Gate]


def test_every_key_of_a_space_file_is_told() -> None:
    keys = first_column("docs/reference/space-files.md", "Keys of a parameter")
    assert keys == list(ParameterSpec.model_fields)


def test_every_key_of_front_json_is_told(verified: Study) -> None:
    front: dict[str, Any] = front_json(verified, verified.recommendation)
    assert first_column(_FRONT, "The file") == list(front)
    point, best = front["front"][0], front["best"]
    assert first_column(_FRONT, "POINT") == [key for key in point if key != "why"]
    assert set(first_column(_FRONT, "best")) == {*best} - {*point} | {"why"}
    assert first_column(_FRONT, "Entries of fields") == list(best["fields"][0])
    assert first_column(_FRONT, "INTERVAL") == list(point["throughput"])


def test_every_column_of_trials_csv_is_told(study: Study) -> None:
    columns = next(csv.reader(io.StringIO(trials_csv(study))))
    parameters = set(study.trials[1].parameters)
    assert first_column(_TRIALS, "trials.csv") == [name for name in columns if name not in parameters]


def test_nothing_is_fetched_from_elsewhere() -> None:
    settings = (ROOT / "mkdocs.yml").read_text("utf-8")
    assert "font: false" in settings
    assert "http" not in settings
