"""`tritontune serve`: the service."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import click

from tuner.core.errors import JobError, UsageError

# Packages of the extra `service`; the last one brings its own data.
_PACKAGES = ("alembic", "cronsim", "fastapi", "multipart", "uvicorn")


def serve(
    *,
    data: Path,
    database: str | None,
    listen: str,
    config: Path | None,
    rebuild: bool,
    keep: str | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    behind_proxy: bool,
    public_url: str | None,
    wait: bool,
) -> None:
    """Run the service until it is asked to end.

    Raises:
        UsageError: a package is missing.
        JobError: an option is wrong.
    """
    if any(importlib.util.find_spec(package) is None for package in _PACKAGES):
        raise UsageError("tritontune serve needs more packages: pip install 'tritontune[service]'")
    from tuner.service.retention import parse_keep  # noqa: PLC0415 (needs these packages)
    from tuner.service.serving import ServeOptions  # noqa: PLC0415 (the same)
    from tuner.service.serving import serve as run  # noqa: PLC0415 (the same)

    if (tls_cert is None) != (tls_key is None):
        given, missing = ("--tls-cert", "--tls-key") if tls_cert else ("--tls-key", "--tls-cert")
        raise JobError(f"{given} needs {missing}")
    options = ServeOptions(
        data=data,
        database=database,
        listen=listen,
        config=config,
        rebuild=rebuild,
        keep=parse_keep(keep) if keep else None,
        tls=(tls_cert, tls_key) if tls_cert and tls_key else None,
        behind_proxy=behind_proxy,
        public_url=public_url,
        wait=wait,
    )
    run(options, click.echo)
