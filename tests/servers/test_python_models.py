from __future__ import annotations

from pathlib import Path

import pytest

from tuner.servers.python_models import is_complete, may_define
from tuner.testing.repositories import ModelRepositoryFactory, config_text

PLAIN = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return []
"""


@pytest.mark.parametrize(
    ("code", "may"),
    [
        (PLAIN, False),
        (PLAIN + "    def finalize(self): ...\n", True),
        (PLAIN + "TritonPythonModel.finalize = print\n", True),
        (PLAIN + "setattr(TritonPythonModel, 'finalize', print)\n", True),
        (PLAIN.replace("TritonPythonModel:", "TritonPythonModel(Base):"), True),
        (PLAIN.replace("TritonPythonModel:", "TritonPythonModel(metaclass=Meta):"), True),
        (PLAIN.replace("class", "@decorated\nclass"), True),
        ("from elsewhere import TritonPythonModel\n", True),
        (PLAIN + PLAIN, True),
        ("class TritonPythonModel:\n  this is no Python\n", True),
        ("\0", True),
        pytest.param("-" * 100_000 + "1", True, id="nested too deeply"),
        pytest.param("x" + ".a" * 100_000, True, id="chained too deeply"),
        (PLAIN + "# not finalized\n", False),
    ],
)
def test_may_define_is_false_only_when_certain(tmp_path: Path, code: str, *, may: bool) -> None:
    file = tmp_path / "model.py"
    file.write_text(code, encoding="utf-8")
    assert may_define(file, "finalize") is may


def test_a_model_in_another_encoding_may_define_anything(tmp_path: Path) -> None:
    file = tmp_path / "model.py"
    file.write_bytes(PLAIN.encode() + b"# \xff\n")
    assert may_define(file, "finalize")


def test_a_file_that_is_not_there_may_define_anything(tmp_path: Path) -> None:
    assert may_define(tmp_path / "model.py", "finalize")


def test_a_config_that_says_all_is_complete(model_repository: ModelRepositoryFactory) -> None:
    assert is_complete(model_repository.path / model_repository.add("identity"))


def test_no_batching_can_be_said_too(model_repository: ModelRepositoryFactory) -> None:
    assert is_complete(model_repository.path / model_repository.add("identity", config=config_text(max_batch_size=0)))


def test_fields_that_are_unknown_here_do_not_matter(model_repository: ModelRepositoryFactory) -> None:
    config = config_text(more="a_field_of_tomorrow { x: 1 }")
    assert is_complete(model_repository.path / model_repository.add("identity", config=config))


@pytest.mark.parametrize(
    "config",
    [
        "",
        "max_batch_size: {",
        config_text().replace('backend: "python"', ""),
        config_text().replace('backend: "python"', 'backend: "onnxruntime"'),
        config_text().replace("max_batch_size: 8", ""),
        config_text().replace("dims: [ 4 ]", "", 1),
        config_text().replace("data_type: TYPE_FP32", "", 1),
        config_text().replace('output [ { name: "OUT" data_type: TYPE_FP32 dims: [ 4 ] } ]', ""),
        config_text().replace('input [ { name: "IN" data_type: TYPE_FP32 dims: [ 4 ] } ]', ""),
    ],
)
def test_a_config_that_leaves_something_out_is_not(model_repository: ModelRepositoryFactory, config: str) -> None:
    assert not is_complete(model_repository.path / model_repository.add("identity", config=config))


def test_a_model_that_completes_itself_is_not(model_repository: ModelRepositoryFactory) -> None:
    assert not is_complete(model_repository.path / model_repository.add("auto_complete", config=config_text()))


def test_every_version_counts(model_repository: ModelRepositoryFactory) -> None:
    model = model_repository.path / model_repository.add("identity")
    (model / "2").mkdir()
    assert not is_complete(model)
    (model / "2" / "model.py").write_text(PLAIN, encoding="utf-8")
    assert is_complete(model)


def test_the_code_may_have_another_name(model_repository: ModelRepositoryFactory) -> None:
    config = config_text(more='default_model_filename: "main.py"')
    model = model_repository.path / model_repository.add("identity", config=config)
    assert not is_complete(model)
    (model / "1" / "model.py").rename(model / "1" / "main.py")
    assert is_complete(model)
