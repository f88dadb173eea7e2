from __future__ import annotations

import pytest

from tuner.core.precision import DEFAULT, Precision


@pytest.mark.parametrize(
    ("text", "precision"),
    [
        ("3%", DEFAULT),
        ("1%", Precision(0.01)),
        ("1%,5%", Precision(0.01, 0.05)),
        (" 2.5% , .5%", Precision(0.025, 0.005)),
    ],
)
def test_it_is_read_as_people_write_it(text: str, precision: Precision) -> None:
    assert Precision.parse(text).throughput == pytest.approx(precision.throughput)
    assert Precision.parse(text).latency == pytest.approx(precision.latency)


@pytest.mark.parametrize("text", ["", "3", "3%,10%,1%", "a%", "3%,", "-1%"])
def test_what_is_none_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="is not a precision; write 3% \\(throughput\\) or 3%,10%"):
        Precision.parse(text)


@pytest.mark.parametrize("text", ["0%", "51%", "3%,0%"])
def test_what_is_out_of_bounds_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="precision must be > 0% and <= 50%, got"):
        Precision.parse(text)


def test_it_is_written_as_it_is_read() -> None:
    assert str(DEFAULT) == "3%,10%"
    assert Precision.parse(str(Precision(0.01, 0.025))) == Precision(0.01, 0.025)
