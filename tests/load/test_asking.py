"""What is asked, and that answers come whole, over gRPC and HTTP; of streams and sequences, `aio` tests that."""

from __future__ import annotations

import pytest
from support.services import ON_BOTH, Services

from tuner.load.asking import RequestChains, asking, some_of
from tuner.load.outputs import read_outputs
from tuner.load.workload import DriverName, Request, Sequences, Workload


def requests(count: int, first: int = 0) -> tuple[Request, ...]:
    return tuple(Request(bytes([first + number])) for number in range(count))


def numbers(lines: RequestChains) -> list[list[int]]:
    return [[request.body[0] for request in line] for line in lines]


@pytest.mark.parametrize(
    ("count", "chosen"),
    [(1, [0]), (16, list(range(16))), (20, list(range(16))), (160, list(range(0, 160, 10)))],
)
def test_requests_are_taken_from_all_over_the_workload(count: int, chosen: list[int]) -> None:
    workload = Workload("m", (requests(count),))
    assert numbers(some_of(workload, made_up=True)) == [[number] for number in chosen]


def test_sequences_of_made_up_requests_are_each_another_part_of_the_pool() -> None:
    workload = Workload("m", (requests(16),), sequences=Sequences(length=5))
    lines = numbers(some_of(workload, made_up=True))
    assert lines == [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8], [8, 9, 10, 11, 12], [12, 13, 14, 15, 0]]


def test_streams_of_a_file_are_sent_from_their_beginning_and_whole() -> None:
    streams = tuple(requests(3, 10 * number) for number in range(6))
    whole = numbers(some_of(Workload("m", streams, sequences=Sequences(length=None)), made_up=False))
    assert whole == [[10 * number, 10 * number + 1, 10 * number + 2] for number in range(4)]
    over_and_over = numbers(some_of(Workload("m", streams, sequences=Sequences(length=4)), made_up=False))
    assert over_and_over[1] == [10, 11, 12, 10]


def test_a_sequence_is_cut_where_it_is_very_long() -> None:
    workload = Workload("m", (requests(200),), sequences=Sequences(length=None))
    assert numbers(some_of(workload, made_up=False)) == [list(range(64))]


@pytest.mark.parametrize("driver", ["wire", "grpcio", "http"])
class TestOnTriton:
    @ON_BOTH
    def test_each_line_gets_its_own_answers_in_order(self, services: Services, driver: DriverName) -> None:
        plan = services("echo").plan(driver, 10)
        first, second, third = plan.workload.requests
        with asking(plan) as ask:
            replies = ask([[first, second], [third], [second]])
            assert ask([]) == []
        outputs = [[read_outputs(*reply.responses)[0].raw() for reply in line] for line in replies]
        assert [len(line) for line in outputs] == [2, 1, 1]
        # It hands back what it gets, which is in the body.
        for line, sent in zip(outputs, ([first, second], [third], [second]), strict=True):
            assert all(out in request.body for out, request in zip(line, sent, strict=True))
        assert outputs[0][1] == outputs[2][0] != outputs[1][0]

    def test_a_line_ends_with_its_failure(self, services: Services, driver: DriverName) -> None:
        plan = services("fail").plan(driver, 10)
        with asking(plan) as ask:
            ((reply,),) = ask([plan.workload.requests])
        assert reply.responses == ()
        assert reply.error
        assert "the model says no" in reply.error

    def test_each_request_has_its_deadline(self, services: Services, driver: DriverName) -> None:
        plan = services("hang").plan(driver, 0.3)
        with asking(plan) as ask:
            replies = ask([[request] for request in plan.workload.requests])
        assert {reply.error for (reply,) in replies} == {"DEADLINE_EXCEEDED: no answer within 0.3 s"}
