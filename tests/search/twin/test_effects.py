from __future__ import annotations

import numpy as np
import pytest
from support.builders import space

from tuner.search.twin.effects import Effects

TEXT = """
schema: 1
parameters:
  mode: {field: 'parameters["M"].string_value', ladder: [off, fast, safe]}
  threads: {field: 'parameters["T"].string_value', ladder: ['1', '2', '4', '8'], when: {mode: [fast]}}
  level: {field: 'parameters["L"].string_value', ladder: [off, '1', '2']}
"""


@pytest.fixture
def effects() -> Effects:
    return Effects(space(TEXT).parameters)


def test_the_own_value_has_no_effect(effects: Effects) -> None:
    places = effects.places([{"mode": "off", "level": "off"}, {"mode": "fast", "threads": "2", "level": "1"}])
    correlations = effects.correlations(places, places)
    assert correlations.shape == (3, 2, 2)
    assert not correlations[:, 0].any()
    assert (correlations[:, 1, 1] > 0).all()
    assert effects.changes(places).tolist() == [0, 3]


def test_a_parameter_without_effect_is_as_at_its_own_value(effects: Effects) -> None:
    without, own = effects.places([{"mode": "safe"}, {"mode": "safe", "threads": "off"}])
    assert without.tolist() == own.tolist()


def test_close_numbers_have_similar_effects(effects: Effects) -> None:
    rows = [{"mode": "fast", "threads": str(count)} for count in (1, 2, 8)]
    places = effects.places(rows)
    (_, threads, _) = effects.correlations(places, places)
    assert threads[0, 0] > threads[0, 1] > threads[0, 2] > 0


def test_names_share_only_that_they_are_not_the_own_one(effects: Effects) -> None:
    places = effects.places([{"mode": "fast"}, {"mode": "safe"}])
    mode = effects.correlations(places, places)[0]
    assert mode == pytest.approx(np.array([[1.0, 0.5], [0.5, 1.0]]))


def test_without_parameters_there_is_nothing_to_correlate() -> None:
    effects = Effects(())
    places = effects.places([{}, {}])
    assert effects.correlations(places, places).shape == (0, 2, 2)
    assert effects.sizes(places).shape == (0, 2)
    assert not len(effects)
