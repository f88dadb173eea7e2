from __future__ import annotations

from pathlib import Path

import pytest
from tritonclient.grpc import model_config_pb2

from tuner.config.config import EMPTY, ModelConfig
from tuner.core.errors import ConfigError

SAMPLE = """\
name: "mlp"
max_batch_size: 0x10
input [ { name: "X" data_type: TYPE_FP32 dims: [ 3, -1 ] }, { name: "M" data_type: 6 dims: 4 dims: [ 5 ] } ]
dynamic_batching { preserve_ordering: t }
instance_group { count: 1 kind: KIND_CPU }
instance_group [ { count: 2 gpus: [ 0, 1 ] } ]
parameters { key: "a.b[0]" value { string_value: "x" } }
parameters: [ { value: { string_value: 'y' } key: 'c"' } ]
metric_tags { key: "team" value: "a" 'b' }
new_thing { level: HIGH share: 0.5 on: true names: [ "A", B ] inner { deep: 1 } inner { deep: 2 } }
"""


def config(text: str) -> ModelConfig:
    return ModelConfig.parse(text, "repo/mlp/config.pbtxt")


def test_it_reads_a_file_byte_for_byte(tmp_path: Path) -> None:
    path = tmp_path / "config.pbtxt"
    path.write_bytes("# é\r\nname: 'x'".encode())
    read = ModelConfig.read(path)
    assert read.text == "# é\r\nname: 'x'"
    assert read.source == str(path)
    assert read.proto.name == "x"


def test_it_reads_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("max_batch_size: 2")
    (tmp_path / "config.pbtxt").symlink_to("real")
    assert ModelConfig.read(tmp_path / "config.pbtxt").proto.max_batch_size == 2


def test_an_empty_text_is_a_config() -> None:
    assert config("").proto == model_config_pb2.ModelConfig()


def test_it_is_a_value() -> None:
    assert config("name: 'x'") == config("name: 'x'")
    assert len({config("name: 'x'"), config("name: 'x'"), config("name: 'y'")}) == 2


def test_its_proto_is_a_copy() -> None:
    original = config("max_batch_size: 2")
    original.proto.max_batch_size = 3
    assert original.proto.max_batch_size == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name: 'caf\xe9'", ":1:11: byte 0xe9 is not UTF-8; save the file as UTF-8"),
        (b"# \xc3\xa9\nname: \xc3", ":2:7: byte 0xc3 is not UTF-8; save the file as UTF-8"),
        (b"name: 'x'\nmax_batch_size 8\n", ":2:16: expected ':' or '{' after 'max_batch_size', found '8'"),
    ],
)
def test_a_file_that_is_no_config_is_an_error_with_its_place(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "config.pbtxt"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as raised:
        ModelConfig.read(path)
    assert str(raised.value) == f"{path}{message}"


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing: cannot be read: No such file or directory$"):
        ModelConfig.read(tmp_path / "missing")
    with pytest.raises(ConfigError, match=r"cannot be read: Is a directory$"):
        ModelConfig.read(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ConfigError, match=r"loop: cannot be read: Too many levels"):
        ModelConfig.read(tmp_path / "loop")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_batch_size: 'x'", "1:17: Couldn't parse integer: 'x'"),
        ("\n  name: mlp", "2:9: Expected string but found: 'mlp'"),
        ("name: 'a'\nname: 'b'", '2:7: Message type "inference.ModelConfig" should not have multiple "name" fields'),
        ("dynamic_batching: 3", '1:19: Expected "{"'),
        ("max_batch_size: 99999999999", "1:17: Value out of range: 99999999999"),
        ("stranger: 'é' max_batch_size: x", "1:31: Couldn't parse integer: x"),
        (r"name: '\?' max_batch_size: x", "1:28: Couldn't parse integer: x"),
        (r"backend: 'x' name: '\377'", "1:20: the string is not UTF-8"),
    ],
)
def test_a_field_with_a_wrong_value_is_an_error_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        config(text)
    assert str(raised.value) == f"repo/mlp/config.pbtxt:{message}"


def test_two_schedulers_are_an_error() -> None:
    with pytest.raises(ConfigError, match=r':2:1: Field "sequence_batching" is specified along with field "dynamic_'):
        config("dynamic_batching { }\nsequence_batching { }")


def test_a_number_that_no_enum_can_have_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"^repo/mlp/config.pbtxt: Value out of range: 99999999999$"):
        config("instance_group { kind: 99999999999 }")


@pytest.mark.parametrize(
    "stranger",
    [
        "new_field: 1",
        "new_field: -inf,",
        "new_field: - inf",
        "new_field: NEW_VALUE;",
        "new_field { a < b: [ 1, { } ] > }",
        "new_field: [ { a: 1 }, < > ]",
        "[some.extension]: 1",
        "[type.googleapis.com/some.Thing] { a: 1 }",
        "123: 'x'",
        "instance_group { new_field: 1 }",
        "instance_group { kind: KIND_NEW }",
        "input { name: 'X' dims: 1 data_type: TYPE_NEW }",
    ],
)
def test_what_only_a_newer_triton_knows_is_no_error_and_survives(stranger: str) -> None:
    newer = config(f"name: 'x'\n{stranger}\nmax_batch_size: 8\n")
    assert (newer.proto.name, newer.proto.max_batch_size) == ("x", 8)
    assert newer.edited({"max_batch_size": 16, "dynamic_batching": EMPTY}).text == (
        f"name: 'x'\n{stranger}\nmax_batch_size: 16\ndynamic_batching {{ }}\n"
    )


def test_what_a_newer_triton_knows_is_left_out_of_the_proto_alone() -> None:
    newer = config("instance_group { kind: KIND_NEW count: 2 } input { name: 'X' odd: 1 dims: 4 }").proto
    assert newer.instance_group[0].count == 2
    assert newer.input[0].name == "X"
    assert list(newer.input[0].dims) == [4]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"name: 'a\?'", "a?"),
        (r"name: '\ud83d\ude00'", "😀"),
        (r"name: 'x\u005cn'", r"x\n"),
        (r"name: 'a' # \ " + "\n" + r"'\?'", "a?"),
    ],
)
def test_spellings_that_only_triton_reads_are_read(text: str, expected: str) -> None:
    assert config(text).proto.name == expected


def test_numbers_that_only_triton_reads_are_read() -> None:
    spelled = "dynamic_batching { preserve_ordering: 0x1 } version_policy { specific { versions: - # minus\n 5 } }"
    assert config(spelled).proto.dynamic_batching.preserve_ordering
    assert list(config(spelled).proto.version_policy.specific.versions) == [-5]


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("max_batch_size", (16,)),
        ("backend", ()),
        ("dynamic_batching", (EMPTY,)),
        ("dynamic_batching.preserve_ordering", (True,)),
        ("dynamic_batching.default_queue_policy.max_queue_size", ()),
        ("sequence_batching", ()),
        ("input", (EMPTY, EMPTY)),
        ("input[*].name", ("X", "M")),
        ("input[1].dims", (4, 5)),
        ("input[*].dims", (3, -1, 4, 5)),
        ("input[*].data_type", ("TYPE_FP32", "TYPE_INT8")),
        ("input[2].dims", ()),
        ("instance_group[*].count", (1, 2)),
        ("instance_group[1].count", (2,)),
        ("instance_group[*].gpus", (0, 1)),
        ('parameters["a.b[0]"].string_value', ("x",)),
        (r'parameters["c\""].string_value', ("y",)),
        ("parameters['c\"'].string_value", ("y",)),
        ("parameters[*].string_value", ("x", "y")),
        ("parameters", (EMPTY, EMPTY)),
        ('parameters["a.b[0]"]', (EMPTY,)),
        ('parameters["missing"].string_value', ()),
        ('metric_tags["team"]', ("ab",)),
        ("new_thing.level", ("HIGH",)),
        ("new_thing.share", (0.5,)),
        ("new_thing.on", (True,)),
        ("new_thing.names", ("A", "B")),
        ("new_thing.names[1]", ("B",)),
        ("new_thing.inner[1].deep", (2,)),
        ("new_thing.missing", ()),
    ],
)
def test_values_are_those_of_the_text(path: str, values: tuple[object, ...]) -> None:
    sample = config(SAMPLE)
    found = sample.values(path)
    assert found == values
    assert [type(value) for value in found] == [type(value) for value in values]
    assert sample.holds(path) == bool(values)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("max_batch_sise", "max_batch_sise: ModelConfig has no field 'max_batch_sise'; did you mean 'max_batch_size'?"),
        (
            "dynamic_batching.max_delay",
            "has no field 'max_delay' (available: default_priority_level, default_queue_policy",
        ),
        ("dynamic_batching.queue_delay_microseconds", "did you mean 'max_queue_delay_microseconds'?"),
        ("model_transaction_policy.x", "ModelTransactionPolicy has no field 'x' (available: decoupled"),
        ("instance_group.count", "instance_group is a list; write instance_group[*] or instance_group[0]"),
        ("max_batch_size[0]", "max_batch_size[0]: max_batch_size is not a list"),
        ("max_batch_size.x", "max_batch_size.x: max_batch_size is not a message"),
        ("dynamic_batching[*].preserve_ordering", "dynamic_batching is not a list"),
        ("dynamic_batching.preferred_batch_size[0]", "preferred_batch_size is a list that is set as a whole"),
        ('instance_group["x"].count', "instance_group is not a map"),
        ("parameters.string_value", 'parameters is a map; write parameters["KEY"]'),
        ("parameters[0].string_value", 'parameters is a map; write parameters["KEY"]'),
        (
            'dynamic_batching.priority_queue_policy["1"].max_queue_size',
            "priority_queue_policy is a map; write priority_queue_policy[1]",
        ),
        (r'parameters["\d"].string_value', r"invalid escape sequence \d"),
        (r'parameters["\377"].string_value', r'invalid key "\377": '),
        ("parameters['\udcff'].string_value", "invalid key '\udcff': "),
        (
            "dynamic_batching.priority_queue_policy[18446744073709551616].max_queue_size",
            "must be a whole number from 0 to 18446744073709551615, got 18446744073709551616",
        ),
        ("metric_tags['x'].y", "metric_tags is not a message"),
        ("", "invalid field path ''; write it as a.b, a[*].b, a[0].b or a[\"key\"].b"),
        ("a.", "invalid field path 'a.'"),
        (".a", "invalid field path '.a'"),
        ("a..b", "invalid field path 'a..b'"),
        ("a b", "invalid field path 'a b'"),
        ("input[-1].name", "invalid field path 'input[-1].name'"),
        ("input[].name", "invalid field path 'input[].name'"),
        ("input[0]name", "invalid field path 'input[0]name'"),
        ("name\n", r"invalid field path 'name\n'"),
    ],
)
def test_a_path_to_nowhere_is_an_error_that_says_what_is_right(path: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        config(SAMPLE).values(path)
    assert message in str(raised.value)
    with pytest.raises(ConfigError) as raised:
        config(SAMPLE).edited({path: 1})
    assert message in str(raised.value)


def test_a_config_that_the_server_completed_becomes_a_clean_text() -> None:
    proto = model_config_pb2.ModelConfig(name="mlp", max_batch_size=4, dynamic_batching={})
    proto.instance_group.add(name="mlp_0", count=2, kind="KIND_GPU", gpus=[0, 1])
    proto.parameters["größe"].string_value = "ä\n"
    written = ModelConfig.from_proto(proto)
    assert written.proto == proto
    assert written.source == "mlp (as the server completed it)"
    assert written.text == (
        'name: "mlp"\nmax_batch_size: 4\n'
        'instance_group {\n  name: "mlp_0"\n  count: 2\n  gpus: [0, 1]\n  kind: KIND_GPU\n}\n'
        "dynamic_batching {\n}\n"
        'parameters {\n  key: "größe"\n  value {\n    string_value: "ä\\n"\n  }\n}\n'
    )


def test_fields_that_only_the_server_knows_are_left_out_of_its_text() -> None:
    newer = model_config_pb2.ModelConfig(name="mlp").SerializeToString() + b"\xf8\x3f\x01"  # field 1023 is 1
    proto = model_config_pb2.ModelConfig.FromString(newer)
    assert ModelConfig.from_proto(proto).text == 'name: "mlp"\n'
