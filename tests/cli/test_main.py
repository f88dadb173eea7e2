from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import version

import click
import pytest
from click.testing import CliRunner
from support.command_line import tritontune

from tuner.cli.help import FieldOption, JobCommand
from tuner.cli.main import cli


@pytest.mark.parametrize("command", [[], ["run"], ["measure"], ["export"], ["report"], ["doctor"]])
def test_every_command_explains_itself(command: list[str]) -> None:
    result = CliRunner().invoke(cli, [*command, "--help"])
    assert result.exit_code == 0
    assert result.output.startswith("Usage: ")


def test_the_help_is_shown_where_nothing_is_asked() -> None:
    assert tritontune().stdout == tritontune("--help").stdout


def _help_of(command: click.Command, option: click.Parameter) -> str:
    """What the help of a command says of an option."""
    record = option.get_help_record(click.Context(command))
    return record[1] if record else ""


def _options(command: click.Command) -> list[click.Option]:
    return [parameter for parameter in command.params if isinstance(parameter, click.Option)]


@pytest.mark.parametrize("command", cli.commands.values(), ids=str)
def test_every_option_says_what_it_is_for(command: click.Command) -> None:
    for option in _options(command):
        assert _help_of(command, option).strip("."), option.name


@pytest.mark.parametrize("name", ["run", "measure", "doctor"])
def test_an_option_that_is_a_field_says_what_the_field_says(name: str) -> None:
    command = cli.commands[name]
    assert isinstance(command, JobCommand)
    fields = command.job().model_fields
    of_fields = [option for option in _options(command) if option.name in fields]
    assert of_fields
    shown = " ".join(CliRunner().invoke(cli, [name, "--help"], terminal_width=1000).output.split())
    for option in of_fields:
        description = fields[str(option.name)].description
        assert description, option.name
        assert description in shown, option.name
        assert isinstance(option, FieldOption), f"{option.name}: write no help beside the field's description"


@pytest.mark.parametrize("name", ["run", "measure"])
def test_every_field_is_an_option(name: str) -> None:
    command = cli.commands[name]
    assert isinstance(command, JobCommand)
    assert command.job().model_fields.keys() <= {parameter.name for parameter in command.params}


def test_the_help_tells_defaults_and_what_may_be_repeated() -> None:
    shown = " ".join(CliRunner().invoke(cli, ["run", "--help"]).output.split())
    assert "Number of load-generator processes. Default: 1" in shown
    assert "Inferences in each request. Default: 1." in shown
    assert "verification included. Default: 10m." in shown
    assert "Header of each request. Repeatable." in shown


def test_each_command_is_one_whole_line_of_the_list() -> None:
    shown = CliRunner().invoke(cli, ["--help"], terminal_width=80).output
    commands = shown.partition("Commands:\n")[2].splitlines()
    assert len(commands) == len(cli.commands)
    assert all(line.endswith(".") and not line.endswith("...") for line in commands)


def test_the_list_of_commands_needs_no_pydantic() -> None:
    code = (
        "import sys; from tuner.cli.main import cli; cli.main(['--help'], standalone_mode=False); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Commands:" in done.stdout
    assert not {"pydantic", "numpy", "docker", "yaml"} & set(done.stdout.split())


def test_the_version() -> None:
    assert CliRunner().invoke(cli, ["--version"]).output == f"tritontune {version('tritontune')}\n"


def test_a_wrong_option_is_answered_without_what_only_a_run_needs() -> None:
    code = (
        "import sys; from tuner.cli.run import run; from tuner.core.errors import JobError\n"
        "try: run(None, {'repository': 'models', 'budget': '10x'}, None, resume=False)\n"
        "except JobError: print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pydantic" in done.stdout.split()
    assert not {"docker", "numpy", "optuna", "grpc", "rich"} & set(done.stdout.split())


@pytest.mark.parametrize(
    ("command", "titles"),
    [
        ("run", ["What to tune", "Limits", "Server", "Containers", "Running Triton", "Load", "Search", "Output"]),
        ("measure", ["What to measure", "Load levels", "Limits", "Server", "Containers", "Load", "Output"]),
    ],
)
def test_options_have_headings(command: str, titles: list[str]) -> None:
    shown = CliRunner().invoke(cli, [command, "--help"]).output
    places = [re.search(rf"^{title}( \(--server \w+\))?:$", shown, re.MULTILINE) for title in titles]
    assert all(places)
    starts = [place.start() for place in places if place]
    assert starts == sorted(starts)
    containers = shown[shown.index("Containers (") : shown.index("Running Triton (")]
    assert "--slo" not in containers
    assert all(option in containers for option in ("--image", "--shm-size", "--mount", "--docker-arg"))
    assert shown.rstrip().endswith("Show this message and exit.")


@pytest.mark.parametrize("command", [["report", ".", "--out", ""], ["export", ".", "--to", ""], ["report", ""]])
def test_an_empty_path_is_not_the_current_folder(command: list[str]) -> None:
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 2
    assert "must not be empty" in result.output
