from __future__ import annotations

from importlib.metadata import version

import pytest
from click.testing import CliRunner
from support.command_line import tritontune

from tuner.cli.main import cli


@pytest.mark.parametrize("command", [[], ["run"], ["measure"], ["export"], ["report"], ["doctor"]])
def test_every_command_explains_itself(command: list[str]) -> None:
    result = CliRunner().invoke(cli, [*command, "--help"])
    assert result.exit_code == 0
    assert result.output.startswith("Usage: ")


def test_the_help_is_shown_where_nothing_is_asked() -> None:
    assert tritontune().stdout == tritontune("--help").stdout


def test_every_option_says_what_it_is_for() -> None:
    for command in cli.commands.values():
        for parameter in command.params:
            assert parameter.param_type_name == "argument" or getattr(parameter, "help", None), parameter.name


def test_the_version() -> None:
    assert CliRunner().invoke(cli, ["--version"]).output == f"tritontune {version('tritontune')}\n"


@pytest.mark.parametrize("command", ["run", "measure"])
def test_options_of_containers_have_a_heading(command: str) -> None:
    first, _, containers = CliRunner().invoke(cli, [command, "--help"]).output.partition("Options of containers")
    assert "--slo" in first
    assert "--docker-arg" not in first
    assert all(option in containers for option in ("--image", "--shm-size", "--mount", "--docker-arg"))


@pytest.mark.parametrize("command", [["report", ".", "--out", ""], ["export", ".", "--to", ""], ["report", ""]])
def test_an_empty_path_is_not_the_current_folder(command: list[str]) -> None:
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 2
    assert "is empty; name a path, or leave it out" in result.output
