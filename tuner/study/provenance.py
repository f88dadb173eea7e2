"""The provenance of a study's measurements."""

from __future__ import annotations

from collections.abc import Mapping

from tuner.core.record import Record


class Provenance(Record):
    """One run that measured for a study; each `--resume` is another run. It contains no secrets.

    Attributes:
        began: Start of the run in UTC, such as `2026-05-17T02:00:00Z`.
        command: An equivalent command line.
        budget_s: Budget of the model, in seconds.
        tritontune: Version of tritontune.
        python: Version of Python.
        packages: Versions of the packages that measurements depend on, by name.
        system: Operating system and kernel of the machine that ran tritontune.
        processor: Processor of that machine; empty: unknown.
        memory_bytes: Memory of that machine, in bytes; None: unknown.
        gpus: Names of the GPUs that the server could use, in order.
        cpus: Processor cores that the server could use; None: unknown.
    """

    began: str
    command: str
    budget_s: float
    tritontune: str
    python: str
    packages: Mapping[str, str]
    system: str
    processor: str
    memory_bytes: int | None
    gpus: tuple[str, ...]
    cpus: int | None = None
