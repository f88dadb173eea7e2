"""The exceptions of tritontune, with their exit codes.

    TritontuneError
    ├── UsageError              the request is wrong                         exit 2
    │   ├── JobError            an option or a job file
    │   ├── RepositoryError     the model repository
    │   ├── ConfigError         a config.pbtxt (file, line, column)
    │   ├── SpaceError          a search space file
    │   └── InputError          input data of requests
    ├── ServerError             a Triton server failed; a trial records it
    │   ├── LaunchError         it did not become ready
    │   ├── ServerDiedError     it ended after it was ready
    │   ├── ServerHungError     it runs, but does not answer
    │   └── OutputsDifferError  its outputs differ from the baseline's
    ├── HostLostError           a host of the run was lost; its work is done elsewhere
    ├── ServiceError            `tritontune serve` failed to answer          exit 1
    │   ├── ServiceAwayError    it cannot be reached, or is overloaded
    │   └── RefusedError        it refuses the request                       exit 2
    │       ├── TokenRefusedError   401: the token is missing, unknown or expired
    │       ├── NotAllowedError     403: the role of the token, or the policy of the service
    │       ├── NotThereError       404: no such job, target, proposal, ...
    │       └── StateConflictError  409, 412: the state or the version differs
    ├── TuningError             tuning failed                                exit 1
    ├── SLOError                no candidate holds the SLO                   exit 3
    ├── InterruptedRunError     SIGTERM or Ctrl-C                            exit 130
    └── UnexpectedError         all other errors, with a log file            exit 1

Every message is one line with the problem, its place, and the fix. Other exceptions are bugs of tritontune, or come
from the system (a full disk); `tuner.core.boundary` converts them to an `UnexpectedError`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, ClassVar

from tuner.core.redaction import without_known_secrets


class TritontuneError(Exception):
    """Base of all exceptions of tritontune.

    Args:
        message: One line. Known secrets are removed, as a server may have repeated one.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(without_known_secrets(message))

    def __reduce__(self) -> tuple[Callable[..., TritontuneError], tuple[Any, ...]]:
        """A copy for other processes; subclasses have other arguments than `args`."""
        return _same, (type(self), self.args, self.__dict__)


def _same(kind: type[TritontuneError], args: tuple[Any, ...], attributes: dict[str, Any]) -> TritontuneError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(attributes)
    return error


class UsageError(TritontuneError):
    """The request is wrong; nothing was measured."""

    exit_code: ClassVar[int] = 2


class JobError(UsageError):
    """An option or a job file is wrong."""


class RepositoryError(UsageError):
    """The model repository does not exist, is not a folder, or has no such model."""


class ConfigError(UsageError):
    """A `config.pbtxt` cannot be read or edited."""


class SpaceError(UsageError):
    """A search space file is wrong."""


class InputError(UsageError):
    """Requests for the model cannot be made from the input data."""


class Cause(str, Enum):
    """Why a trial failed."""

    INVALID_CONFIG = "invalid_config"
    OUT_OF_MEMORY = "out_of_memory"
    CRASHED = "crashed"
    TIMED_OUT = "timed_out"
    HUNG = "hung"
    REQUESTS_FAILED = "requests_failed"
    OUTPUTS_DIFFER = "outputs_differ"
    CONFIG_DIFFERS = "config_differs"
    DUPLICATE = "duplicate"


class ServerError(TritontuneError):
    """A Triton server failed.

    Args:
        message: One line.
        cause: The kind of failure.
        last_words: The last lines of Triton's log, oldest first; may be empty.
    """

    def __init__(self, message: str, *, cause: Cause, last_words: str = "") -> None:
        super().__init__(message)
        self.cause = cause
        self.last_words = without_known_secrets(last_words)


class HostLostError(TritontuneError):
    """A slot or its host was lost: no fault of the candidate, whose work may be done elsewhere."""


class LaunchError(ServerError):
    """The server did not become ready."""


class ServerDiedError(ServerError):
    """The server ended after it was ready."""


class ServerHungError(ServerError):
    """The server runs, but does not answer within the deadline."""


class OutputsDifferError(ServerError):
    """The server's outputs differ from the baseline's.

    Args:
        message: One line with the largest difference.
        values_only: Whether only values differ, not the outputs' names, types or shapes.
    """

    def __init__(self, message: str, *, values_only: bool = False) -> None:
        super().__init__(message, cause=Cause.OUTPUTS_DIFFER)
        self.values_only = values_only


class ServiceError(TritontuneError):
    """A request to `tritontune serve` failed.

    Args:
        message: One line.
        status: Status code of the response; None: there was none.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ServiceAwayError(ServiceError):
    """The service cannot be reached, or is overloaded."""


class RefusedError(ServiceError):
    """The service refuses the request."""

    exit_code: ClassVar[int] = 2


class TokenRefusedError(RefusedError):
    """The token is missing, unknown or expired."""


class NotAllowedError(RefusedError):
    """The role of the token, or the policy of the service, does not allow the request."""


class NotThereError(RefusedError):
    """The service has no such job, target, proposal, schedule, token or file."""


class StateConflictError(RefusedError):
    """The resource is in another state, or has changed since it was read."""


class TuningError(TritontuneError):
    """Tuning failed: the baseline does not load, or nothing could be measured."""


class SLOError(TritontuneError):
    """No candidate holds the SLO."""

    exit_code: ClassVar[int] = 3


class InterruptedRunError(TritontuneError):
    """The run was interrupted; its measurements are kept."""

    exit_code: ClassVar[int] = 130


class UnexpectedError(TritontuneError):
    """An error that tritontune did not foresee; the message names the log file."""


MOST_CHARACTERS = 500
"""The longest reason on the terminal, in characters. A model's traceback, for example, can be much longer."""


def shortened(text: str, most: int = MOST_CHARACTERS) -> str:
    """A text as one line of at most `most` characters, shortened in the middle, since its end often has the fix."""
    line = " ".join(text.split())
    if len(line) <= most:
        return line
    gap = f" [... {len(line) - most:,} more characters ...] "
    kept = most - len(gap)
    return f"{line[: kept - kept // 3]}{gap}{line[-(kept // 3) :]}"


def nearest(name: str, choices: Iterable[str]) -> str:
    """A hint for the end of a message: `; did you mean 'mlp'?`, or ` (available: cnn, mlp)` if no name is similar."""
    names = sorted(choices)
    return similar(name, names) or (f" (available: {', '.join(names)})" if names else "")


def similar(name: str, choices: Iterable[str]) -> str:
    """A hint such as `; did you mean 'mlp'?` for the end of a message; empty if no name is similar."""
    near = difflib.get_close_matches(name, sorted(choices), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""
