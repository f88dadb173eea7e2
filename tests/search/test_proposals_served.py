from __future__ import annotations

from support.builders import MLP, point, space, trial

from tuner.config.config import ModelConfig
from tuner.core.errors import Cause
from tuner.search.proposals import ServedConfigs
from tuner.space.candidate import Candidate

BATCHING = MLP + "dynamic_batching { preferred_batch_size: [ 32 ] }\n"


def candidate(config: str) -> Candidate:
    return Candidate({}, ModelConfig.parse(config, "candidate"))


def effective(config: str) -> ModelConfig:
    return ModelConfig.parse(config, "effective")


def test_what_was_served_before_is_known_by_its_text_and_by_what_became_of_it() -> None:
    served = ServedConfigs()
    served.read([trial(0, point(), config=MLP), trial(1, point(), config=BATCHING)])
    assert served.same_as(candidate(MLP + "dynamic_batching { }")) == 1
    assert served.same_as(candidate(MLP.replace("32", "16"))) is None
    assert served.same_as(candidate(MLP.replace("32", "16")), effective(MLP)) == 0
    served.read([trial(0), trial(1), trial(2, point(), config=MLP.replace("32", "16"))])
    assert served.same_as(candidate(MLP.replace("32", "16"))) == 2


def test_a_model_without_a_file_is_known_by_what_the_server_made_of_it() -> None:
    served = ServedConfigs()
    served.read([trial(0, point(), config=BATCHING).model_copy(update={"config": ""})])
    assert served.same_as(candidate(MLP + "dynamic_batching { }")) == 0


def test_what_was_not_measured_is_not_known() -> None:
    served = ServedConfigs()
    served.read(
        [
            trial(0, config=MLP, failure=Cause.CONFIG_DIFFERS),
            trial(1, config=MLP, failure=Cause.INVALID_CONFIG).model_copy(update={"effective_config": None}),
        ]
    )
    assert served.same_as(candidate(MLP), effective(MLP)) is None


def test_equal_ladder_values_are_one_candidate() -> None:
    built = space(
        "schema: 1\nparameters: {delay: {field: dynamic_batching.max_queue_delay_microseconds, ladder: [off, 0]}}",
        MLP + "dynamic_batching { }\n",
    )
    served = ServedConfigs()
    served.read([trial(0, point(), config=built.base.text)])
    assert served.same_as(built.candidate(built.normalize({"delay": 0}))) == 0
