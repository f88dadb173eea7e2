"""The reference is complete: what is written by hand names all that the code has, and the rest is made from it."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Any, get_args

import pytest
from fastapi.routing import APIRoute
from jsonschema import Draft202012Validator
from reference_pages import PARTS, events_schema, on_page_markdown
from support.builders import identity, interval, point, space, trial
from support.event_files import SCHEMA, shown_events
from support.pages import ROOT, first_column, pages
from support.study_fixtures import gpu_point, open_point, run, study, verified

from tuner.cli.main import cli
from tuner.core.errors import Cause, TritontuneError
from tuner.core.json_text import json_text
from tuner.core.loads import Concurrency, RequestRate
from tuner.core.objectives import THROUGHPUT
from tuner.core.record import Record
from tuner.jobs.events import FINAL, Event
from tuner.measure.points import OperatingPoint
from tuner.measure.quality_warnings import QualityCheck
from tuner.nightly.history import Night
from tuner.nightly.measured import Conditions, Measured
from tuner.nightly.outcome import NightReport
from tuner.options.tune_job import TuneJob
from tuner.recommend.certified import CertifiedRate
from tuner.results.points_json import judged_point_json, measured_point_json, point_json
from tuner.results.result_files import front_json, trials_csv
from tuner.service.app import ROUTERS
from tuner.service.settings import ServiceSettings, settings_schema
from tuner.space.knowledge import knowledge, known_backends
from tuner.space.spec import ParameterSpec
from tuner.study.run_folder import RunFolder
from tuner.study.study import Study

__all__ = ["gpu_point", "open_point", "run", "study", "verified"]

_BETTER = space().normalize({"dynamic_batching": "on", "max_batch_size": 128})
_TRIALS = "docs/reference/trials-csv.md"
_SCHEMA = json.loads((ROOT / "docs/reference/front.schema.json").read_text("utf-8"))


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
    assert sorted(rows) == sorted(TuneJob.model_fields)
    assert rows["compression"] == "`gzip` or `deflate`"
    assert (rows["batch_size"], rows["budget"]) == ("a whole number", "a duration")


def test_errors_have_their_exit_codes() -> None:
    made = on_page_markdown("<!-- generated: errors -->")
    told = {name: int(code) for name, code in re.findall(r"^\| `(\w+)` \| (\d+) \|", made, re.MULTILINE)}
    assert told["SLOError"] == 3
    # Those of the service become problem details, and leave no process.
    subclasses = [each for each in TritontuneError.__subclasses__() if not each.__module__.startswith("tuner.service.")]
    assert {TritontuneError.__name__, *(each.__name__ for each in subclasses)} <= told.keys()
    documented = {
        int(code)
        for code in re.findall(r"^\| (\d+) \|", (ROOT / "docs/reference/exit-codes.md").read_text(), re.MULTILINE)
    }
    assert set(told.values()) <= documented


def test_a_mark_that_names_no_part_is_an_error() -> None:
    with pytest.raises(KeyError, match="nothing"):
        on_page_markdown("<!-- generated: nothing -->")


def test_the_rest_api_has_every_request_with_its_role() -> None:
    made = on_page_markdown("<!-- generated: rest-api -->")
    told = {(line, role) for line, role in re.findall(r"^\| `(\w+ \S+)` \| (\w+) \|", made, re.MULTILINE)}
    assert {
        ("POST /api/v1/jobs", "submit"),
        ("GET /api/v1/jobs/{job_id}/events", "read"),
        ("GET /healthz", "none"),
    } <= told
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    assert {line for line, _ in told} == {f"{method} {each.path}" for each in routes for method in each.methods or ()}
    # Each field has a meaning.
    fields = re.findall(r"^\| `(\w+)` \| .+? \| (.*) \|$", made, re.MULTILINE)
    assert [name for name, meaning in fields if not meaning] == ["value", "low", "high"]


def test_the_config_file_of_the_service_has_every_key() -> None:
    made = on_page_markdown("<!-- generated: service-settings -->")
    assert re.findall(r"^\| `(\w+)` ", made, re.MULTILINE) == list(ServiceSettings.model_fields)


def test_every_cause_and_every_quality_check_is_told() -> None:
    assert first_column("docs/reference/exit-codes.md", "Why a trial failed") == [cause.value for cause in Cause]
    assert first_column("docs/reference/quality-warnings.md", "Quality warnings") == [
        gate.value for gate in QualityCheck
    ]


def test_every_key_of_a_space_file_is_told() -> None:
    made = on_page_markdown("<!-- generated: space-parameter -->")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|$", made, re.MULTILINE))
    assert rows == {name: field.description for name, field in ParameterSpec.model_fields.items()}


def _is_as_the_schema_says(study: Study) -> dict[str, Any]:
    front: dict[str, Any] = json.loads(json_text(front_json(study, study.recommendation)))
    Draft202012Validator(_SCHEMA).validate(front)
    return front


def test_front_json_is_as_its_schema_says(study: Study, gpu_point: OperatingPoint) -> None:
    Draft202012Validator.check_schema(_SCHEMA)
    study.add(trial(3, gpu_point.model_copy(update={"throughput": interval(450)}), parameters=_BETTER), space())
    front = _is_as_the_schema_says(study)
    assert front["front"]
    assert front["best"]["gpu"]
    assert front["best"]["fields"]


def test_so_is_that_of_a_verified_study(verified: Study) -> None:
    reason = "no time left"
    verified.certify(CertifiedRate(trial=1, load=Concurrency(8), reason=reason, launched=False))
    assert _is_as_the_schema_says(verified)["best"]["not_certified"] == reason
    certified = point(RequestRate(350), 350, 22, kept_up=True)
    verified.certify(CertifiedRate(trial=1, load=Concurrency(8), point=certified))
    assert _is_as_the_schema_says(verified)["best"]["certified_rate"]["request_rate"] == 350


def test_so_is_that_of_a_study_without_a_best(run: RunFolder) -> None:
    study = Study.create_or_resume(run.database, identity(slo={"p99": "1ms"}))
    study.add(trial(0, point(1, 100, 10)), space())
    assert _is_as_the_schema_says(study)["best"] is None


def test_so_is_what_looked_better(verified: Study) -> None:
    verified.add(trial(3, point(8, 600, 21), parameters=_BETTER), space())
    assert _is_as_the_schema_says(verified)["not_chosen"]


def test_every_key_of_front_json_is_described() -> None:
    made = on_page_markdown("<!-- generated: front-json -->")
    assert re.findall(r"^## (\w+)$", made, re.MULTILINE) == ["file", *_SCHEMA["$defs"]]
    assert "| `best` | [best](#best) or `null` | Operating point to deploy; null if there is none. |" in made
    assert "| `fields` | a list of [field](#field) |" in made


def test_the_schema_of_events_is_that_of_their_types() -> None:
    assert events_schema() == SCHEMA, (
        "python docs/hooks/reference_pages.py events-schema > docs/reference/events.schema.json"
    )
    Draft202012Validator.check_schema(SCHEMA)


def test_the_schema_of_the_config_file_of_the_service_is_that_of_its_settings() -> None:
    written = json.loads((ROOT / "docs/reference/service.schema.json").read_text("utf-8"))
    assert written == settings_schema(), (
        "python docs/hooks/reference_pages.py service-schema > docs/reference/service.schema.json"
    )
    Draft202012Validator.check_schema(written)


def test_every_type_of_event_is_described() -> None:
    made = on_page_markdown("<!-- generated: events -->")
    types = [kind.model_fields["type"].default for kind in get_args(get_args(Event)[0])]
    assert re.findall(r"^## (.+)$", made, re.MULTILINE) == [
        "Every event",
        *types,
        *("model_result", "operating_point", "load"),
    ]
    assert "| `load` | [load](#load) or `null` | Load of the best operating point. |" in made
    assert "(front-json.md#measurement)" in made
    told = first_column("docs/reference/events.md", "events.jsonl")
    assert set(told) == FINAL


def test_the_shown_events_are_as_the_schema_says() -> None:
    shown = [json.loads(line) for line in shown_events()]
    assert [event["type"] for event in shown][:3] == ["state", "state", "model_began"]
    for event in shown:
        Draft202012Validator(SCHEMA).validate(event)


def test_points_in_events_have_all_that_they_have_in_front_json(gpu_point: OperatingPoint) -> None:
    keys = set(judged_point_json(gpu_point, THROUGHPUT)) - {"objective_value", "answered"}
    assert keys == set(_SCHEMA["$defs"]["measurement"]["properties"])
    Draft202012Validator({"$ref": "#/$defs/operating_point", "$defs": SCHEMA["$defs"]}).validate(
        judged_point_json(gpu_point, THROUGHPUT)
    )


def test_every_column_of_trials_csv_is_told(study: Study) -> None:
    columns = next(csv.reader(io.StringIO(trials_csv(study))))
    parameters = set(study.trials[1].parameters)
    assert first_column(_TRIALS, "trials.csv") == [name for name in columns if name not in parameters]


def test_every_key_of_measure_is_told(open_point: OperatingPoint) -> None:
    told = first_column("docs/reference/measure-output.md", "POINT")
    assert told == [key for key in measured_point_json(open_point) if key not in point_json(open_point)]
    assert set(point_json(open_point)) == set(_SCHEMA["$defs"]["measurement"]["properties"])


@pytest.mark.parametrize(
    ("heading", "kind"),
    [("The report", NightReport), ("A model", Night), ("Conditions", Conditions), ("A measurement", Measured)],
)
def test_every_key_of_the_report_of_a_night_is_told(heading: str, kind: type[Record]) -> None:
    keys = [field.serialization_alias or name for name, field in kind.model_fields.items()]
    told = first_column("docs/reference/night-report.md", heading)
    assert told == keys


def test_nothing_is_fetched_from_elsewhere() -> None:
    settings = (ROOT / "mkdocs.yml").read_text("utf-8")
    assert "font: false" in settings
    assert "http" not in settings


def test_each_backend_has_its_parameters_and_a_listed_space() -> None:
    made = on_page_markdown("<!-- generated: backends -->")
    sections = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", made, re.MULTILINE | re.DOTALL))
    assert sorted(sections) == sorted([*known_backends(), "Triton itself"])
    for name in known_backends():
        rows = re.findall(r"^\| `(.+?)` ", sections[name], re.MULTILINE)
        assert knowledge(name).parameters.keys() <= set(rows)
        assert f"model: backend {name}, by its config; space auto\n" in sections[name]
