"""Whatever is asked, it is understood, or refused in one line: job files, space files, nightly job files, options."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.builders import space
from support.command_line import tritontune

from tuner.cli.main import cli
from tuner.core.errors import UsageError
from tuner.jobs import tuning
from tuner.nightly.jobs import JobsFile, NightlyJob, Notify
from tuner.options.tune_job import TuneJob
from tuner.testing.repositories import ModelRepositoryFactory

FUZZED = settings(
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "50")),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)

_WORDS = [
    *("", " ", "on", "off", "auto", "none", "all", "max", "random", "zero", "p99", "p99=25ms", "25ms", "10m", "1h30m"),
    *("-1", "0", "1", "1,8,64", "1:2:1e-320", "1:1e308:1", "nan", "inf", "1e999", "4294967296", "9" * 400, "99999999h"),
    *("GPU-1", "NAME=VALUE", "NAME:VALUE", "a:b:c", "IN:1,2", "IN:99999999999999999999", "k:1:int", "k:1e400:float"),
    *(
        "k:x:string",
        "SRC:/DST",
        "./a:/b:ro",
        "3%,10%",
        "0.1%",
        "8GiB",
        "9" * 30 + "TB",
        "http://[::1",
        "grpc://a:99999",
    ),
    *(
        "https://user:pw@host/path?q",
        "/",
        ".",
        "..",
        "\u00e9\u4e16\U0001f600",
        "\udcff",
        "\x1b[31m",
        "a\nb",
        "'\"\\",
        "%s{}",
    ),
    *("--http-port=1", "nano_cpus=2", "devices=[", "labels={a: ", "x=" + "[" * 2000, "-", "--", "relaunch", "twin"),
    *("{}", "[]", "\u2028", "{" * 50, "100:1000:60s", "0:1e400:1s"),
]
WORDS = st.sampled_from(_WORDS) | st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12
)
SCALARS = (
    WORDS
    | st.sampled_from([-1, 0, 1, 2**31, 2**32, 2**63, 2**64, -(2**70), 10**300, 0.0, -0.5, 1e-320, 1e308])
    | st.sampled_from([float("nan"), float("inf"), "\0", "\ud800"])
    | st.integers()
    | st.floats()
    | st.booleans()
    | st.none()
)
JUNK = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCALARS, inner, max_size=3), max_leaves=6
)
DEEP = "[" * 600 + "]" * 600


def _mapping(names: list[str], values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Some options that there are, with values that need not be any."""
    return st.dictionaries(st.sampled_from(names) | WORDS, values, min_size=1, max_size=3)


def _yaml(content: Any) -> str:
    """As YAML that keeps what JSON cannot say, such as keys that are numbers; escapes for all that is not ASCII."""
    if isinstance(content, dict):
        return "{" + ", ".join(f"? {_yaml(key)} : {_yaml(value)}" for key, value in content.items()) + "}"
    if isinstance(content, list):
        return "[" + ", ".join(map(_yaml, content)) + "]"
    if isinstance(content, float) and content != content:  # noqa: PLR0124 (NaN)
        return ".nan"
    return json.dumps(content).replace("-Infinity", "-.inf").replace("Infinity", ".inf")


@pytest.fixture
def repository(model_repository: ModelRepositoryFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository that can be tuned, on a machine on which everything ends where a server would be started."""
    model_repository.add("identity")

    def understood(*_: object, **__: object) -> NoReturn:
        raise UsageError("understood")

    for name in ("launcher_of", "open_executor", "served_repository", "_remote"):
        monkeypatch.setattr(tuning, name, understood)
    return model_repository.path


def _refused(*arguments: object) -> str:
    """A command's one line. Nothing else is written, and it ends with 2."""
    done = tritontune(*arguments)
    assert (done.returncode, len(done.stderr.splitlines()), done.stdout) == (2, 1, ""), (arguments, done)
    assert len(done.stderr) < 700
    return done.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mount: 5", "mount: 5 cannot be read; write it as SRC:DST, or a list"),
        ("header: 5", "header: 5 cannot be read; write it as {NAME: VALUE} or NAME:VALUE, or a list"),
        ("header: [5]", "header: '5' is not a header"),
        ("slo: [[1]]", "slo: [1] is not an SLO; write it as p99=25ms"),
        ("request_parameter: [[1]]", "request_parameter: '[1]' is not a parameter"),
        ("request_parameter: 5", "request_parameter: 5 cannot be read"),
        ("shape: 5", "shape: 5 cannot be read"),
        ("seed: 4294967296", "seed: must be <= 4294967295, got 4294967296"),
        ("seed: 2026-99-99", "not valid YAML: month must be in 1..12"),
        ("seed: " + "9" * 5_000, "not valid YAML: Exceeds the limit"),
        ("seed: 0x" + "f" * 5_000, ":1:7: number is too large"),
        ("seed: !!int ''", "not valid YAML"),
        (f"env: {DEEP}", "nested too deeply"),
        ('image: "a\\0b"', "image: contains a NUL or half a surrogate pair"),
        ("budget: 99999999h", "budget: must be > 0 and <= 8,760h, got '99999999h'"),
        ("memory: 99999999999TB", "memory: must be >= 1 byte and <= 1,048,576TiB"),
        ("env: &a [*a, *a]", "env: "),
        ("docker_arg: ['labels=" + "[" * 600 + "']", "docker_arg: "),
    ],
    ids=lambda each: each[:40],
)
def test_a_job_file_that_is_wrong(repository: Path, tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(text)
    assert words in _refused("run", repository, "--job", file)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--rate", "1:2:1e-320"], "--rate: '1:2:1e-320' must have <= 1,000 levels"),
        (["--concurrency", "1:1e308:1"], "must have <= 1,000 levels"),
        (["--seed", "4294967296"], "--seed: must be <= 4294967295, got 4294967296"),
        (["--time", "99999999h"], "--time: must be > 0 and <= 8,760h"),
        (["--input-data", "/tmp"], "--input-data: '/tmp' is a folder; name a file"),  # noqa: S108 (any folder)
    ],
)
def test_an_option_that_is_wrong(options: list[str], words: str) -> None:
    assert words in _refused("measure", "models", *options)


@pytest.mark.parametrize("command", ["run", "measure", "doctor"])
@pytest.mark.parametrize(
    ("repository", "words"),
    [
        ("s3://bucket/models", "copy the models to this machine first: aws s3 sync s3://bucket/models models"),
        ("gs://bucket/models", "gcloud storage rsync --recursive gs://bucket/models models"),
        ("as://account/models", "azcopy copy as://account/models models"),
        ("http://host:8000", "is not a path of this machine; to tune a running Triton, use --url"),
    ],
)
def test_a_repository_that_is_elsewhere(command: str, repository: str, words: str) -> None:
    told = _refused(command, repository)
    assert told.startswith(f"tritontune: MODEL_REPO: {repository} ")
    assert words in told


@FUZZED
@given(content=_mapping(sorted(TuneJob.model_fields), JUNK))
def test_job_files(repository: Path, tmp_path: Path, content: dict[str, Any]) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(_yaml(content))
    _refused("run", repository, "--job", file)


@FUZZED
@given(
    text=st.text(max_size=40) | st.sampled_from([DEEP, "&a [*a]", "a: &a {<<: *a}", "!!python/name:os.system", "? [1]"])
)
def test_files_that_are_no_yaml(repository: Path, tmp_path: Path, text: str) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(text, errors="surrogatepass")
    _refused("run", repository, "--job", file)


_NIGHTLY = st.fixed_dictionaries(
    {},
    optional={
        "jobs": JUNK | st.lists(_mapping([*NightlyJob.model_fields], JUNK), max_size=2),
        "notify": JUNK | st.lists(_mapping([*Notify.model_fields], JUNK), max_size=2),
        **{name: JUNK for name in JobsFile.model_fields if name not in {"jobs", "notify"}},
    },
)


@FUZZED
@given(content=_NIGHTLY | _mapping([*JobsFile.model_fields], JUNK))
def test_nightly_job_files(tmp_path: Path, content: dict[str, Any]) -> None:
    file = tmp_path / "jobs.yaml"
    file.write_text(_yaml(content))
    _refused("nightly", file, "--check")


@FUZZED
@given(content=_mapping([*NightlyJob.model_fields], JUNK))
def test_a_job_of_a_night(repository: Path, tmp_path: Path, content: dict[str, Any]) -> None:
    file = tmp_path / "jobs.yaml"
    whole = {"repository": str(repository), "slo": {"p99": "40ms"}, **content}
    file.write_text(_yaml({"jobs": [whole], "work": str(tmp_path / "work")}))
    done = tritontune("nightly", file, "--check")
    if done.returncode:
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done


_LADDER = st.lists(SCALARS | st.lists(SCALARS, max_size=3), max_size=4) | JUNK
_FIELDS = WORDS | st.sampled_from(
    ["instance_group[*].count", 'parameters["k"].string_value', "dynamic_batching", "input[0].dims"]
)
_PARAMETER = st.fixed_dictionaries(
    {"ladder": _LADDER},
    optional={"field": _FIELDS | JUNK, "when": JUNK, "max_per_cpu": SCALARS, "max_per_gpu": SCALARS},
)


@FUZZED
@given(parameters=st.dictionaries(_FIELDS, _PARAMETER | JUNK, max_size=3) | JUNK, schema=st.just(1) | JUNK)
def test_space_files(parameters: Any, schema: Any) -> None:
    with suppress(UsageError):
        space(_yaml({"schema": schema, "parameters": parameters}))


@FUZZED
@given(content=JUNK | _mapping(["schema", "parameters"], JUNK))
def test_files_that_are_no_space(repository: Path, tmp_path: Path, content: Any) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(_yaml(content))
    _refused("run", repository, "--space", file)


def _options(command: str, *without: str) -> list[tuple[str, bool]]:
    """The options of a command, and whether each has a value."""
    return [
        (max(parameter.opts, key=len), not getattr(parameter, "is_flag", False))
        for parameter in cli.commands[command].params
        if parameter.param_type_name == "option" and parameter.name not in without
    ]


def _arguments(command: str, *without: str) -> st.SearchStrategy[list[str]]:
    one = st.sampled_from(_options(command, *without)).flatmap(
        lambda option: WORDS.map(lambda word: [option[0], word] if option[1] else [option[0]])
    )
    return st.lists(one, min_size=1, max_size=3).map(lambda pairs: [word for pair in pairs for word in pair])


@FUZZED
@given(options=_arguments("run", "out"))
def test_options_of_run(repository: Path, options: list[str]) -> None:
    _refused("run", repository, *options)


@FUZZED
@given(options=_arguments("measure", "csv"))
def test_options_of_measure(tmp_path: Path, options: list[str]) -> None:
    _refused("measure", tmp_path / "nowhere", *options)


@FUZZED
@given(command=st.sampled_from(["export", "estimate", "report"]), data=st.data())
def test_options_of_commands_that_read_a_run(tmp_path: Path, command: str, data: st.DataObject) -> None:
    _refused(command, tmp_path / "nowhere", *data.draw(_arguments(command)))
