"""Runs the service: `tritontune serve`."""

from __future__ import annotations

import gc
import ipaddress
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from tuner.client.local_service import registered
from tuner.core.errors import JobError
from tuner.core.lock import locked
from tuner.core.mark import VARIABLE
from tuner.core.redaction import is_secret_name
from tuner.nightly.secrets import expanded
from tuner.service.app import create_app
from tuner.service.endings import Endings
from tuner.service.errors import ConflictError
from tuner.service.job_folder import JobFolder
from tuner.service.job_view import JobViews
from tuner.service.logs import log_to_stderr
from tuner.service.operations import Service
from tuner.service.proposals import ProposalDesk
from tuner.service.rebuild import prepare_index
from tuner.service.retention import Retention
from tuner.service.runner import Runner
from tuner.service.schedules import Scheduler
from tuner.service.secrets import Secrets
from tuner.service.settings import FILE, ServiceSettings
from tuner.service.slots import LocalHost
from tuner.service.store.store import Store
from tuner.service.web_server import BACKLOG, WebServer, address_of, bound

_log = logging.getLogger(__name__)

_AGAIN_S = 1.0
_OTHER = "another tritontune serve"
_YEAR_S = 365 * 24 * 3600.0
# Variables of the service that jobs do not need: how it reaches its database, and itself.
_OURS = ("PG", "TRITONTUNE_")
# What only jobs on a Ray cluster need, such as RAY_AUTH_TOKEN.
_OF_CLUSTER = "RAY_"


@dataclass(frozen=True)
class ServeOptions:
    """The options of `tritontune serve`.

    Attributes:
        data: The data folder.
        database: URL of the database, in which `${NAME}` is an environment variable; None: SQLite in the data folder.
        listen: `HOST:PORT`.
        config: The config file; None: `service.yaml` in the data folder, if it exists.
        rebuild: Whether to make the index anew from the folders.
        keep: How long logs and points of trials are kept; None: for ever.
        tls: Files of the certificate and its private key.
        behind_proxy: Whether all requests come from a proxy that adds TLS.
        public_url: The address that users have, if it is another one.
        wait: Whether to wait for another service with the same data folder or database to end.
    """

    data: Path = Path("tritontune-service")
    database: str | None = None
    listen: str = "127.0.0.1:8100"
    config: Path | None = None
    rebuild: bool = False
    keep: timedelta | None = None
    tls: tuple[Path, Path] | None = None
    behind_proxy: bool = False
    public_url: str | None = None
    wait: bool = False

    def check(self) -> None:
        """Check what needs no file.

        Raises:
            JobError: an option is wrong, or others on the network could read tokens.
        """
        host, _ = address_of(self.listen)
        if self.tls and self.behind_proxy:
            raise JobError("--behind-proxy: the proxy adds TLS; omit --tls-cert and --tls-key")
        if not (_is_loopback(host) or self.tls or self.behind_proxy):
            raise JobError(
                f"--listen {self.listen}: others on the network could read tokens; give --tls-cert and --tls-key, or "
                "--behind-proxy if a proxy adds TLS"
            )
        if self.public_url is not None:
            parts = urlsplit(self.public_url)
            if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/") or parts.query:
                raise JobError(f"--public-url: {self.public_url!r} is not an address; write https://HOST[:PORT]")

    @property
    def database_url(self) -> str:
        """URL of the database, with its secrets.

        Raises:
            JobError: an environment variable is missing.
        """
        if self.database is None:
            return f"sqlite:///{self.data.absolute() / 'service.db'}"
        try:
            return expanded(self.database)
        except ValueError as error:
            raise JobError(f"--database: {error}") from None


def serve(options: ServeOptions, say: Callable[[str], None]) -> None:
    """Run the service until SIGTERM or Ctrl-C. Jobs go on after its end, and the next service adopts them.

    Args:
        options: What is asked.
        say: Tells the user a line.

    Raises:
        JobError: an option or a file is wrong, the address is in use, or another service uses the data folder.
        ConflictError: another service uses the database, or has taken it over while this one was stopped.
        StoreUnavailableError: the database does not answer.
    """
    options.check()
    config = _config_of(options)
    settings = ServiceSettings.read(config) if config else ServiceSettings()
    try:
        options.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise JobError(f"--data: {options.data}: cannot be made: {error.strerror}") from None
    log_to_stderr()
    with ExitStack() as stack:
        # First, so that a second service does not get so far as to look at jobs.
        opened = stack.enter_context(_closing(bound(options.listen)))
        stack.enter_context(_alone(options, say))
        store = stack.enter_context(Store.opened(options.database_url, data=options.data))
        hold = stack.enter_context(store.hold(wait_s=_YEAR_S if options.wait else 0))
        for line in prepare_index(store, options.data, anew=options.rebuild):
            say(line)
        jobs = options.data.absolute() / "jobs"
        desk = ProposalDesk(store, jobs)
        endings = Endings(store, jobs, desk)
        secrets = Secrets(settings.secrets, os.environ, settings.secrets_folder)
        runner = Runner(
            store,
            jobs,
            LocalHost.here(settings.cores_per_slot, jobs_per_cluster=settings.jobs_per_cluster),
            environment_of_jobs(os.environ, secrets),
            of_cluster={name: value for name, value in os.environ.items() if name.startswith(_OF_CLUSTER)},
            secrets=secrets.values,
            config=config and config.absolute(),
            lost=hold.lost,
            ended=endings.job_ended,
            keeps_spare=True,
        )
        service = Service(
            store,
            runner,
            JobViews(lambda job_id: JobFolder.of(jobs, job_id).path),
            settings,
            options.data.absolute(),
            desk=desk,
        )
        _, token_id = service.auth.admin_token(options.data)
        address = _address(options, opened)
        app = create_app(service, listen=address_of(options.listen)[0], public_url=options.public_url)
        server = WebServer(app, tls=options.tls, behind_proxy=options.behind_proxy)
        hold.when_lost(server.stop)
        stack.enter_context(registered(_local_address(options, opened), options.data))
        stack.enter_context(endings.running())
        stack.enter_context(Scheduler(store, service.submit_scheduled).running())
        if options.keep is not None:
            stack.enter_context(Retention(store, jobs, options.keep).running())
        runner.start()
        stack.callback(runner.close)
        # What lives as long as the service need not be looked at by every full collection, which takes 0.2 s else.
        gc.collect()
        gc.freeze()
        # From the first line on, the service answers, and ends when it is told to.
        opened.listen(BACKLOG)
        with server.capture_signals():
            say(f"tritontune serves {options.data} at {address}")
            say(f"log in: {address}/login?code={service.auth.new_code(token_id)} (once, within 15 minutes)")
            say(f"token of the role admin: {options.data / 'admin.token'}")
            server.run(sockets=[opened])
        if hold.lost.is_set():
            raise ConflictError(f"another service has taken over the database: {store.holder()}; jobs that run go on")
        say("the service ends; jobs that run go on")


def environment_of_jobs(environment: Mapping[str, str], secrets: Secrets) -> dict[str, str]:
    """The environment of jobs: that of the service without its own secrets.

    Args:
        environment: The environment of the service.
        secrets: The secrets that jobs may refer to.
    """
    return {
        name: value
        for name, value in environment.items()
        if secrets.may(name)
        or not (is_secret_name(name) or name.startswith(_OF_CLUSTER) or (name.startswith(_OURS) and name != VARIABLE))
    }


def _config_of(options: ServeOptions) -> Path | None:
    if options.config is not None:
        return options.config
    default = options.data / FILE
    return default if default.exists() else None


@contextmanager
def _alone(options: ServeOptions, say: Callable[[str], None]) -> Iterator[None]:
    """The lock of the data folder; waits for it if that is asked for."""
    told = False
    with ExitStack() as stack:
        while True:
            try:
                about = f"process {os.getpid()} on {socket.gethostname()}"
                stack.enter_context(locked(options.data, option="--data", holder=_OTHER, about=about))
                break
            except JobError as error:
                if _OTHER not in str(error):
                    raise
                if not options.wait:
                    raise JobError(f"{error}; end it, or wait for its end with --wait") from None
                if not told:
                    say(f"waiting: {error}")
                    told = True
                time.sleep(_AGAIN_S)
        yield


@contextmanager
def _closing(opened: socket.socket) -> Iterator[socket.socket]:
    with opened:
        yield opened


def _address(options: ServeOptions, opened: socket.socket) -> str:
    """The address for users."""
    return options.public_url.rstrip("/") if options.public_url else _local_address(options, opened)


def _local_address(options: ServeOptions, opened: socket.socket) -> str:
    """The address on this machine."""
    host, port = opened.getsockname()[:2]
    if ipaddress.ip_address(host.partition("%")[0]).is_unspecified:
        host = "127.0.0.1"
    return f"http{'s' if options.tls else ''}://{f'[{host}]' if ':' in host else host}:{port}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
