from __future__ import annotations

from support.builders import SMALL_SPACE, space

from tuner.search.candidate_pool import MOST_CHANGES, CandidatePool
from tuner.search.twin.effects import Effects
from tuner.space.candidate import key_of

MANY = "schema: 1\nparameters:\n  max_batch_size: {ladder: [4, 8, 16]}\n  dynamic_batching: {ladder: [off, on]}\n"
MANY += "\n".join(f"  p{n}: {{field: 'parameters[\"P{n}\"].string_value', ladder: [off, a, b]}}" for n in range(12))


def test_a_small_space_is_listed() -> None:
    built = space(SMALL_SPACE)
    pool = CandidatePool(built, 0, ())
    assert pool.is_whole
    assert pool.around([built.baseline], 3) == list(built.assignments())


def test_of_a_large_space_good_candidates_are_changed() -> None:
    built = space(MANY)
    unknown = [p for p in built.parameters if p.name.startswith("p")]
    pool = CandidatePool(built, 0, unknown)
    good = built.normalize({"dynamic_batching": "on", "p3": "a"})
    around = pool.around([good, built.baseline], 5)
    keys = {key_of(each) for each in around}
    assert not pool.is_whole
    assert len(keys) == len(around) > 200
    assert key_of(good) in keys
    assert {key_of(each) for each in pool.neighbours(good)} <= keys
    effects = Effects(unknown)
    start = effects.places([good, built.baseline])
    changes = effects.changes(effects.places(around)[:, None], start[None]).min(axis=1)
    assert set(changes.tolist()) == set(range(MOST_CHANGES + 1))


def test_neighbours_differ_in_one_value() -> None:
    built = space(MANY)
    pool = CandidatePool(built, 0, ())
    for other in pool.neighbours(built.baseline):
        different = [
            name for name, index in built.indices(other).items() if index != built.indices(built.baseline)[name]
        ]
        assert len(different) <= 1


def test_each_choice_has_its_own_draws_and_the_same_again() -> None:
    built = space(MANY)
    one, again, later = (CandidatePool(built, 0, ()).around([built.baseline], n) for n in (4, 4, 5))
    assert one == again
    assert one != later
