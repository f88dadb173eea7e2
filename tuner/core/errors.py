"""Everything that can go wrong, and what each means for the exit code.

    TritontuneError
    ├── UsageError              what was asked is wrong                      exit 2
    │   ├── JobError            an option, a job file, a budget
    │   ├── RepositoryError     the model repository on disk
    │   ├── ConfigError         a config.pbtxt (file, line, column)
    │   ├── SpaceError          a search space file
    │   └── InputError          the model's inputs cannot be made up
    ├── ServerError             a Triton did not do its work; inside a trial this is data, not the end
    │   ├── LaunchError         it never became ready
    │   ├── ServerDiedError     it was ready and then it was gone
    │   ├── ServerHungError     it is there and answers nothing
    │   └── OutputsDifferError  it answers otherwise than the baseline
    ├── TuningError             the job cannot be done                       exit 1
    ├── SLOError                no candidate holds the SLO                   exit 3
    ├── InterruptedRunError     SIGTERM or Ctrl-C                            exit 130
    └── UnexpectedError         what nobody foresaw; a log file tells        exit 1

Every message is one line that says what is wrong, where, and what would be right. What else is raised is a fault of
tritontune's, or of what is around it (a full disk): the boundary around the commands makes an `UnexpectedError` of it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import Enum
from typing import ClassVar

from tuner.core.redaction import without_known_secrets


class TritontuneError(Exception):
    """Base of everything that this package raises on purpose.

    Args:
        message: One line, from which known secrets are left out: a server may have repeated one.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(without_known_secrets(message))


class UsageError(TritontuneError):
    """What was asked is wrong; nothing was measured."""

    exit_code: ClassVar[int] = 2


class JobError(UsageError):
    """An option or a job file does not say something that can be done."""


class RepositoryError(UsageError):
    """The model repository is not there, not a folder, or holds no such model."""


class ConfigError(UsageError):
    """A `config.pbtxt` cannot be read or edited."""


class SpaceError(UsageError):
    """A search space file is wrong."""


class InputError(UsageError):
    """Requests for the model cannot be made from what is known."""


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
    """A Triton did not do its work.

    Args:
        message: One line.
        cause: The kind of failure.
        last_words: The last lines that Triton wrote, oldest first; may be empty.
    """

    def __init__(self, message: str, *, cause: Cause, last_words: str = "") -> None:
        super().__init__(message)
        self.cause = cause
        self.last_words = without_known_secrets(last_words)


class LaunchError(ServerError):
    """The server never became ready."""


class ServerDiedError(ServerError):
    """The server was ready once and is gone."""


class ServerHungError(ServerError):
    """The server is there, and answers nothing within the deadline."""


class OutputsDifferError(ServerError):
    """The server answers a request otherwise than with the baseline; the message names the worst difference."""

    def __init__(self, message: str) -> None:
        super().__init__(message, cause=Cause.OUTPUTS_DIFFER)


class TuningError(TritontuneError):
    """The job cannot be done: the model does not load as it is, or nothing could be measured."""


class SLOError(TritontuneError):
    """No candidate holds the SLO."""

    exit_code: ClassVar[int] = 3


class InterruptedRunError(TritontuneError):
    """The run was asked to end before its time; what was measured is kept."""

    exit_code: ClassVar[int] = 130


class UnexpectedError(TritontuneError):
    """Something went wrong that nobody foresaw; the message names the log file that tells of it."""


MOST_CHARACTERS = 500
"""Of a reason on the terminal; what others wrote, such as a model's traceback, has no bound."""


def shortened(text: str, most: int = MOST_CHARACTERS) -> str:
    """A text in one line of so many characters at most; of a longer one the middle is left out.

    Its end often says what to do.
    """
    line = " ".join(text.split())
    if len(line) <= most:
        return line
    gap = f" [... {len(line) - most:,} more characters ...] "
    kept = most - len(gap)
    return f"{line[: kept - kept // 3]}{gap}{line[-(kept // 3) :]}"


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for the end of a message: `; did you mean 'mlp'?`, or ` (available: cnn, mlp)` if no name is similar."""
    names = sorted(known)
    return similar(name, names) or (f" (available: {', '.join(names)})" if names else "")


def similar(name: str, known: Iterable[str]) -> str:
    """A hint such as `; did you mean 'mlp'?` for the end of a message; empty if no name is similar."""
    near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""
