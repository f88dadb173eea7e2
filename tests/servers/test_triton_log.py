from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.core.errors import Cause
from tuner.servers.triton_log import Reason, find_reason, gave_up, last_words, port_taken, read_log, tells_of_memory

LOADED = """\
I1122 14:38:06.655862 10507 model_lifecycle.cc:472] "loading: mlp:1"
I1122 14:38:08.519766 10507 model_lifecycle.cc:839] "successfully loaded 'mlp'"
+-------+---------+--------+
| Model | Version | Status |
+-------+---------+--------+
| mlp   | 1       | READY  |
+-------+---------+--------+

I1122 14:38:08.555797 10507 grpc_server.cc:2558] "Started GRPCInferenceService at 127.0.0.1:18101"
"""

TRACEBACK = r"ValueError: no such\nweights\n\nAt:\n  /repo/mlp/1/model.py(3): initialize\n"
RAISES = f"""
I1122 14:41:21.353956 18564 pb_stub.cc:366] "Failed to initialize Python stub: {TRACEBACK}"
E1122 14:41:21.581533 18564 model_lifecycle.cc:642] "failed to load 'mlp' version 1: Internal: {TRACEBACK}"
I1122 14:41:21.582949 18564 server.cc:305] "Waiting for in-flight requests to complete."
"""

# Before 2.45, messages were written as they are.
OLD_RAISES = """
E0101 10:00:00.000000 1 model_lifecycle.cc:621] failed to load 'mlp' version 1: Internal: ValueError: no such weights

At:
  /models/mlp/1/model.py(3): initialize
"""

PREFERRED = "dynamic batching preferred size must be <= max batch size for mlp"
POLL_FAILED = f"""E1122 1 model_repository_manager.cc:1460] "Poll failed for model directory 'mlp': {PREFERRED}\""""

UNKNOWN_FIELD = 'Message type "inference.ModelConfig" has no field named "max_bach_size".'
SYNTAX = f"""
[libprotobuf ERROR text_format.cc:337] Error parsing text-format inference.ModelConfig: 6:14: {UNKNOWN_FIELD}
E1122 1 model_repository_manager.cc:1460] "Poll failed for model directory 'mlp': failed to read text proto from /mlp"
"""


def load_failed(text: str) -> str:
    return f"""E1122 1 model_lifecycle.cc:642] "failed to load 'mlp' version 2: Internal: {text}"\n"""


@pytest.mark.parametrize(
    ("text", "words", "cause"),
    [
        (RAISES, "ValueError: no such weights", Cause.INVALID_CONFIG),
        (OLD_RAISES, "ValueError: no such weights", Cause.INVALID_CONFIG),
        (POLL_FAILED, PREFERRED, Cause.INVALID_CONFIG),
        (SYNTAX, f"config.pbtxt:6:14: {UNKNOWN_FIELD}", Cause.INVALID_CONFIG),
        (
            "E1122 1 manager.cc:1415] \"failed to poll model 'absent': model not found in any model repository.\"",
            "model not found in any model repository.",
            Cause.INVALID_CONFIG,
        ),
        (
            load_failed("Stub process 'x_0_1' is not healthy."),
            "Stub process 'x_0_1' is not healthy.",
            Cause.CRASHED,
        ),
        (load_failed("MemoryError: <EMPTY MESSAGE>"), "MemoryError", Cause.OUT_OF_MEMORY),
        (
            load_failed("onnx runtime error 6: Failed to allocate memory for requested buffer of size 512"),
            "onnx runtime error 6: Failed to allocate memory for requested buffer of size 512",
            Cause.OUT_OF_MEMORY,
        ),
        (
            load_failed("OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB"),
            "OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB",
            Cause.OUT_OF_MEMORY,
        ),
        (
            "I1122 pb_stub.cc:2105]  Failed to preinitialize Python stub: Python model file not found in '/model.py'\n",
            "Python model file not found in '/model.py'",
            Cause.INVALID_CONFIG,
        ),
        (
            "terminate called after throwing an instance of 'std::bad_alloc'",
            "terminate called after throwing an instance of 'std::bad_alloc'",
            Cause.OUT_OF_MEMORY,
        ),
        (
            "error: creating server: Internal - failed to load all models",
            "failed to load all models",
            Cause.INVALID_CONFIG,
        ),
    ],
)
def test_finds_the_reason(text: str, words: str, cause: Cause) -> None:
    assert find_reason(LOADED + text) == Reason(words, cause)


def test_the_root_of_an_ensembles_failure_comes_first() -> None:
    text = (
        "E \"failed to load 'step' version 1: Internal: ValueError: bad weights\"\n"
        "error: creating server: Invalid argument - load failed for model 'ensemble': ensemble 'ensemble' depends on "
        "'step' which has no loaded version;"
    )
    assert find_reason(text) == Reason("ValueError: bad weights", Cause.INVALID_CONFIG)


def test_there_is_no_reason_where_all_went_well() -> None:
    assert find_reason(LOADED) is None
    assert not gave_up(LOADED)
    assert not port_taken(LOADED)
    assert not tells_of_memory(LOADED)


@given(st.text())
def test_a_reason_is_one_line_whatever_triton_writes(text: str) -> None:
    reason = find_reason(f"E x.cc:1] \"failed to load 'm' version 1: Internal: {text}")
    assert reason is not None
    assert len(reason.text.splitlines()) <= 1


def test_knows_when_triton_gives_up() -> None:
    assert gave_up(RAISES)
    assert gave_up("Failed to preinitialize Python stub: Python model file not found in '/x'\n")
    assert not gave_up("Failed to preinitialize Python stub: Python mod")  # the line is still being written


def test_knows_a_taken_port() -> None:
    assert port_taken("failed to start GRPC service: Unavailable - Socket '127.0.0.1:8001' already in use ")


def test_last_words_hold_neither_tables_nor_empty_lines() -> None:
    words = last_words(LOADED).splitlines()
    assert len(words) == 3
    assert words[-1].endswith('"Started GRPCInferenceService at 127.0.0.1:18101"')


def test_last_words_are_few() -> None:
    assert last_words("\n".join(map(str, range(1000)))).splitlines() == [str(number) for number in range(970, 1000)]


def test_a_huge_log_is_read_from_its_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("x" * (3 << 20) + "\nthe end", encoding="utf-8")
    assert read_log(log).endswith("\nthe end")
    assert len(read_log(log)) <= 1 << 20


def test_a_log_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert read_log(tmp_path / "log") == ""


def test_a_backend_that_is_missing_is_told_with_the_argument_that_names_it() -> None:
    words = "unable to find backend library for backend 'mine', try specifying runtime on the model configuration."
    reason = find_reason(load_failed(words))
    assert reason
    assert reason.text == (
        "unable to find backend library for backend 'mine'; "
        "set the backend folder by --triton-arg=--backend-directory=DIR"
    )
