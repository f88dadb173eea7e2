from __future__ import annotations

import pytest

from tuner.errors import InputError
from tuner.load.inputs.shapes import asked, batch_dims, check_shapes, fits
from tuner.models.interface import ModelInterface, Tensor


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
    assert str(raised.value) == (
        "model 'bert' has max_batch_size 8, so the batch size of its requests can be 8, and not 16"
    )


def test_a_batch_to_a_model_without_batches_is_refused() -> None:
    with pytest.raises(InputError) as raised:
        batch_dims(interface(0), 2)
    assert str(raised.value) == (
        "model 'bert' has max_batch_size 0, so the batch size of its requests can be 1, "
        "as it has no batch dimension, and not 2"
    )


@pytest.mark.parametrize("max_batch_size", [0, 8])
def test_an_empty_batch_is_refused(max_batch_size: int) -> None:
    with pytest.raises(InputError, match=r"^a batch size of 0 sends nothing; the least is 1$"):
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
        ("Y", (7, 3), "model 'bert' has no input 'Y'; there is X"),
        (
            "X",
            (8, 7, 3),
            "--shape X:8,7,3 has the wrong number of dimensions (without the batch dimension)",
        ),
        (
            "X",
            (7, 4),
            "which --shape X:7,4 contradicts; only dimensions of -1 are free",
        ),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(name: str, given: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError) as raised:
        check_shapes(interface(8), {name: given})
    assert str(raised.value).endswith(message)
    assert name == "Y" or str(raised.value).startswith("input 'X' of model 'bert' has shape [-1, 3], ")


def test_what_is_asked_for_leaves_the_variable_dimensions_to_fill_in() -> None:
    assert asked(Tensor("X", "FP32", (-1, 3, -1))) == "--shape X:D1,3,D3"
