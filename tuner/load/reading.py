"""Reads the ledgers of an offer's workers, and merges them into samples."""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from tuner.load import ledger
from tuner.load.protocols import Responses, Samples

_DTYPES = {"q": np.int64, "i": np.int32, "I": np.uint32, "h": np.int16}
_OK = 0

_Scalar = TypeVar("_Scalar", bound=np.generic)


class LedgerReader:
    """The owner's side of one worker's ledger.

    Args:
        descriptor: The file descriptor of the memory; the caller closes it.
    """

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, 0)
        self._control = np.frombuffer(self._memory, np.int64, 16)
        length = ledger.array_length(len(self._memory))
        self._arrays = {
            name: np.frombuffer(self._memory, _DTYPES[form], length, at)
            for name, at, form in ledger.array_places(length)
        }

    @classmethod
    def make(cls, capacity: int | None = None) -> tuple[LedgerReader, int]:
        """A new ledger, and the descriptor to pass to its writer, and then to close."""
        descriptor = ledger.make_memory(capacity)
        try:
            return cls(descriptor), descriptor
        except BaseException:
            os.close(descriptor)
            raise

    def stop(self, until_ns: int) -> None:
        """Tell the writer to stop; requests under way may end until `until_ns`."""
        self._control[ledger.STOP_NS] = until_ns

    def word(self, place: int) -> int:
        """The control word at an index."""
        return int(self._control[place])

    @property
    def wall_ns(self) -> int:
        """Duration of the offer so far, in ns."""
        began_ns = self.word(ledger.BEGAN_NS)
        return (self.word(ledger.ENDED_NS) or time.monotonic_ns()) - began_ns if began_ns else 0

    def array(self, name: str, count: int) -> npt.NDArray[Any]:
        """The first `count` elements of an array, read-only."""
        view: npt.NDArray[Any] = self._arrays[name][:count].view()
        view.flags.writeable = False
        return view

    def messages(self) -> list[str]:
        """The error messages, in order of outcome number from 1."""
        whole = memoryview(self._memory)
        return [ledger.read_message(whole, number) for number in range(1, self.word(ledger.MESSAGES) + 1)]


def read_samples(readers: Sequence[LedgerReader], *, decoupled: bool = False) -> Samples:
    """The samples of all workers up to one moment, in the order in which requests ended.

    Args:
        readers: One reader for each worker.
        decoupled: Whether to read responses too.
    """
    # Clocks are read before counts, so that every counted request is within the times read.
    waiting = sum(reader.word(ledger.WAITING) for reader in readers)
    cpu_s = sum(reader.word(ledger.CPU_NS) for reader in readers) / 1e9
    counts = _counts(readers)
    names = ["sent_ns", "done_ns", "lag_us", "received", "outcome"] + ["first_ns", "responses"] * decoupled
    columns = {
        name: [reader.array(name, count) for reader, count in zip(readers, counts, strict=True)] for name in names
    }
    order = None
    if len(readers) > 1:
        order = np.argsort(np.concatenate(columns["done_ns"]), kind="stable")
    merged = {name: _merged(parts, order) for name, parts in columns.items()}
    ok = merged["outcome"] == _OK
    return Samples(
        sent_ns=merged["sent_ns"],
        done_ns=merged["done_ns"],
        ok=_frozen(ok),
        errors=MappingProxyType(_errors(readers, columns["outcome"])),
        cpu_s=cpu_s,
        wall_s=max(reader.wall_ns for reader in readers) / 1e9,
        lag_us=merged["lag_us"],
        received=merged["received"],
        processes=len(readers),
        waiting=waiting,
        responses=_responses(readers, merged) if decoupled else None,
        began_ns=min((began_ns for reader in readers if (began_ns := reader.word(ledger.BEGAN_NS))), default=None),
    )


def _counts(readers: Sequence[LedgerReader]) -> list[int]:
    """The number of samples to read from each worker: those up to the time that all workers have recorded.

    Otherwise a later sample of one worker could belong between samples that were read already. A worker that has ended
    records nothing more, so its time is ignored.
    """
    noted_ns = [reader.word(ledger.NOTED_NS) for reader in readers if not reader.word(ledger.ENDED_NS)]
    if len(readers) == 1 or not noted_ns:
        return [reader.word(ledger.COUNT) for reader in readers]
    until_ns = min(noted_ns)
    return [
        int(np.searchsorted(reader.array("done_ns", reader.word(ledger.COUNT)), until_ns, side="right"))
        for reader in readers
    ]


def _merged(parts: list[npt.NDArray[Any]], order: npt.NDArray[np.intp] | None) -> npt.NDArray[Any]:
    return parts[0] if order is None else _frozen(np.concatenate(parts)[order])


def _errors(readers: Sequence[LedgerReader], outcomes: list[npt.NDArray[Any]]) -> dict[str, int]:
    errors: dict[str, int] = {}
    for reader, outcome in zip(readers, outcomes, strict=True):
        if not (messages := reader.messages()):
            continue
        seen = np.bincount(outcome.astype(np.int64), minlength=1)
        for number in seen.nonzero()[0]:
            if number != _OK:
                message = messages[int(number) - 1]
                errors[message] = errors.get(message, 0) + int(seen[number])
    return errors


def _responses(readers: Sequence[LedgerReader], merged: dict[str, npt.NDArray[Any]]) -> Responses:
    gaps = [reader.array("gap_us", reader.word(ledger.GAPS)) for reader in readers]
    return Responses(
        merged["first_ns"], merged["responses"], _merged(gaps, None) if len(gaps) == 1 else np.concatenate(gaps)
    )


def _frozen(array: npt.NDArray[_Scalar]) -> npt.NDArray[_Scalar]:
    array.flags.writeable = False
    return array
