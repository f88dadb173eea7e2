"""How a study came to be measured, for who reads it later."""

from __future__ import annotations

from collections.abc import Mapping

from tuner.core.record import Record


class Provenance(Record):
    """One run that measured for a study; each `--resume` is another. Nothing in it is secret.

    Attributes:
        began: When, in UTC, as `2026-05-17T02:00:00Z`.
        command: A command line that asks for the same.
        budget_s: Seconds that the tuning of the model might take.
        tritontune: Its version.
        python: Its version.
        packages: Versions of what a measurement depends on, by package.
        system: The operating system that it ran on, and its kernel.
        processor: The processor there, in its maker's words; empty: nobody says.
        memory_bytes: Of that machine; None: nobody says.
        gpus: Names of the GPUs that the server might use, in order.
        cpus: Processor cores that the server might use; None: nobody says.
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
