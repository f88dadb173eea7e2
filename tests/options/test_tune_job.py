from __future__ import annotations

from pathlib import Path

import pytest

from tuner.core.errors import JobError
from tuner.options.groups import parse_shape
from tuner.options.tune_job import TuneJob


def test_reads_texts_as_people_write_them() -> None:
    job = TuneJob.make({"repository": "repo", "model": "mlp", "budget": "90s", "slo": {"p99": "40ms"}, "trials": "5"})
    assert job.model == ("mlp",)
    assert job.budget == 90.0
    assert job.slo.root == {"p99": 40.0}
    assert job.trials == 5


def test_reads_shapes_in_both_forms() -> None:
    in_text = TuneJob.make({"repository": "repo", "shape": ["TOKENS:1,128", "a:b:3"]})
    assert in_text.shape == {"TOKENS": (1, 128), "a:b": (3,)}
    assert TuneJob.make({"repository": "repo", "shape": {"TOKENS": [1, 128]}}).shape == {"TOKENS": (1, 128)}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"budget": "10x"}, "--budget: '10x' is not a duration; write a number with its unit"),
        ({"budget": "0s"}, "--budget: must be > 0 and <= 8,760h, got '0s'"),
        ({"budegt": "10s"}, "unknown option 'budegt'; did you mean 'budget'?"),
        ({"model": 5}, "--model: must be a name or a list of names, got 5"),
        ({"slo": {"p98": "1ms"}}, "--slo: 'p98' is not a supported percentile"),
        ({"shape": ["A:0"]}, "--shape: 'A:0' is not a shape"),
        ({"shape": ["A:1", "A:2"]}, "--shape: the shape of 'A' is given twice"),
        ({"server": "doker"}, "--server: must be 'auto', 'process', 'docker' or 'remote', got 'doker'"),
        ({"trials": 0}, "--trials: must be >= 1, got 0"),
        ({"trials": "x"}, "--trials: must be a whole number, got 'x'"),
        ({"max_concurrency": 0}, "--max-concurrency: must be >= 1, got 0"),
        ({"minimize": "latency.p99"}, "--minimize latency.p99: needs --rate, the request rate that must be held"),
        ({"rate": 100}, "--rate needs --minimize, such as --minimize latency.p99"),
        ({"minimize": "p99", "rate": 0}, "--rate: must be > 0, got 0"),
        ({"minimize": "p99", "rate": "x"}, "--rate: must be a number, got 'x'"),
        ({"minimize": "latency.p98", "rate": 9}, "--minimize: 'p98' is not a supported percentile; write p50, p90"),
        ({"minimize": "latancy.p99", "rate": 9}, "--minimize: unknown metric 'latancy'; did you mean 'latency'?"),
        ({"minimize": "throughput", "rate": 9}, "--minimize: throughput is maximized: write --maximize throughput"),
        ({"maximize": "throughput", "minimize": "p99", "rate": 9}, "--maximize and --minimize cannot be used together"),
        (
            {"maximize": "latency.p99"},
            "--maximize: must be 'throughput', 'throughput_per_gpu' or '",
        ),
        ({"minimize": "p99", "rate": 9, "max_concurrency": 8}, "--max-concurrency cannot be used with --minimize"),
    ],
)
def test_names_the_option_and_what_would_be_right(options: dict[str, object], complaint: str) -> None:
    with pytest.raises(JobError, match=complaint) as caught:
        TuneJob.make({"repository": "repo", **options})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "objective"),
    [
        ({}, "maximize throughput"),
        ({"maximize": "throughput_per_gpu"}, "maximize throughput per GPU"),
        ({"maximize": "inferences_per_joule"}, "maximize inferences per joule"),
        ({"minimize": "latency.p95", "rate": "500"}, "minimize p95 latency at 500 requests/s"),
        ({"minimize": "p50", "rate": 0.5}, "minimize p50 latency at 0.5 requests/s"),
    ],
)
def test_the_objective(options: dict[str, object], objective: str) -> None:
    assert str(TuneJob.make({"repository": "repo", **options}).objective) == objective


def test_an_objective_in_a_job_file(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("repository: repo\nslo: {latency.p99: 25ms}\nminimize: latency.p99\nrate: 500\n")
    job = TuneJob.read(file)
    assert (job.minimize, job.rate, str(job.slo)) == ("latency.p99", 500.0, "p99 <= 25 ms")


def test_explaining_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("repository: repo\nexplain: true\n")
    assert TuneJob.read(file).explain
    assert not TuneJob.make({"repository": "repo"}).explain
    with pytest.raises(JobError, match="--explain: must be true or false, got 'perhaps'"):
        TuneJob.make({"repository": "repo", "explain": "perhaps"})


def test_a_typo_is_named_before_what_is_then_missing() -> None:
    with pytest.raises(JobError, match="unknown option 'repositry'; did you mean 'repository'"):
        TuneJob.make({"repositry": "repo"})


def test_a_job_file_and_what_wins_over_it(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("repository: repo\nmodel: [a, b]\nslo: {p99: 25ms}\nbudget: 10m\n")
    job = TuneJob.read(file, {"budget": "5s"})
    assert (job.model, job.budget, str(job.slo)) == (("a", "b"), 5.0, "p99 <= 25 ms")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("repository: repo\nbudget: 10x\n", "job.yaml: budget: '10x' is not a duration"),
        ("repository: [repo\n", r"job.yaml:2:1: not valid YAML: expected"),
        ("- a\n", "job.yaml: a job file must be a mapping"),
        ("repository: repo\nbudget: 1m\nbudget: 2m\n", "job.yaml:3:1: budget is given twice"),
        ("model: mlp\n", "job.yaml: nothing to tune: give MODEL_REPO"),
    ],
)
def test_a_wrong_job_file_is_named_with_its_place(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(text)
    with pytest.raises(JobError, match=complaint):
        TuneJob.read(file)


def test_a_job_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="cannot be read: No such file"):
        TuneJob.read(tmp_path / "none.yaml")


def test_a_job_survives_json() -> None:
    job = TuneJob.make({"repository": "repo", "shape": ["A:1,2"], "slo": {"p99": "3ms"}})
    assert TuneJob.model_validate_json(job.model_dump_json()) == job


@pytest.mark.parametrize("text", ["A", "A:", ":1", "A:1,", "A:x", "A:-1", "A:0"])
def test_refuses_what_is_no_shape(text: str) -> None:
    with pytest.raises(ValueError, match="write NAME:D1,D2"):
        parse_shape(text)


@pytest.mark.parametrize(("word", "size"), [("8GiB", 8 << 30), ("800MB", 800_000_000), (123, 123), ("123", 123)])
def test_a_size_is_a_word_or_bytes(tmp_path: Path, word: object, size: int) -> None:
    assert TuneJob.make({"repository": "repo", "max_gpu_memory": word}).max_gpu_memory == size
    file = tmp_path / "job.yaml"
    file.write_text(f"repository: repo\nmax_gpu_memory: {word}\n")
    job = TuneJob.read(file)
    assert job.max_gpu_memory == size
    assert TuneJob.model_validate_json(job.model_dump_json()) == job


@pytest.mark.parametrize(
    ("word", "complaint"),
    [
        ("0", "--max-gpu-memory: must be >= 1 byte"),
        (-1, "--max-gpu-memory: must be > 0, got -1"),
        (1.5, "--max-gpu-memory: must be a whole number, got 1.5"),
    ],
)
def test_what_is_no_size_is_refused(word: object, complaint: str) -> None:
    with pytest.raises(JobError, match=complaint):
        TuneJob.make({"repository": "repo", "max_gpu_memory": word})


@pytest.mark.parametrize(
    ("word", "tolerance"), [("1e-2", 0.01), ("0", 0.0), (0.5, 0.5), (0, 0.0), ("off", None), (None, None)]
)
def test_a_tolerance_is_a_share_or_off(tmp_path: Path, word: object, tolerance: float | None) -> None:
    job = TuneJob.make({"repository": "repo", "output_tolerance": word})
    assert job.output_tolerance == tolerance
    assert TuneJob.model_validate_json(job.model_dump_json()) == job
    if word is not None:
        file = tmp_path / "job.yaml"
        file.write_text(f"repository: repo\noutput_tolerance: {word}\n")
        assert TuneJob.read(file).output_tolerance == tolerance


def test_what_is_for_the_command_line_is_told_so(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("repository: repo\nout: run\n")
    with pytest.raises(JobError, match=r"job.yaml: out is an option of the command line only: --out"):
        TuneJob.read(file)


def test_outputs_are_compared_by_default() -> None:
    assert TuneJob.make({"repository": "repo"}).output_tolerance == 1e-3


def test_a_tolerance_can_be_given_in_percent() -> None:
    assert TuneJob.make({"repository": "repo", "output_tolerance": "0.5%"}).output_tolerance == pytest.approx(0.005)


@pytest.mark.parametrize("word", ["x", "1", "-0.1", "nan", "inf", "100%", "x%", 1, 2.5, True, "on"])
def test_what_is_no_tolerance_is_refused(word: object) -> None:
    with pytest.raises(JobError) as raised:
        TuneJob.make({"repository": "repo", "output_tolerance": word})
    would_be_right = "is not a tolerance; write a share below 1, such as 0.001 or 0.1%, 0 for no difference, or off"
    assert str(raised.value).lower() == f"--output-tolerance: {word!r} {would_be_right}".lower()


def test_verifying_can_be_left_out_of_a_job_file(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("repository: models\nverify: false\n")
    assert TuneJob.make({"repository": "models"}).verify
    assert not TuneJob.read(path).verify
    assert TuneJob.read(path, {"verify": True}).verify
    path.write_text("repository: models\nverify: sometimes\n")
    with pytest.raises(JobError, match=r"job.yaml: verify: must be true or false"):
        TuneJob.read(path)


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("no_verify", "write verify: false"),
        ("no-verify", "write verify: false"),
        ("no_budget", "did you mean 'budget'?"),
    ],
)
def test_a_switch_of_the_command_line_is_a_key_that_is_false(tmp_path: Path, key: str, hint: str) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(f"repository: models\n{key}: true\n")
    with pytest.raises(JobError, match=rf"job.yaml: unknown option '{key}'; {hint}"):
        TuneJob.read(file)


def test_words_of_a_job_file_are_no_booleans(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(
        "repository: models\noutput_tolerance: off\nverify: no\nstring_data: on\n"
        "env: {COUNTRY: no, DEBUG: true, AT: 12:30}\ndocker_arg: {init: true, dns: [off]}\n"
    )
    job = TuneJob.read(path)
    assert (job.output_tolerance, job.verify, job.string_data) == (None, False, "on")
    assert job.env == {"COUNTRY": "no", "DEBUG": "true", "AT": "12:30"}
    assert job.docker_arg == {"init": True, "dns": ["off"]}


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("budget: 90", "budget: 90 has no unit; write 90s or 90m"),
        ("budget: 1.5", "budget: 1.5 has no unit; write 1.5s or 1.5m"),
        ("budget: '90'", "budget: 90 has no unit; write 90s or 90m"),
        ("launch_timeout: 60", "launch_timeout: 60 has no unit; write 60s or 60m"),
        ("slo: {p99: 40}", "slo: 40 has no unit; write 40ms"),
        ("slo: {p99: '40'}", "slo: 40 has no unit; write 40ms"),
        ("slo: [p99=40]", "slo: 40 has no unit; write 40ms"),
    ],
)
def test_a_number_without_a_unit_is_refused(tmp_path: Path, option: str, complaint: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(f"repository: models\n{option}\n")
    with pytest.raises(JobError) as raised:
        TuneJob.read(path)
    assert str(raised.value) == f"{path}: {complaint}"
