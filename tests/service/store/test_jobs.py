from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.builders import interval
from support.stored import T0, job

from tuner.client.resources import FINAL, Job, JobState, ModelResult
from tuner.service.errors import ConflictError, CursorError, NotFoundError
from tuner.service.job_folder import SubmissionKey
from tuner.service.store.index import Index
from tuner.service.store.jobs import JobFilter, StoredJob
from tuner.service.store.store import Store

KEY = SubmissionKey("id-ci", "build-7", "d" * 64)
ALL: Sequence[JobState] = ("queued", "starting", "running", "cancelling", "succeeded", "failed", "cancelled", "lost")


def added(store: Store, **fields: Any) -> Job:
    return store.add_job(job(store.next_job_id(), **fields))


def ids(jobs: Sequence[Job]) -> list[int]:
    return [each.id for each in jobs]


def test_a_job_comes_back_as_it_was(store: Store) -> None:
    result = ModelResult(model="mlp", trial=3, throughput=interval(100.0), latency_ms=None, percentile="p99", gain=None)
    given_ = job(
        1,
        target="edge",
        models=("mlp", "cnn ü"),
        repository="/models",
        slots=("gpu:0",),
        results=(result,),
        job={"slo": {"p99": "40ms"}, "note": "NUL \0 and <b>"},
        started_at=T0,
    )
    assert store.add_job(given_) == given_
    assert store.job(1) == given_


@pytest.mark.parametrize("number", [2, 0, -1, 2**31, 10**40])
def test_an_unknown_job_is_said(store: Store, number: int) -> None:
    added(store)
    with pytest.raises(NotFoundError, match=f"no job {number}"):
        store.job(number)


def test_ids_go_up_also_when_none_is_added(store: Store) -> None:
    assert [store.next_job_id() for _ in range(3)] == [1, 2, 3]
    store.add_job(job(9))
    assert store.next_job_id() == 10
    store.replace_index(Index())
    assert store.next_job_id() == 11


def test_an_id_is_used_once(store: Store) -> None:
    added(store)
    with pytest.raises(ConflictError, match="job 1 exists"):
        store.add_job(job(1))


def test_the_same_key_and_body_give_the_same_job(store: Store) -> None:
    first = store.add_job(job(1), KEY)
    assert store.add_job(job(2), KEY) == first
    assert store.job_of_key(KEY) == first
    assert ids(store.jobs().items) == [1]


def test_the_same_key_with_another_body_is_a_conflict(store: Store) -> None:
    store.add_job(job(1), KEY)
    other = SubmissionKey(KEY.token, KEY.key, "e" * 64)
    with pytest.raises(ConflictError, match="job 1 was submitted with this key and another body"):
        store.add_job(job(2), other)
    with pytest.raises(ConflictError, match="job 1 was submitted with this key and another body"):
        store.job_of_key(other)


def test_keys_of_two_tokens_are_two_keys(store: Store) -> None:
    store.add_job(job(1), KEY)
    store.add_job(job(2), SubmissionKey("id-other", KEY.key, "e" * 64))
    assert ids(store.jobs().items) == [2, 1]


def test_a_key_that_comes_many_times_at_once_gives_one_job(store: Store) -> None:
    numbers = [store.next_job_id() for _ in range(8)]
    found: list[int] = []

    def add(number: int) -> None:
        found.append(store.add_job(job(number), KEY).id)

    threads = [threading.Thread(target=add, args=(number,)) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert ids(store.jobs().items) == found[:1]


def test_a_change_counts_the_version_and_keeps_the_rest(store: Store) -> None:
    before = added(store, models=("mlp",))
    after = store.change_job(1, among={"queued"}, state="starting", host="here", lease="lease-1")
    assert after == before.model_copy(update={"state": "starting", "host": "here", "version": 2})
    assert store.stored_job(1) == StoredJob(after, "lease-1")
    assert store.change_job(1, among={"starting"}, phase="search").version == 3
    assert store.stored_job(1).lease == "lease-1"
    store.change_job(1, among={"starting"}, lease=None)
    assert store.stored_job(1).lease is None


def test_a_change_of_a_job_in_another_state_is_a_conflict(store: Store) -> None:
    added(store)
    with pytest.raises(ConflictError, match="job 1 is queued, not running or starting"):
        store.change_job(1, among={"starting", "running"}, state="succeeded")
    assert store.job(1).version == 1


def test_a_change_to_what_no_job_has_is_refused(store: Store) -> None:
    added(store)
    with pytest.raises(ValueError, match="colour"):
        store.change_job(1, among={"queued"}, colour="red")


def test_one_of_many_changes_at_once_wins(store: Store) -> None:
    added(store)
    won: list[int] = []

    def take(number: int) -> None:
        try:
            store.change_job(1, among={"queued"}, state="starting", lease=str(number))
        except ConflictError:
            return
        won.append(number)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [str(number) for number in won] == [store.stored_job(1).lease]


@pytest.mark.parametrize("final", sorted(FINAL))
def test_a_final_state_never_changes(store: Store, final: JobState) -> None:
    added(store, state=final)
    for state in ALL:
        if state != final:
            with pytest.raises(ConflictError, match=f"job 1 has ended \\({final}\\); it cannot become {state}"):
                store.change_job(1, among=ALL, state=state)
    assert store.change_job(1, among=ALL, phase=None, slots=()).state == final


@given(steps=st.lists(st.tuples(st.sets(st.sampled_from(ALL)), st.sampled_from(ALL)), max_size=12))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_sequence_of_changes_keeps_the_rules(store: Store, steps: list[tuple[set[JobState], JobState]]) -> None:
    number = added(store).id
    state: JobState = "queued"
    version = 1
    for among, new in steps:
        allowed = state in among and (state not in FINAL or new == state)
        try:
            store.change_job(number, among=among, state=new)
        except ConflictError:
            assert not allowed
        else:
            assert allowed
            state, version = new, version + 1
        now = store.job(number)
        assert (now.state, now.version) == (state, version)
    assert number in ids(store.jobs(JobFilter(states=[state])).items)


def test_the_queue_is_by_priority_and_then_age(store: Store) -> None:
    for priority in (0, 5, 0, 5, -1):
        added(store, priority=priority)
    added(store, priority=100, state="running")
    assert ids(store.queued()) == [2, 4, 1, 3, 5]
    assert ids(store.queued(limit=2)) == [2, 4]


def test_active_jobs_are_those_with_a_process(store: Store) -> None:
    for state in ALL:
        added(store, state=state)
    assert [each.job.state for each in store.active()] == ["starting", "running", "cancelling"]


def test_jobs_are_counted_by_state(store: Store) -> None:
    for state in ("queued", "queued", "failed"):
        added(store, state=state)
    counts = store.count_jobs()
    assert set(counts) == set(ALL)
    assert {state: count for state, count in counts.items() if count} == {"queued": 2, "failed": 1}


def test_unfinished_jobs_of_a_submitter_are_counted(store: Store) -> None:
    for state in ALL:
        added(store, state=state, submitted_by="alice")
    added(store, submitted_by="bob")
    assert [store.count_unfinished(name) for name in ("alice", "bob", "nobody", "\0")] == [4, 1, 0, 0]


FILTERS: list[tuple[JobFilter, list[int]]] = [
    (JobFilter(), [5, 4, 3, 2, 1]),
    (JobFilter(states=["failed"]), [3]),
    (JobFilter(states=["failed", "queued"]), [5, 3, 1]),
    (JobFilter(kinds=["nightly"]), [4, 2]),
    (JobFilter(kinds=["nightly", "measure"], states=["running", "queued"]), [5, 4, 2]),
    (JobFilter(target="edge"), [2]),
    (JobFilter(schedule="every-night"), [4]),
    (JobFilter(model="mlp"), [3, 1]),
    (JobFilter(model="mlp", states=["failed"]), [3]),
    (JobFilter(model="ml"), []),
    (JobFilter(text="OUT of Memory"), [3]),
    (JobFilter(text="memory running"), []),
    (JobFilter(text="%"), []),
    (JobFilter(text="100_"), []),
    (JobFilter(text="ÜBER"), [5]),
    (JobFilter(text="a\0b\\"), []),
    (JobFilter(text="ALICE", kinds=["tune"]), [1]),
]


def test_a_list_is_filtered(store: Store) -> None:
    added(store, models=("mlp", "cnn"), submitted_by="alice")
    added(store, kind="nightly", state="running", target="edge")
    added(store, state="failed", models=("mlp",), reason="CUDA out of memory; 1000 MB")
    added(store, kind="nightly", state="running", schedule="every-night")
    added(store, kind="measure", repository="/über/models")
    for wanted, expected in FILTERS:
        assert ids(store.jobs(wanted).items) == expected, wanted
        # In pages of one, too.
        found, cursor = [], None
        for _ in range(len(expected) + 1):
            page = store.jobs(wanted, cursor=cursor, limit=1)
            found += ids(page.items)
            cursor = page.next
            if cursor is None:
                break
        assert (found, cursor) == (expected, None), wanted


def test_a_model_that_a_job_found_is_filtered_by(store: Store) -> None:
    added(store)
    result = ModelResult(model="found", trial=None, throughput=None, latency_ms=None, percentile=None, gain=None)
    store.change_job(1, among={"queued"}, results=(result,))
    assert ids(store.jobs(JobFilter(model="found")).items) == [1]
    store.change_job(1, among={"queued"}, results=())
    assert ids(store.jobs(JobFilter(model="found")).items) == []


@given(steps=st.lists(st.integers(0, 3), max_size=12), limit=st.integers(1, 4))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pages_show_each_job_once_while_jobs_are_added(store: Store, steps: list[int], limit: int) -> None:
    store.replace_index(Index())
    first = [added(store, state=state).id for state in ("queued", "failed", "running") * 3]
    found: list[int] = []
    page = store.jobs(limit=limit)
    found += ids(page.items)
    for more in [*steps, *[0] * len(first)]:
        for _ in range(more):
            added(store)
        if page.next is None:
            break
        page = store.jobs(cursor=page.next, limit=limit)
        found += ids(page.items)
    assert found == first[::-1]
    assert page.next is None


@pytest.mark.parametrize("cursor", ["", "x", "!!", "bnVsbA", "WzFd", "\0", "ü", "W" * 4000, "WyJqb2JzIiwgMTBd" * 2])
def test_a_wrong_cursor_is_said(store: Store, cursor: str) -> None:
    with pytest.raises(CursorError, match="is not the `next` of a page of jobs"):
        store.jobs(cursor=cursor)


@given(place=st.one_of(st.none(), st.integers(), st.text(), st.floats(), st.booleans(), st.lists(st.integers())))
def test_a_cursor_with_another_content_is_said(place: Any) -> None:
    import base64  # noqa: PLC0415

    from tuner.service.store.pages import number_of  # noqa: PLC0415

    cursor = base64.urlsafe_b64encode(json.dumps(["jobs", place]).encode()).decode()
    if type(place) is int and 0 < place < 2**31:
        assert number_of(cursor, "jobs") == place
    else:
        with pytest.raises(CursorError):
            number_of(cursor, "jobs")


def test_a_cursor_of_another_list_is_said(store: Store) -> None:
    for _ in range(2):
        added(store)
    cursor = store.jobs(limit=1).next
    with pytest.raises(CursorError, match="of a page of tokens"):
        store.tokens(cursor=cursor)
