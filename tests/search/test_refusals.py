from __future__ import annotations

from collections.abc import Mapping

from support.builders import MLP, point, space, trial

from tuner.core.errors import Cause
from tuner.measure.trial import TrialResult
from tuner.measure.work import Failure
from tuner.search.refusals import Refusals
from tuner.space.candidate import Assignment
from tuner.space.spec import LadderValue

SPACE = """\
schema: 1
parameters:
  dynamic_batching: {ladder: [off, on]}
  max_batch_size: {ladder: [2, 4, 8, 16, 32, 64, 128]}
  instance_group.count: {field: "instance_group[*].count", ladder: [1, 2, 4]}
"""
BUILT = space(SPACE, MLP.replace("32", "8"))


def batches(size: int, instances: int = 1) -> Assignment:
    return BUILT.normalize({"dynamic_batching": "on", "max_batch_size": size, "instance_group.count": instances})


def loaded(number: int, parameters: Mapping[str, LadderValue]) -> TrialResult:
    return trial(number, point(), parameters=parameters)


def refused(number: int, parameters: Assignment, message: str = "16 at most, not {}") -> TrialResult:
    failure = Failure(cause=Cause.INVALID_CONFIG, message=message.format(parameters.get("max_batch_size")))
    told = trial(number, parameters=parameters)
    return told.model_copy(update={"failure": failure, "launch_s": None, "effective_config": None})


def refusal(assignment: Assignment, *trials: TrialResult) -> str | None:
    return Refusals(BUILT, [loaded(0, BUILT.baseline), *trials]).refusal(assignment)


def test_nothing_as_large_again() -> None:
    trials = loaded(1, batches(8)), refused(2, batches(32))
    assert refusal(batches(16), *trials) is None
    assert refusal(batches(32, 4), *trials) == "trial 2 did not load with max_batch_size 32 or more: 16 at most, not 32"
    assert refusal(batches(128), *trials)
    assert refusal(BUILT.normalize({"instance_group.count": 4}), *trials) is None


def test_while_several_changes_may_be_to_blame_only_what_goes_as_far_in_all_of_them_is_refused() -> None:
    first = refused(1, batches(64, 2))
    assert refusal(batches(64), first) is None
    assert refusal(batches(128, 2), first)
    assert refusal(batches(32, 4), first) is None
    # Two instances load, and so does dynamic batching.
    assert refusal(batches(64), first, loaded(2, batches(8, 2)))


def test_refusals_with_the_same_kind_of_reason_share_the_culprit() -> None:
    trials = refused(1, batches(64, 4)), loaded(2, batches(8)), refused(3, batches(32))
    assert refusal(batches(64), *trials)
    assert refusal(batches(8, 4), *trials) is None
    other = refused(1, batches(64, 4), "too many instances"), loaded(2, batches(8)), refused(3, batches(32))
    assert refusal(batches(16, 4), *other) is None


def test_small_values_may_be_refused_too() -> None:
    trials = loaded(1, batches(8)), refused(2, batches(4), "at least 8")
    assert refusal(batches(2), *trials)
    assert refusal(batches(16), *trials) is None


def test_other_failures_teach_nothing() -> None:
    crashed = trial(2, parameters=batches(32), failure=Cause.CRASHED).model_copy(update={"launch_s": None})
    assert refusal(batches(64), loaded(1, batches(8)), crashed) is None
    failed_later = trial(2, parameters=batches(32), failure=Cause.INVALID_CONFIG)
    assert refusal(batches(64), loaded(1, batches(8)), failed_later) is None


def served(number: int, parameters: Assignment, effective: str) -> TrialResult:
    told = trial(number, parameters=parameters, failure=Cause.CONFIG_DIFFERS)
    config = BUILT.candidate(parameters).config.text
    return told.model_copy(update={"config": config, "effective_config": effective})


def test_what_was_served_otherwise_is_not_asked_for_again() -> None:
    on = MLP.replace("32", "8") + "dynamic_batching { }"
    trials = served(1, batches(4, 2), on.replace("count: 1", "count: 2")), served(2, BUILT.baseline, on)
    assert refusal(batches(2), *trials) == (
        "trial 1, with max_batch_size 4 or less, was not served as configured: max_batch_size is 8, but 4 was requested"
    )
    assert refusal(batches(16), *trials) is None
    assert refusal(BUILT.normalize({"instance_group.count": 4}), *trials) == (
        "trial 2, with dynamic_batching off, was not served as configured: "
        "dynamic_batching is on, but off was requested"
    )


ACCELERATED = space(
    "schema: 1\nparameters:\n"
    "  accelerator: {field: 'parameters[\"a\"].string_value', ladder: [off, fast], try_alone: true}\n"
    "  instance_group.count: {field: 'instance_group[*].count', ladder: [1, 2, 4]}\n"
)


def test_a_value_that_did_not_load_alone_is_never_combined() -> None:
    alone = ACCELERATED.normalize({"accelerator": "fast"})
    # An accelerator that the image lacks may also end the server, or hang.
    failed = refused(1, alone, "no such accelerator")
    for cause in (Cause.INVALID_CONFIG, Cause.CRASHED, Cause.TIMED_OUT):
        assert failed.failure
        failure = failed.failure.model_copy(update={"cause": cause})
        trials = [loaded(0, ACCELERATED.baseline), failed.model_copy(update={"failure": failure})]
        found = Refusals(ACCELERATED, trials).refusal(ACCELERATED.normalize({**alone, "instance_group.count": 4}))
        assert found == "trial 1 did not load with accelerator fast alone: no such accelerator"
        assert Refusals(ACCELERATED, trials).refusal(ACCELERATED.normalize({"instance_group.count": 4})) is None


def test_a_value_that_failed_only_in_company_is_not_ruled_out() -> None:
    together = refused(1, ACCELERATED.normalize({"accelerator": "fast", "instance_group.count": 4}), "no")
    crashed = together.model_copy(update={"failure": Failure(cause=Cause.CRASHED, message="no")})
    trials = [loaded(0, ACCELERATED.baseline), crashed]
    assert Refusals(ACCELERATED, trials).refusal(ACCELERATED.normalize({"accelerator": "fast"})) is None
