"""Laws that hold for any config, in any handwriting, and any edit."""

from __future__ import annotations

import contextlib
import random
import re
from typing import Any

import pytest
from google.protobuf import text_format
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from support.random_configs import Handwriting, all_paths, random_config, random_edit
from tritonclient.grpc import model_config_pb2

from tuner.config.config import EMPTY, ModelConfig, Value
from tuner.core.errors import ConfigError

_MARK = re.compile(r"#c\d+;|stranger_\d+")
_PLACED = re.compile(r"f:[1-9][0-9]*:[1-9][0-9]*: \S[^\n]*|f: Value out of range: \d+")

randomly = st.randoms(use_true_random=True)
some = settings(suppress_health_check=[HealthCheck.filter_too_much])


def written(rng: random.Random, *, strangers: bool = True) -> tuple[model_config_pb2.ModelConfig, ModelConfig]:
    proto = random_config(rng)
    return proto, ModelConfig.parse(Handwriting(rng, strangers).written(proto), "f")


def edit(config: ModelConfig, path: str, value: Value | None) -> ModelConfig:
    """Edit it, unless the change contradicts what the config holds."""
    try:
        return config.edited({path: value})
    except ConfigError as error:
        assume("another member of oneof" not in str(error))
        raise


def read_or_error(text: str) -> ModelConfig | str:
    try:
        return ModelConfig.parse(text, "f")
    except ConfigError as error:
        return str(error)


def canonical(proto: model_config_pb2.ModelConfig) -> bytes:
    content: bytes = proto.SerializeToString(deterministic=True)
    return content


@given(randomly)
@some
def test_every_handwriting_means_what_was_written(rng: random.Random) -> None:
    proto, config = written(rng)
    assert canonical(config.proto) == canonical(proto)


@given(randomly)
@some
def test_values_are_those_of_the_proto(rng: random.Random) -> None:
    proto, config = written(rng)
    for path, value in all_paths(proto):
        wanted = (EMPTY,) if value is None else value if isinstance(value, tuple) else (value,)
        assert config.values(path) == wanted


@given(randomly)
@some
def test_setting_all_values_as_they_are_changes_no_byte(rng: random.Random) -> None:
    proto, config = written(rng)
    paths = list(all_paths(proto))
    few = rng.sample(paths, min(len(paths), 20))
    assert config.edited({path: EMPTY if value is None else value for path, value in few}).text == config.text


@given(randomly)
@some
def test_an_edit_reads_back_and_leaves_the_rest_alone(rng: random.Random) -> None:
    proto, config = written(rng)
    path, value = random_edit(rng, proto)
    after = edit(config, path, value)
    found = after.values(path)
    assert set(found) == {EMPTY} if value is EMPTY else _repeats(found, value)
    assert after.edited({path: value}).text == after.text
    assert _others(after.proto, path) == _others(proto, path)
    if not isinstance(value, str | tuple):  # within lists and between string literals comments may stand
        assert _MARK.findall(after.text) == _MARK.findall(config.text)


@given(randomly)
@some
def test_a_removed_field_is_gone_and_the_rest_is_there(rng: random.Random) -> None:
    proto, config = written(rng)
    paths = [path for path, _ in all_paths(proto)]
    assume(paths)
    path = rng.choice(paths)
    after = config.edited({path: None})
    if path[-1] != "]" or path[-2] in "\"'":  # behind a removed element others move up
        assert after.values(path) == ()
    assert _others(after.proto, path) == _others(proto, path)
    before = iter(config.text)
    assert all(char in before for char in after.text), "characters only go, none comes"


@given(randomly)
@some
def test_a_set_field_changes_only_its_value_and_a_new_one_only_adds(rng: random.Random) -> None:
    proto, config = written(rng)
    assume(proto.HasField("dynamic_batching"))
    after = config.edited({"dynamic_batching.priority_levels": 987654321})
    if config.holds("dynamic_batching.priority_levels"):
        before, behind = after.text.split("987654321", 1)
        assert config.text.startswith(before)
        assert config.text.endswith(behind)
    else:
        new = iter(after.text)
        assert all(char in new for char in config.text if not char.isspace())


@given(randomly, st.text("{}<>[]:;,\"'\\#\n a0-.x", min_size=1, max_size=3))
@settings(some, max_examples=3 * settings().max_examples)
def test_a_damaged_text_is_read_as_protobuf_does_or_has_an_error_with_its_place(
    rng: random.Random, damage: str
) -> None:
    _, config = written(rng, strangers=False)
    assume(config.text.strip() and not re.search(r"\\[uU]0*5[cC]", config.text))  # of which Python makes two escapes
    place = rng.randrange(len(config.text))
    damaged = config.text[:place] + damage + config.text[place + rng.randint(0, 2) :]
    expected = None
    with contextlib.suppress(text_format.ParseError, ValueError, DeprecationWarning):
        expected = text_format.Parse(damaged, model_config_pb2.ModelConfig())
    found = read_or_error(damaged)
    if isinstance(found, ModelConfig):
        assert expected is None or canonical(found.proto) == canonical(expected)
    else:
        assert _PLACED.fullmatch(found)
        assert expected is None


@pytest.mark.parametrize("junk", ["\x00", "\ud800", "\r", "\u2028", "\x85", "\x1c", "é", "💥"])
def test_any_character_is_read_or_has_an_error(junk: str) -> None:
    for text in (f"name: 'x' {junk}", f"name: 'x' # {junk}\n", f"name: 'x{junk}'", f"{junk}name: 'x'"):
        found = read_or_error(text)
        assert isinstance(found, ModelConfig) or _PLACED.fullmatch(found)


def _repeats(found: tuple[Any, ...], value: Value) -> bool:
    """Whether `found` is the value, once for each of the messages that the path leads to."""
    wanted = value if isinstance(value, tuple) else (value,)
    return len(found) > 0 and found == wanted * (len(found) // len(wanted))


def _others(proto: model_config_pb2.ModelConfig, path: str) -> bytes:
    """All but the top-level field that a path begins with."""
    rest = model_config_pb2.ModelConfig()
    rest.CopyFrom(proto)
    rest.ClearField(re.split(r"[.\[]", path)[0])
    return canonical(rest)
