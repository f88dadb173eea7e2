"""What tests of several folders need: a Triton to start, and models to load."""

from __future__ import annotations

import gc
import importlib.util
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from types import SimpleNamespace

import docker
import pytest
from alembic.script import ScriptDirectory
from hypothesis import settings
from optuna.storages import RDBStorage
from optuna.storages._rdb.storage import _VersionManager
from sqlalchemy import Engine, event
from support.browser import Browser, chromium
from support.certificates import Certificates
from support.command_line import end_running
from support.docker_image import docker_engine
from support.nursery import Nursery
from support.services import Services, triton_services

from tuner.core import redaction
from tuner.load import engine as load_engine
from tuner.servers.installation import TritonInstallation, find_triton
from tuner.servers.process import ProcessLauncher
from tuner.study import study
from tuner.testing.installations import fake_installation
from tuner.testing.repositories import ModelRepositoryFactory

# Slots are locked for tests of this process alone, as others run at the same time. Before tests import what reads it.
_LOCKS = tempfile.TemporaryDirectory(prefix="tritontune-locks-")
os.environ["TRITONTUNE_LOCKS"] = _LOCKS.name

# Before tests import them: what they assert says what it saw when it fails, as in the tests themselves.
pytest.register_assert_rewrite(
    *(f"tuner.testing.{part}_contract" for part in ("launcher", "server", "engine", "executor"))
)

# How many examples a property is tried with, where a test does not say so itself: `HYPOTHESIS_PROFILE`.
for _profile, _examples in (("brief", 5), ("usual", 20), ("thorough", 100)):
    settings.register_profile(_profile, settings(), max_examples=_examples, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "usual"))

# Fixtures of the whole session that take seconds: a launch, a run, a browser.
_SHARED = {"finished_run", "browser", "long_run", "triton_serve", "ray_cluster"}


def pytest_configure(config: pytest.Config) -> None:
    """Tests send Ctrl-C, which shells ignore in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        # Who tests in parallel collects first: meanwhile one process compiles what each of them would.
        script = Path(__file__).parent / "support/compile_simulation.py"
        compiling = subprocess.Popen([sys.executable, script])

        def await_its_end() -> None:
            compiling.wait()

        config.add_cleanup(await_its_end)
    config.add_cleanup(_LOCKS.cleanup)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep thousands of tests, which live until the end, out of each garbage collection."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts a real Triton, and keep tests that share a costly fixture in one process."""
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if "triton_installation" in fixtures:
            item.add_marker(pytest.mark.triton)
        if item.get_closest_marker("docker"):
            item.add_marker(pytest.mark.xdist_group("docker"))  # what a killed owner has left, any other removes
        elif shared := _SHARED.intersection(fixtures):
            item.add_marker(pytest.mark.xdist_group(min(shared)))
        elif _has_a_fixture_of_its_module(item):
            item.add_marker(pytest.mark.xdist_group(item.location[0]))


def _has_a_fixture_of_its_module(item: pytest.Item) -> bool:
    if not isinstance(item, pytest.Function):
        return False
    definitions = item._fixtureinfo.name2fixturedefs.values()
    return any(each.scope in {"module", "class"} for several in definitions for each in several)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """On CI, where all that tests need is installed, a test that is skipped has failed."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"skipped on CI: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One for all tests."""
    with chromium() as opened:
        yield opened


@pytest.fixture(autouse=True)
def _no_command_outlives_its_test() -> Iterator[None]:
    """What a test has started and not ended, as where it failed midway, is ended."""
    yield
    end_running()


@pytest.fixture(scope="session", autouse=True)
def _services_are_no_others(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Commands find the services that tests start, and none that runs on this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        for name in ("SERVER", "TOKEN", "TLS_CA"):
            patch.delenv(f"TRITONTUNE_{name}", raising=False)
        yield


@pytest.fixture(autouse=True)
def _secrets_are_known_to_their_test_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test gave as a secret, such as the word `secret`, is no secret in what later ones say."""
    monkeypatch.setattr(redaction, "_known", set())


@pytest.fixture(scope="session", autouse=True)
def _migrations_are_read_once() -> Iterator[None]:
    """Optuna reads its ten migrations, the same each time, for each database it opens: 100 ms of CPU time a study."""
    read, known = _VersionManager._create_alembic_script, list[ScriptDirectory]()

    def once(manager: _VersionManager) -> ScriptDirectory:
        known[:] = known or [read(manager)]
        return known[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_VersionManager, "_create_alembic_script", once)
        yield


@pytest.fixture(scope="session", autouse=True)
def _studies_are_cheap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A new database of studies is a copy of an empty one, and none waits for the disk: half of what a study costs."""
    make, empty = study._storage, tmp_path_factory.mktemp("studies") / "study.db"

    def storage(database: Path) -> RDBStorage:
        if not empty.exists():
            make(empty)
        if not database.exists() and database.parent.is_dir():
            shutil.copyfile(empty, database)
        return make(database)

    def spare_the_disk(connection: object, _record: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", spare_the_disk)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "_storage", storage)
        yield
    event.remove(Engine, "connect", spare_the_disk)


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Where load workers start in a few ms."""
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture(autouse=True)
def _workers_start_fast(request: pytest.FixtureRequest, nursery: Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    """But beside a real Triton, and where a test is about their start (`pytest.mark.real_workers`)."""
    if not {"triton", "docker", "real_workers"} & {mark.name for mark in request.node.iter_markers()}:
        names = SimpleNamespace(**{**vars(subprocess), "Popen": nursery.popen})
        monkeypatch.setattr(load_engine, "subprocess", names)


@pytest.fixture(scope="session")
def triton_installation() -> TritonInstallation:
    """The Triton of the wheel, or of this machine. For tests marked `triton`."""
    if importlib.util.find_spec("pytriton") is None:
        pytest.skip("needs pip install 'tritontune[server]'")
    return find_triton()


@pytest.fixture(scope="session")
def triton_launcher(triton_installation: TritonInstallation) -> ProcessLauncher:
    """Starts it as a process."""
    return ProcessLauncher(triton_installation)


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    """A client of the Docker engine, which has the images of the tests; skips where there is no engine or no image."""
    with docker_engine() as client:
        yield client


@pytest.fixture(autouse=True)
def _engine_where_marked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test marked `docker` runs without the engine, and no other with it."""
    if request.node.get_closest_marker("docker"):
        request.getfixturevalue("engine")
    else:
        monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")


@pytest.fixture(autouse=True)
def _nothing_else_runs_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel counts for the whole machine, where other tests are at work."""
    monkeypatch.setattr("tuner.servers.server.oom_kills", lambda: 0)


@pytest.fixture(scope="session")
def fake_triton(tmp_path_factory: pytest.TempPathFactory) -> TritonInstallation:
    """A fake Triton; on the command line, `--triton-path` takes its `root`."""
    return fake_installation(tmp_path_factory.mktemp("fake"))


@pytest.fixture(scope="session")
def fake_path(fake_triton: TritonInstallation) -> str:
    """A `PATH` on which the fake Triton is found before all others."""
    return f"{fake_triton.binary.parent}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture
def fake_on_path(request: pytest.FixtureRequest, fake_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands and jobs that name no Triton find the fake one; in a test marked `triton`, the real one."""
    if request.node.get_closest_marker("triton"):
        request.getfixturevalue("triton_installation")
    else:
        monkeypatch.setenv("PATH", fake_path)


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.triton)])
def each_triton(fake_on_path: None) -> None:
    """A test with the fake Triton, and another with the real one."""


@pytest.fixture(scope="session")
def fake_launcher(fake_triton: TritonInstallation) -> ProcessLauncher:
    """Starts it as a process."""
    return ProcessLauncher(fake_triton)


@pytest.fixture(params=["fake_triton"])
def installation(request: pytest.FixtureRequest) -> TritonInstallation:
    """The fake one, or that which `support.tritons.on_real_server` says."""
    found: TritonInstallation = request.getfixturevalue(request.param)
    return found


# They outlive the tests idly.
@pytest.fixture(scope="session")
def triton_serve(
    triton_installation: TritonInstallation, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Services]:
    """Models of a real Triton."""
    with triton_services(triton_installation, tmp_path_factory.mktemp("services")) as serve:
        yield serve


@pytest.fixture(scope="session")
def fake_serve(fake_triton: TritonInstallation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """The same on a fake one."""
    with triton_services(fake_triton, tmp_path_factory.mktemp("fake_services")) as serve:
        yield serve


@pytest.fixture(params=["fake_serve"])
def services(request: pytest.FixtureRequest) -> Services:
    """Those of the fake one, or of that which `support.services.ON_BOTH` says."""
    found: Services = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def model_repository(tmp_path: Path) -> ModelRepositoryFactory:
    """An empty model repository, and a hand that adds models to it."""
    path = tmp_path / "model_repository"
    path.mkdir()
    return ModelRepositoryFactory(path)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Of a CA, a server and a client."""
    return Certificates.make(tmp_path_factory.mktemp("certificates"))
