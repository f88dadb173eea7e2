"""The quality checks on a Triton: what must fail one does, and what is sound passes."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from support.tritons import on_fake_server, on_real_server

from tuner.core.loads import Concurrency
from tuner.load.protocols import Samples
from tuner.measure.quality_warnings import QualityCheck, QualityWarning
from tuner.measure.rules import LevelRules
from tuner.measure.session import Session, open_session
from tuner.options.groups import LoadOptions
from tuner.servers.installation import TritonInstallation
from tuner.servers.process import ProcessLauncher
from tuner.servers.protocols import Launch
from tuner.testing.repositories import ModelRepositoryFactory, config_text

pytestmark = pytest.mark.slow

RULES = LevelRules(min_s=0.5, max_s=0.6)

Open = Callable[..., AbstractContextManager[Session]]


@pytest.fixture(scope="module", params=["fake_triton"])
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Open]:
    """One server for all; opens a session with a model of it."""
    installation: TritonInstallation = request.getfixturevalue(request.param)
    folder = tmp_path_factory.mktemp("checks")
    (folder / "models").mkdir()
    models = ModelRepositoryFactory(folder / "models")
    models.add("slow", config=config_text(instances=2, sleep_ms=10))
    models.add("fails_requests", config=config_text(fail_every=100))
    models.add("identity", name="cached", config=config_text(more="response_cache { enable: true }"))
    # It goes on for longer than a busy machine warms up.
    models.add("drifts", config=config_text(from_ms=10, to_ms=2010, over=600))
    models.add("hangs", name="holds", config=config_text(instances=2, hang_after=40, sleep_ms=2))
    others = ("fails_requests", "cached", "drifts", "holds")
    arguments = ("--cache-config=local,size=1048576", *(f"--load-model={name}" for name in others))
    launch = Launch(models.path, "slow", folder / "log", 60)
    with ProcessLauncher(installation, arguments).launch(launch) as server:

        @contextmanager
        def session(model: str, rules: LevelRules = RULES) -> Iterator[Session]:
            with open_session(
                server.endpoint, model, LoadOptions(), rules=rules, health=server.check, usage=server.usage
            ) as session:
                yield session

        yield session
        server.stop(grace_s=0.5)


def reasons(warnings: tuple[QualityWarning, ...]) -> dict[QualityCheck, str]:
    return {warning.check: warning.reason for warning in warnings}


def test_a_sound_model_is_doubted_for_the_machines_sake_alone(opened: Open) -> None:
    """Others may use this machine, which is then said."""
    with opened("slow") as session:
        for concurrency in (1, 2, 8):
            found = reasons(session.measure(Concurrency(concurrency)).warnings)
            assert not {
                QualityCheck.LITTLES_LAW,
                QualityCheck.REQUEST_COUNT,
                QualityCheck.FAILURES,
                QualityCheck.CACHE_HITS,
            } & set(found)


def test_a_model_that_fails_one_request_in_a_hundred(opened: Open) -> None:
    rules = LevelRules(min_s=0.3, max_s=0.4, min_requests=600)
    with opened("fails_requests", rules) as session:
        point = session.measure(Concurrency(4))
        reason = reasons(point.warnings)[QualityCheck.FAILURES]
        assert (
            reason
            == f"{point.errors} of {point.errors + point.requests:,} requests failed, most often with {point.error}"
        )
        assert "not this one" in reason
        assert point.errors / point.requests == pytest.approx(0.01, rel=0.5)
        assert QualityCheck.FAILURES in reasons(point.discarded)
        assert QualityCheck.LITTLES_LAW not in reasons(point.warnings)


@pytest.mark.parametrize("opened", [on_fake_server(), on_real_server()], indirect=True)
def test_answers_of_the_response_cache(opened: Open) -> None:
    with opened("cached") as session:
        point = session.measure(Concurrency(4))
    assert point.server is not None
    assert point.server.cache_hits > 0.9 * point.server.requests
    assert "the response cache, not the model" in reasons(point.warnings)[QualityCheck.CACHE_HITS]
    assert QualityCheck.REQUEST_COUNT not in reasons(point.warnings)


@pytest.mark.parametrize("opened", [on_fake_server(), on_real_server()], indirect=True)
def test_another_client_of_the_model(opened: Open) -> None:
    over, begun = threading.Event(), threading.Event()

    def watch(samples: Samples) -> float | None:
        if len(samples):
            begun.set()
        return None if over.is_set() else 0.05

    with opened("slow") as session, opened("slow") as other:
        offer = threading.Thread(
            target=lambda: other._engine.offer(Concurrency(4), watch, first_look_s=0.05), daemon=True
        )
        offer.start()
        try:
            assert begun.wait(60)
            point = session.measure(Concurrency(4))
        finally:
            over.set()
            offer.join()
        assert reasons(point.warnings)[QualityCheck.REQUEST_COUNT].endswith("another client uses the model")
        assert QualityCheck.REQUEST_COUNT not in reasons(session.measure(Concurrency(2)).warnings)


def test_a_model_that_is_ever_slower(opened: Open) -> None:
    with opened("drifts", LevelRules(min_s=1.0, max_s=1.1, min_requests=30)) as session:
        point = session.measure(Concurrency(1))
    # That other programs wake and sleep may hide it once.
    reason = reasons((*point.warnings, *point.discarded))[QualityCheck.DRIFT]
    first, second = (float(word) for word in reason.split() if word[0].isdigit())
    assert reason.startswith("drift: mean latency was")
    assert second > 1.05 * first


def test_a_request_that_is_held_back(opened: Open) -> None:
    """One of two instances stops for good, and the other goes on."""
    # However slow the machine is, it stops early among so many. The client, which may be late, is not busy.
    with opened("holds", LevelRules(min_s=0.3, max_s=0.4, min_requests=1000)) as session:
        point = session.measure(Concurrency(4))
    reason = reasons((*point.warnings, *point.discarded))[QualityCheck.LITTLES_LAW]
    assert reason.startswith("Little's law: concurrency is 4, but throughput x mean latency is ")


def test_programs_that_run_beside_it(opened: Open) -> None:
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        with opened("slow", LevelRules(min_s=0.3, max_s=0.4)) as session:
            point = session.measure(Concurrency(1))
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()
    if point.machine is None:
        pytest.skip("this machine does not tell")
    assert point.machine.elsewhere_cores is not None
    assert point.machine.elsewhere_cores > 0.3
    assert "load from elsewhere: other processes used" in reasons(point.warnings)[QualityCheck.MACHINE_LOAD]
    assert QualityCheck.MACHINE_LOAD in reasons(point.discarded)
