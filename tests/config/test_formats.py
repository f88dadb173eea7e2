from __future__ import annotations

import re

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from tuner.config.config import ModelConfig
from tuner.config.formats import config_json, config_map, config_map_name
from tuner.core.errors import ConfigError

# Of a name in Kubernetes: RFC 1123.
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=80))
@example("# a\n\n  b\n")
@example(" begins with a space\n")
@example("\n\n  # leading lines\n")
@example("no newline at the end")
@example("three of them\n\n\n")
@example("tab\there \t \nand\r\ncarriage returns\r\n")
@example("\n\n")
@example("")
def test_a_configmap_holds_every_byte(text: str) -> None:
    assert yaml.safe_load(config_map("mlp", text))["data"]["config.pbtxt"] == text


def test_a_configmap_can_be_read() -> None:
    assert config_map("mlp", "# é\nmax_batch_size: 8\n\ndynamic_batching {\n\tpreserve_ordering: true\n}\n") == (
        "apiVersion: v1\n"
        "kind: ConfigMap\n"
        "metadata:\n"
        "  name: mlp-config\n"
        "  labels:\n"
        "    app.kubernetes.io/managed-by: tritontune\n"
        "  annotations:\n"
        "    tritontune/model: mlp\n"
        "data:\n"
        "  config.pbtxt: |\n"
        "    # é\n"
        "    max_batch_size: 8\n"
        "\n"
        "    dynamic_batching {\n"
        "    \tpreserve_ordering: true\n"
        "    }\n"
    )


@given(st.text(min_size=1, max_size=300))
def test_every_models_name_becomes_one_for_kubernetes(model: str) -> None:
    name = config_map_name(model)
    assert _NAME.fullmatch(name)
    assert len(name) <= 63


def test_names_stay_apart() -> None:
    names = [config_map_name(model) for model in ("mlp", "MLP", "m_lp", "m.lp", "m-lp", "模型", "Модель")]
    assert names[0] == "mlp-config"
    assert names[4] == "m-lp-config"
    assert re.fullmatch(r"m-lp-[0-9a-f]{8}-config", names[2])
    assert re.fullmatch(r"model-[0-9a-f]{8}-config", names[5])
    assert len(set(names)) == len(names)


def test_what_is_too_large_for_a_configmap() -> None:
    with pytest.raises(ConfigError, match=r"^mlp: config of 1,048,577 bytes is too large"):
        config_map("mlp", "#" * (2**20 + 1))


def test_json_keeps_the_names_of_the_fields() -> None:
    text = "max_batch_size: 8\ndynamic_batching { max_queue_delay_microseconds: 100 }\n"
    assert config_json(ModelConfig.parse(text, "x")) == (
        '{\n  "max_batch_size": 8,\n  "dynamic_batching": {\n    "max_queue_delay_microseconds": "100"\n  }\n}\n'
    )


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("max_batch_size: 8 fresh: 1", "fresh"),
        ("dynamic_batching { fresh { a: 1 } }", "dynamic_batching.fresh"),
        (
            "instance_group [ { kind: KIND_NEW }, { count: 1 fresh: [ 1 ] } ]",
            "instance_group.kind, instance_group.fresh",
        ),
    ],
)
def test_json_refuses_what_it_would_lose(text: str, unknown: str) -> None:
    with pytest.raises(ConfigError) as raised:
        config_json(ModelConfig.parse(text, "x"))
    assert str(raised.value).startswith(f"x: {unknown}: unknown field, which JSON would lose")
