"""Triton reads configs with protobuf's C++ parser: ours must take what that takes, and write what that reads."""

from __future__ import annotations

import contextlib
import os
import random
import re
import subprocess
from pathlib import Path

import pytest
from support.random_configs import Handwriting, random_config, random_edit

from tuner.config.config import ModelConfig
from tuner.core.errors import ConfigError
from tuner.servers.installation import TritonInstallation

pytestmark = pytest.mark.triton

READ_BY_BOTH = {
    "empty": "",
    "hexadecimal": "max_batch_size: 0x2",
    "octal": "max_batch_size: 02",
    "minus_apart": "max_batch_size: - # minus\n 5",
    "boolean_number": "dynamic_batching { preserve_ordering: 0x1 }",
    "boolean_letter": "dynamic_batching { preserve_ordering: t }",
    "float_suffix": "sequence_batching { direct { minimum_slot_utilization: 1.F } }",
    "float_word": "sequence_batching { direct { minimum_slot_utilization: -Infinity } }",
    "enum_number": "instance_group { kind: 0x2 }",
    "enum_number_unknown": "instance_group { kind: 77 }",
    "question_mark": r"backend: 'a\?b'",
    "surrogates": r"backend: '\ud83d\ude00'",
    "adjacent": "backend: 'a' \"b\" # c\n 'c'",
    "angles": "parameters < key: 'a', value: < string_value: 'x'; >; >",
    "list": "parameters [ { key: 'a' }, < > ]",
    "empty_list": "parameters []",
    "empty_list_with_colon": "parameters: []",
    "form_feed": "dynamic_batching {\f\v\r }",
    "zero_first": "version_policy { latest { num_versions: 0 num_versions: 1 } }",
}
READ_BY_NEITHER = {
    "missing_colon": "max_batch_size 2",
    "plus": "max_batch_size: +2",
    "underscore": "max_batch_size: 1_0",
    "bad_octal": "max_batch_size: 08",
    "stuck_together": "max_batch_size: 1backend: 'x'",
    "trailing_comma": "instance_group { gpus: [ 1, ] }",
    "semicolons": "instance_group { gpus: [ 1; 2 ] }",
    "nested_list": "instance_group { gpus: [[1]] }",
    "list_without_colon": "instance_group { gpus [1] }",
    "two_separators": "dynamic_batching { },,",
    "bad_escape": r"backend: '\d'",
    "open_string": "backend: 'a\n'",
    "open_message": "dynamic_batching {",
    "wrong_close": "dynamic_batching { >",
    "byte_order_mark": "\ufeffmax_batch_size: 2",
    "no_break_space": "dynamic_batching {\u00a0}",
    "slashes": "// max_batch_size: 2",
    "twice": "max_batch_size: 2 max_batch_size: 2",
    "two_schedulers": "dynamic_batching { } sequence_batching { }",
    "wrong_type": "max_batch_size: '2'",
    "number_out_of_range": "max_batch_size: 2147483648",
}


def unreadable(triton: TritonInstallation, folder: Path, texts: dict[str, str]) -> dict[str, str]:
    """The texts that Triton cannot read, each with the first thing that its parser says. No model has a backend.

    Args:
        triton: To start.
        folder: An empty one to work in.
        texts: By a name.
    """
    repository, home = folder / "repository", folder / "home"
    for name, text in texts.items():
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "config.pbtxt").write_bytes(text.encode())
    home.mkdir()
    preparation = triton.prepare(home)
    run = subprocess.run(
        [
            str(triton.binary),
            f"--model-repository={repository}",
            "--disable-auto-complete-config",
            *("--allow-http=false", "--allow-grpc=false", "--allow-metrics=false"),
            *preparation.arguments,
        ],
        env={**os.environ, **preparation.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        check=False,
    )
    log = run.stdout.decode(errors="replace")
    assert "failed to load all models" in log
    reasons: dict[str, str] = {}
    said: list[str] = []
    for line in log.splitlines():
        if reason := re.search(r"Error parsing text-format inference\.ModelConfig: (.*)", line):
            said.append(reason[1])
        if model := re.search(r"Poll failed for model directory '(\w+)': failed to read text proto", line):
            reasons[model[1]] = said[0]
            said = []
    return reasons


def read_by_us(text: str) -> bool:
    with contextlib.suppress(ConfigError):
        ModelConfig.parse(text, "f")
        return True
    return False


def test_both_read_the_same(triton_installation: TritonInstallation, tmp_path: Path) -> None:
    texts = READ_BY_BOTH | READ_BY_NEITHER
    assert set(unreadable(triton_installation, tmp_path, texts)) == set(READ_BY_NEITHER)
    assert {name for name, text in texts.items() if not read_by_us(text)} == set(READ_BY_NEITHER)


def test_triton_reads_what_we_edit(triton_installation: TritonInstallation, tmp_path: Path) -> None:
    rng = random.Random(7)  # noqa: S311 (handwriting is no secret)
    texts = {}
    for number in range(60):
        proto = random_config(rng)
        proto.ClearField("model_metrics")  # for which the wheel's Triton is too old
        config = ModelConfig.parse(Handwriting(rng, strangers=False).written(proto), "f")
        for _ in range(5):
            with contextlib.suppress(ConfigError):  # two schedulers, a map without entries
                config = config.edited(dict([random_edit(rng, proto)]))
        texts[f"model_{number}"] = config.text
    # Behind an error at the end, nothing is loaded that would make a server fall over.
    reasons = unreadable(triton_installation, tmp_path, {name: f"{text}\n?" for name, text in texts.items()})
    ends = {name: f"{text.count(chr(10)) + 2}:1: " for name, text in texts.items()}
    early = {name: reason for name, reason in reasons.items() if not reason.startswith(ends[name])}
    assert set(reasons) == set(texts)
    assert [reason for reason in early.values() if "has no field named" not in reason] == []
    assert len(early) < len(texts) / 2
