"""Removes secrets from texts that others will read.

Descriptions of a server, a job or a run are redacted where the text is made, so that no writer needs to know about
secrets. The whole value is replaced, without a digest: a short secret could be guessed from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from tuner.core.atomic_file import write_atomically

HIDDEN = "***"

# `max_tokens`, `tokenizer` and `author` do not match, as they are no secrets.
_NAMES = (
    r"pass(?:word|wd|phrase)?|secret|token(?!s|iz)|credential|api[-_]?key|access[-_]?key|private[-_]?key"
    r"|auth(?!ors?(?![a-z]))|bearer|cookie"
)
_NAME = rf"[\w.-]*(?:{_NAMES})[\w.-]*|(?:[\w.-]*[-_.])?(?:key|sig|signature)"
_SECRET_NAME = re.compile(_NAME, re.IGNORECASE)
# `password=SECRET`, `"token": "SECRET"`.
_NAMED = re.compile(
    rf"(?<![\w.-])(?P<name>(?:{_NAME})[\"']?\s*[=:]\s*)(?P<value>\"[^\"]*\"|'[^']*'|[^\s,;}}]+)", re.IGNORECASE
)
# `--http-restricted-api=inference:admin=SECRET`: the APIs are no secret, and they distinguish servers.
_RESTRICTED = re.compile(r"(?P<name>restricted-(?:api|protocol)=(?:[^\s=]*=)?)(?P<value>[^\s,;]+)", re.IGNORECASE)
_USER = re.compile(r"(?<=://)[^/@\s]+(?=@)")

# Variables that affect the server's performance and hold no secrets. Their values are shown, as they distinguish
# servers.
_PUBLIC = re.compile(
    r"(?:OMP|GOMP|KMP|MKL|OPENBLAS|BLIS|NUMEXPR|TBB|CUDA|CUBLAS|CUDNN|NVIDIA|NCCL|ORT|TF|XLA|TORCH|PYTORCH|MALLOC)_[A-Z0-9_]+"
    r"|PATH|PYTHONPATH|LD_LIBRARY_PATH|LD_PRELOAD|LANG|TZ"
)
_SHORT = re.compile(r"-?\d{0,3}|true|false|on|off|yes|no", re.IGNORECASE)

# Shorter secrets could be parts of unrelated words.
_SHORTEST = 6
_LIKE_A_KEY = re.compile(r"(?=.*[A-Za-z])(?=.*\d)[^/\s]+")
# What stands for a secret is none.
_REFERENCE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")
_known: set[str] = set()
_keeps = ContextVar("_keeps", default=True)


@contextmanager
def unkept() -> Iterator[None]:
    """Keep no secrets within the context: others' jobs are only checked, and would fill the memory of a service."""
    token = _keeps.set(False)
    try:
        yield
    finally:
        _keeps.reset(token)


def keep_secret(name: str, value: str) -> None:
    """Redact a value in errors and servers' logs from now on, if it is a secret.

    It is a secret if its name is that of a secret, or if it looks like a key: letters and digits, without blanks or
    slashes. The secret of a URL is its password.
    """
    _keep_passwords(value)
    # A server may repeat `Bearer SECRET` without its first word.
    for secret in (value, value.rpartition(" ")[2]):
        _keep(name, secret)


def _keep(name: str, value: str) -> None:
    if not _keeps.get() or _REFERENCE.fullmatch(value):
        return
    if len(value) >= _SHORTEST and (is_secret_name(name) or _LIKE_A_KEY.fullmatch(value)):
        _known.add(value)


def keep_secret_of_argument(argument: str) -> None:
    """Redact the secret in an argument of a program from now on, if there is one."""
    _keep_passwords(argument)
    if secret := _secret_of(argument):
        _keep("secret", argument[secret.start("value") :])


def _keep_passwords(text: str) -> None:
    for user in _USER.findall(text):
        _keep("password", user.rpartition(":")[2])


def is_secret_name(name: str) -> bool:
    """Whether a name is that of a secret."""
    return _SECRET_NAME.fullmatch(name) is not None


def value_of_variable(name: str, value: str) -> str:
    """The value of an environment variable for a description; `***` if it may be secret.

    Shown are numbers of up to three digits and words such as `true`. Also shown are values of variables that affect
    performance, such as `OMP_PROC_BIND`.
    """
    if is_secret_name(name):
        return HIDDEN
    return without_secrets(value) if _SHORT.fullmatch(value) or _PUBLIC.fullmatch(name) else HIDDEN


def argument_without_secrets(argument: str) -> str:
    """An argument of a program, in which everything after a secret's name is replaced."""
    if secret := _secret_of(argument):
        argument = f"{argument[: secret.start('value')]}{HIDDEN}"
    return without_secrets(argument)


def _secret_of(argument: str) -> re.Match[str] | None:
    """The match whose group `value` begins at the secret of an argument; None: there is none."""
    return _RESTRICTED.search(argument) or _NAMED.search(argument)


def without_secrets(text: str) -> str:
    """A text in which values with a secret's name, users in URLs, and known secrets are replaced by `***`."""
    named = _NAMED.sub(rf"\g<name>{HIDDEN}", _RESTRICTED.sub(rf"\g<name>{HIDDEN}", text))
    return without_known_secrets(_USER.sub(HIDDEN, named))


def without_known_secrets(text: str) -> str:
    """A text of another program, such as a log, with the secrets of `keep_secret` replaced by `***`."""
    # The longest first, as one secret may be part of another.
    for value in sorted(_known, key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    return text


def clean_file(path: Path) -> None:
    """Replace known secrets in a file that another program has written; a missing file is no error."""
    with suppress(FileNotFoundError):
        content = path.read_bytes()
        clean = content
        for value in sorted(map(str.encode, _known), key=len, reverse=True):
            clean = clean.replace(value, HIDDEN.encode())
        if clean != content:
            write_atomically(path, clean)
