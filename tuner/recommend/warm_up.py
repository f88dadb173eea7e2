"""What a warm-up of the best config saves on the first request of a launch."""

from __future__ import annotations

import math

from tuner.config.warmup import WarmUpShape
from tuner.core.record import Record
from tuner.measure.trial import TrialResult

# First answers are slow if they take so many times as long as later ones, and so many seconds longer.
_SLOW_FACTOR, _SLOW_S = 5.0, 0.1
# A warm-up pays if it saves at least this share of the first answer.
_PAYS = 0.5


class FirstAnswer(Record):
    """One launch.

    Attributes:
        launch_s: Seconds until the model was ready.
        answer_s: Seconds of the first answer then, including the connection.
    """

    launch_s: float
    answer_s: float


class WarmUp(Record):
    """The warm-up of a config whose first answers were slow, and what it saved.

    Attributes:
        trial: The number of the trial of the config.
        searched_s: Seconds of the first answer in that trial.
        shapes: Shapes of the requests, of which the entries are made; empty: none can be made.
        batch_size: Inferences in each request.
        without: A launch without the warm-up; None: not launched.
        warmed: A launch with it; None: not launched.
        reason: Why there is no offer; empty: there is one.
    """

    trial: int
    searched_s: float
    shapes: tuple[WarmUpShape, ...] = ()
    batch_size: int = 1
    without: FirstAnswer | None = None
    warmed: FirstAnswer | None = None
    reason: str = ""

    @property
    def launches(self) -> int:
        """Number of servers that were launched for it."""
        return sum(launch is not None for launch in (self.without, self.warmed))


def first_answer_is_slow(trial: TrialResult) -> bool:
    """Whether the first answer of a trial took far longer than later ones under the lowest load."""
    return trial.first_answer_s is not None and is_slow(trial.first_answer_s, trial)


def is_slow(answer_s: float, trial: TrialResult) -> bool:
    """Whether a first answer took far longer than the later ones of a trial under the lowest load."""
    usual_s = trial.curve[0].latency_ms["p50"].value / 1e3 if trial.curve else math.inf
    return answer_s > max(_SLOW_FACTOR * usual_s, usual_s + _SLOW_S)


def pays(without: FirstAnswer, warmed: FirstAnswer) -> bool:
    """Whether a warm-up saves enough of the first answer to be offered."""
    return warmed.answer_s <= (1 - _PAYS) * without.answer_s
