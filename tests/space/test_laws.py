from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.builders import MLP, space
from support.effective import EFFECTIVE

from tuner.config.config import ModelConfig
from tuner.core.errors import SpaceError
from tuner.core.machine import Machine
from tuner.space.bounds import check_fields
from tuner.space.space import SearchSpace
from tuner.space.spec import OFF, SpaceSpec, parse_space

COUNT = "count: {field: 'instance_group[*].count', ladder: [1, 2, 4, 8]}"
THREADS = "threads: {field: 'parameters[\"threads\"].string_value', ladder: [off, 1, 2, 4, 8]}"
JOINT = f"schema: 1\nparameters:\n  {COUNT}\n  {THREADS}\nlaws: [count * threads <= cores]"
MODES = """\
schema: 1
parameters:
  hint: {field: 'parameters["hint"].string_value', ladder: [off, LATENCY, THROUGHPUT]}
  streams: {field: 'parameters["streams"].string_value', ladder: [off, 1, 2, 4]}
laws: [{at_most_one: [hint, streams]}]
"""
SIZES = """\
schema: 1
parameters:
  graphs: {field: optimization.cuda.graphs, ladder: [off, true]}
  sizes: {field: dynamic_batching.preferred_batch_size, ladder: [off, [2, 4], 8]}
laws: [{requires: {graphs: [sizes]}}]
"""


class TestRepair:
    @pytest.mark.parametrize(
        ("wanted", "settled"),
        [
            ({"count": 2, "threads": 2}, {"count": 2, "threads": 2}),
            ({"count": 2, "threads": 8}, {"count": 2, "threads": 2}),
            ({"count": 1, "threads": 8}, {"count": 1, "threads": 4}),
            # Threads alone cannot keep the law, so there are fewer instances.
            ({"count": 8, "threads": 8}, {"count": 4, "threads": 1}),
            # Without a number of threads, nothing is known of them.
            ({"count": 8, "threads": OFF}, {"count": 8, "threads": OFF}),
        ],
    )
    def test_the_parameter_named_last_is_lowered(
        self, wanted: dict[str, int | str], settled: dict[str, int | str]
    ) -> None:
        assert space(JOINT, cpus=4).normalize(wanted) == settled

    def test_without_known_cores_nothing_is_broken(self) -> None:
        wanted = {"count": 8, "threads": 8}
        assert space(JOINT, cpus=None).normalize(wanted) == wanted

    def test_of_two_that_exclude_each_other_the_last_is_off(self) -> None:
        built = space(MODES)
        assert built.normalize({"hint": "LATENCY", "streams": 2}) == {"hint": "LATENCY", "streams": OFF}
        assert built.normalize({"streams": 2}) == {"hint": OFF, "streams": 2}

    def test_what_a_parameter_requires_is_set(self) -> None:
        built = space(SIZES, EFFECTIVE["tensorrt"] + "dynamic_batching { }\n")
        assert built.normalize({"graphs": True}) == {"graphs": True, "sizes": (2, 4)}
        assert built.normalize({"graphs": True, "sizes": 8}) == {"graphs": True, "sizes": 8}
        assert built.normalize({"sizes": OFF}) == {"graphs": OFF, "sizes": OFF}

    def test_a_requirement_without_effect_is_none(self) -> None:
        both = SIZES.replace("parameters:\n", "parameters:\n  dynamic_batching: {ladder: [off, on]}\n")
        built = space(both, EFFECTIVE["tensorrt"])
        assert built.normalize({"graphs": True}) == {"dynamic_batching": OFF, "graphs": True}
        assert built.normalize({"graphs": True, "dynamic_batching": "on"})["sizes"] == (2, 4)

    def test_the_models_own_values_are_always_allowed(self) -> None:
        config = MLP.replace("count: 1", "count: 8") + 'parameters { key: "threads" value { string_value: "8" } }\n'
        built = space(JOINT, config, cpus=2)
        assert built.baseline == {"count": 8, "threads": 8}
        assert built.candidate(built.baseline).config.text == config
        assert built.normalize({"count": 4}) == {"count": 2, "threads": 1}

    def test_laws_that_share_a_parameter_are_kept_together(self) -> None:
        text = JOINT.replace("laws: [", "laws: [threads >= 2, ")
        built = space(text, MLP + 'parameters { key: "threads" value { string_value: "2" } }\n', cpus=4)
        assert built.normalize({"count": 8, "threads": 1}) == {"count": 2, "threads": 2}
        assert built.normalize({"count": 8}) == {"count": 2, "threads": 2}

    @given(st.data())
    def test_every_candidate_keeps_every_law(self, data: st.DataObject) -> None:
        text = data.draw(st.sampled_from([JOINT, MODES, JOINT.replace("laws: [", "laws: [threads >= 2, ")]))
        built = space(text, cpus=4)
        drawn = {p.name: data.draw(st.integers(0, len(p.ladder) - 1)) for p in built.parameters}
        assignment = built.assignment(drawn)
        assert all(law.holds(assignment) for law in built.laws)
        assert built.assignment(built.indices(assignment)) == assignment

    def test_all_assignments_are_distinct_and_keep_the_law(self) -> None:
        found = list(space(JOINT, cpus=2).assignments())
        assert found == [
            {"count": 1, "threads": OFF},
            {"count": 1, "threads": 1},
            {"count": 1, "threads": 2},
            {"count": 2, "threads": OFF},
            {"count": 2, "threads": 1},
            {"count": 4, "threads": OFF},
            {"count": 8, "threads": OFF},
        ]


class TestContradictions:
    @pytest.mark.parametrize(
        ("laws", "complaint"),
        [
            ("[count <= 2, count >= 4]", "they contradict each other: no candidate .* 'count <= 2' and 'count >= 4'"),
            ("[count >= 100]", "laws: no candidate but the baseline keeps 'count >= 100'"),
            (
                "[count * other <= 4, count >= 4, other >= 2]",
                "they contradict each other: .*'count [*] other <= 4' and 'count >= 4' and 'other >= 2'",
            ),
        ],
    )
    def test_they_are_named_before_a_launch(self, laws: str, complaint: str) -> None:
        spec = parse_space(
            f"schema: 1\nparameters:\n  {COUNT}\n  other: {{field: max_batch_size, ladder: [1, 2]}}\nlaws: {laws}",
            "s.yaml",
        )
        with pytest.raises(SpaceError, match=f"s.yaml: .*{complaint}") as caught:
            check_fields(spec, (), "s.yaml")
        assert "\n" not in str(caught.value)

    def test_what_only_the_machine_contradicts_is_named_with_it(self) -> None:
        text = JOINT.replace("laws: [", "laws: [threads >= 4, ").replace("off, 1, 2", "1, 2")
        check_fields(parse_space(text, "s.yaml"), (), "s.yaml")
        threads = 'parameters { key: "threads" value { string_value: "1" } }\n'
        with pytest.raises(SpaceError, match="'threads >= 4' and 'count [*] threads <= cores'"):
            space(text, MLP + threads, cpus=2)

    def test_a_condition_may_keep_a_law(self) -> None:
        text = "schema: 1\nparameters:\n  a: {ladder: [1, 2]}\n  b: {ladder: [4], when: {a: [1]}}\nlaws: [b <= 2]"
        spec = parse_space(text.replace("a: {", "a: {field: max_batch_size, ", 1), "s.yaml")
        spec = SpaceSpec.model_validate_json(spec.model_dump_json())
        with pytest.raises(SpaceError, match="no field 'b'"):
            check_fields(spec, (), "s.yaml")

    def test_a_law_about_fixed_values_is_none(self) -> None:
        config = ModelConfig.parse(MLP, "c")
        spec = parse_space(JOINT.replace("[1, 2, 4, 8]", "[1]"), "s.yaml")
        built = SearchSpace.build(spec, config, config, Machine(2, (), "x86_64"))
        assert built.normalize({"threads": 8}) == {"threads": 2}


@pytest.mark.parametrize(
    ("laws", "complaint"),
    [
        ("[cont <= 2]", "laws: 'cont <= 2': this space has no parameter 'cont'; did you mean 'count'"),
        ("[count <= core]", "this space has no parameter 'core'; did you mean 'cores'"),
        ("[{at_most_one: [count, thread]}]", "no parameter 'thread'; did you mean 'threads'"),
        ("[{requires: {count: [thread]}}]", "no parameter 'thread'; did you mean 'threads'"),
        ("[{at_most_one: [count]}]", "laws: each must be an expression"),
        ("[{at_most: [count, threads]}]", "laws: each must be an expression"),
        ("[3]", "laws: each must be an expression"),
        ("count <= 2", "laws: must be a list, got 'count <= 2'"),
        ("[count / 2 <= 2]", "'count / 2' is not allowed; write comparisons"),
    ],
)
def test_a_wrong_law_is_named(laws: str, complaint: str) -> None:
    text = f"schema: 1\nparameters:\n  {COUNT}\n  {THREADS}\nlaws: {laws}"
    with pytest.raises(SpaceError, match=complaint) as caught:
        parse_space(text, "s.yaml")
    assert "\n" not in str(caught.value)
