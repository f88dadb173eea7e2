from __future__ import annotations

import re

import pytest

from tuner.config.interface import ModelInterface, Tensor
from tuner.core.errors import InputError, JobError
from tuner.load.inputs.shapes import asked, batch_dims, check_shapes, check_somewhere, fits, own_shapes, shapes_for


def interface(max_batch_size: int) -> ModelInterface:
    return ModelInterface("bert", max_batch_size, (Tensor("X", "FP32", (-1, 3)),), ())


@pytest.mark.parametrize("batch_size", [1, 5, 8])
def test_the_batch_dimension_is_the_batch_size(batch_size: int) -> None:
    assert batch_dims(interface(8), batch_size) == (batch_size,)


def test_a_model_without_batches_has_no_batch_dimension() -> None:
    assert batch_dims(interface(0), 1) == ()


def test_a_batch_larger_than_the_model_takes_is_refused() -> None:
    with pytest.raises(InputError) as raised:
        batch_dims(interface(8), 16)
    assert str(raised.value) == ("batch size must be <= 8 (max_batch_size of model 'bert'), got 16")


def test_a_batch_to_a_model_without_batches_is_refused() -> None:
    with pytest.raises(InputError) as raised:
        batch_dims(interface(0), 2)
    assert str(raised.value) == ("batch size must be 1 (model 'bert' has no batch dimension), got 2")


@pytest.mark.parametrize("max_batch_size", [0, 8])
def test_an_empty_batch_is_refused(max_batch_size: int) -> None:
    with pytest.raises(InputError, match=r"^batch size must be >= 1, got 0$"):
        batch_dims(interface(max_batch_size), 0)


@pytest.mark.parametrize(
    ("shape", "given", "fit"),
    [
        ((), (), True),
        ((3,), (3,), True),
        ((-1,), (3,), True),
        ((-1,), (0,), True),
        ((-1,), (-1,), False),
        ((3,), (4,), False),
        ((3,), (3, 3), False),
        ((-1, 3), (7, 3), True),
        ((-1, 3), (3, 7), False),
    ],
)
def test_only_variable_dimensions_are_free(shape: tuple[int, ...], given: tuple[int, ...], fit: bool) -> None:  # noqa: FBT001 (a table)
    assert fits(shape, given) is fit


def test_a_shape_that_fits_passes() -> None:
    check_shapes(interface(8), {"X": (7, 3)})


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("Y", (7, 3), "model 'bert' has no input 'Y' (available: X)"),
        (
            "X",
            (8, 7, 3),
            "; input 'X' of model 'bert' has shape [-1, 3] (without the batch dimension)",
        ),
        (
            "X",
            (7, 4),
            "of which only dimensions of -1 can be set",
        ),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(name: str, given: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError) as raised:
        check_shapes(interface(8), {name: given})
    assert str(raised.value).endswith(message)
    assert name == "Y" or str(raised.value).startswith(f"--shape X:{','.join(map(str, given))}: ")


def test_what_is_asked_for_leaves_the_variable_dimensions_to_fill_in() -> None:
    assert asked(Tensor("X", "FP32", (-1, 3, -1))) == "--shape X:D1,3,D3"


def taking(name: str, *inputs: str) -> ModelInterface:
    return ModelInterface(name, 8, tuple(Tensor(each, "FP32", (-1,)) for each in inputs), ())


def test_a_shape_is_for_every_model_that_has_the_input_or_for_the_one_that_it_names() -> None:
    shapes = {"det/x": (32,), "x": (16,), "y": (4,)}
    assert own_shapes(taking("det", "x"), shapes, elsewhere=True) == {"x": (32,)}
    assert own_shapes(taking("rec", "x", "y"), shapes, elsewhere=True) == {"x": (16,), "y": (4,)}
    assert own_shapes(taking("cls", "z"), shapes, elsewhere=True) == {}


def test_the_order_of_shapes_does_not_matter() -> None:
    assert own_shapes(taking("det", "x"), {"x": (16,), "det/x": (32,)}) == {"x": (32,)}


def test_an_input_may_have_a_slash_in_its_name() -> None:
    assert own_shapes(taking("det", "det/x"), {"det/x": (32,)}) == {"det/x": (32,)}


@pytest.mark.parametrize(("name", "elsewhere"), [("y", False), ("rec/x", False), ("det/xx", True)])
def test_a_shape_for_no_input_is_an_error(name: str, *, elsewhere: bool) -> None:
    plain = name.removeprefix("det/")
    with pytest.raises(InputError, match=f"model 'det' has no input '{plain}'"):
        own_shapes(taking("det", "x"), {name: (1,)}, elsewhere=elsewhere)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("x", None),
        ("rec/y", None),
        ("own/anything", None),
        ("rec/z", "--shape: model 'rec' has no input 'z'"),
        ("z", None),
    ],
)
def test_a_shape_must_be_for_one_of_several_models(name: str, told: str | None) -> None:
    """Of model `own` nobody knows before it is loaded."""
    inputs = {"det": ("x",), "rec": ("x", "y"), "own": None}
    if told is None:
        check_somewhere(inputs, {name: (1,)})
    else:
        with pytest.raises(JobError, match=re.escape(told)):
            check_somewhere(inputs, {name: (1,)})


def test_a_shape_that_no_model_has_an_input_for_is_said_with_the_nearest() -> None:
    with pytest.raises(JobError, match=r"--shape: no input 'imge' in any of the models det, rec.*'image'"):
        check_somewhere({"det": ("image",), "rec": ("x",)}, {"imge": (1,)})


def test_of_several_models_each_gets_what_may_be_for_it() -> None:
    shapes = {"x": (16,), "det/x": (32,), "y": (4,)}
    assert shapes_for("det", ("x",), shapes) == {"x": (16,), "det/x": (32,)}
    assert shapes_for("rec", ("y",), shapes) == {"y": (4,)}
    assert shapes_for("own", None, shapes) == shapes
