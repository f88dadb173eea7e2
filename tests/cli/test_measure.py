"""What is told of a measurement that ends before its time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from support.builders import point

from tuner.cli import measure as command
from tuner.core.loads import RequestRate
from tuner.measure.points import OperatingPoint

Interrupt = Callable[..., None]


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Interrupt:
    """Has the search for the highest rate interrupted after some points."""

    def after(*points: OperatingPoint) -> None:
        @contextmanager
        def opened(*_: object) -> Iterator[tuple[str, object]]:
            yield "mlp", None

        def measured(*_: object) -> Iterator[OperatingPoint]:
            yield from points
            raise KeyboardInterrupt

        monkeypatch.setattr(command, "_opened", opened)
        monkeypatch.setattr(command, "_measured", measured)

    return after


@pytest.mark.parametrize(("kept_up", "told"), [(True, "50 requests/s"), (False, "none")])
def test_the_highest_rate_of_a_search_that_was_interrupted(
    interrupted: Interrupt, capsys: pytest.CaptureFixture[str], told: str, *, kept_up: bool
) -> None:
    interrupted(point(1, 80, 10), point(RequestRate(50), 50, 10, kept_up=kept_up))
    with pytest.raises(KeyboardInterrupt):
        command.measure({"url": "h:1", "rate": "max"}, as_json=False, csv=None)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"highest sustained rate so far: {told} (the search was cut short)"


def test_for_machines_it_is_not_complete(interrupted: Interrupt, capsys: pytest.CaptureFixture[str]) -> None:
    interrupted(point(1, 80, 10), point(RequestRate(50), 50, 10, kept_up=True))
    with pytest.raises(KeyboardInterrupt):
        command.measure({"url": "h:1", "rate": "max"}, as_json=True, csv=None)
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert (told["complete"], told["highest_rate"]) == (False, 50)
    assert "the search was cut short" in err
