"""The exceptions of the service.

TritontuneError
├── StoreUnavailableError   the database does not answer                 exit 1
├── NotFoundError           no resource has this id or name              exit 2
├── ConflictError           the resource is in another state             exit 2
└── UsageError
    └── CursorError         the cursor of a page is not one of ours      exit 2
"""

from __future__ import annotations

from typing import ClassVar

from tuner.core.errors import TritontuneError, UsageError


class StoreUnavailableError(TritontuneError):
    """The database does not answer in time, or cannot be written to. It may work again later."""


class NotFoundError(TritontuneError):
    """No resource has this id or name.

    Args:
        kind: What was looked for: `job`, `target`, `schedule`, `proposal`, `token`, ...
        name: Its id or name.
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, kind: str, name: object) -> None:
        super().__init__(f"no {kind} {str(name)[:100]!r}" if isinstance(name, str) else f"no {kind} {name}")
        self.kind = kind
        self.name = name


class ConflictError(TritontuneError):
    """The resource is in another state, or has another version, than the change needs.

    Args:
        reason: One line.
    """

    exit_code: ClassVar[int] = 2


class CursorError(UsageError):
    """The cursor of a page is not one that the service gave out for this list."""
