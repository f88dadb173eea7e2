from __future__ import annotations

from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from tuner.core.errors import JobError
from tuner.service.settings import ServiceSettings, settings_schema


def _read(tmp_path: Path, text: str) -> ServiceSettings:
    file = tmp_path / "service.yaml"
    file.write_text(text)
    return ServiceSettings.read(file)


def test_an_empty_file_has_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = _read(tmp_path, "# nothing\n")
    assert settings == ServiceSettings()
    assert settings.repository_roots == settings.file_roots == (tmp_path.resolve(),)
    assert settings.images == ("nvcr.io/nvidia/tritonserver:*",)
    assert (settings.hosts, settings.mounts, settings.hooks, settings.secrets, settings.docker_args) == ((),) * 5


def test_values_are_read(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "models")
    settings = _read(
        tmp_path,
        f"repositories: [{tmp_path}/link]\nhosts: triton.example.com\nhooks: [[/opt/deploy.sh, --now]]\n"
        "max_body: 64KiB\nsession_idle: 30m\nmounts: [/data, cache]\nnotify: [{file: /var/nights.jsonl}]\n",
    )
    assert settings.repository_roots == settings.file_roots == ((tmp_path / "models").resolve(),)
    assert settings.hosts == ("triton.example.com",)
    assert settings.hooks == (("/opt/deploy.sh", "--now"),)
    assert (settings.max_body, settings.session_idle) == (65536, 1800)
    assert settings.notify[0].file == Path("/var/nights.jsonl")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("repositry: /models", "unknown option 'repositry'; did you mean 'repositories'"),
        ("- repositories", "must be a mapping"),
        ("hosts: [http://x]", "hosts: 'http://x' is not a host; write triton.example.com"),
        ("hosts: {a: 1}", "hosts: must be a name or a list"),
        ("launchers: [podman]", "launchers: must be 'auto'"),
        ("hooks: [/opt/deploy.sh]", "hooks: '/opt/deploy.sh' must be a list of a program and its arguments"),
        ("hooks: [[]]", "hooks: .* must be a list"),
        ("hooks: /opt/deploy.sh", "hooks: must be a list of commands"),
        ("env: ['A=1']", "env: 'A=1' is not the name of an environment variable"),
        ("mounts: [../x]", "mounts: '../x' is neither an absolute path nor the name of a volume"),
        ("max_streams: 0", "max_streams: must be >= 1, got 0"),
        ("session_idle: 30", "session_idle: 30 has no unit"),
        ("notify: [{webhook: ftp://x}]", r"notify\[0\]: webhook: is not a URL"),
        ("notify: [x]", "notify: "),
        ("a: [", "not valid YAML"),
    ],
)
def test_each_fault_is_one_line_with_its_place(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(JobError, match=rf"service\.yaml.*: {reason}") as error:
        _read(tmp_path, text)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="none.yaml: cannot be read"):
        ServiceSettings.read(tmp_path / "none.yaml")


def test_the_schema_accepts_what_is_read_and_describes_each_setting() -> None:
    schema = settings_schema()
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate({"repositories": ["/models"], "hosts": "a", "max_body": "1MiB"})
    assert all(schema["properties"][name].get("description") for name in ServiceSettings.model_fields)
    assert schema["properties"]["max_streams"]["default"] == 500
