"""Leaves out what may be secret, of texts that others will read.

What is told of a server, a job or a run goes through here where the text is made, so that no writer behind it needs to
know what may be secret. The value itself is left out, and no digest takes its place: a short one could be guessed.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from tuner.core.atomic_file import write_atomically

HIDDEN = "***"

# Not `max_tokens` and `tokenizer`, which are no secrets; nor an author.
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
# `--http-restricted-api=inference:admin=SECRET`: which APIs they are is no secret, and another server.
_RESTRICTED = re.compile(r"(?P<name>restricted-(?:api|protocol)=(?:[^\s=]*=)?)(?P<value>[^\s,;]+)", re.IGNORECASE)
_USER = re.compile(r"(?<=://)[^/@\s]+(?=@)")

# Variables that decide how fast a server is, and hold no secrets: measurements with other values are of another server.
_PUBLIC = re.compile(
    r"(?:OMP|GOMP|KMP|MKL|OPENBLAS|BLIS|NUMEXPR|TBB|CUDA|CUBLAS|CUDNN|NVIDIA|NCCL|ORT|TF|XLA|TORCH|PYTORCH|MALLOC)_[A-Z0-9_]+"
    r"|PATH|PYTHONPATH|LD_LIBRARY_PATH|LD_PRELOAD|LANG|TZ"
)
_SHORT = re.compile(r"-?\d{0,3}|true|false|on|off|yes|no", re.IGNORECASE)

# Shorter ones would be found in words that have nothing to do with them.
_SHORTEST = 6
_LIKE_A_KEY = re.compile(r"(?=.*[A-Za-z])(?=.*\d)[^/\s]+")
_known: set[str] = set()


def keep_secret(name: str, value: str) -> None:
    """From now on, leave a value out of errors and of servers' logs, if it is one.

    It is where its name says so, or where it looks like a key: letters and digits, without blanks or slashes. Of a URL,
    its password is.
    """
    _keep_passwords(value)
    # `Bearer SECRET` is answered by servers without its first word, too.
    for each in (value, value.rpartition(" ")[2]):
        _keep(name, each)


def _keep(name: str, value: str) -> None:
    if len(value) >= _SHORTEST and (is_secret_name(name) or _LIKE_A_KEY.fullmatch(value)):
        _known.add(value)


def keep_secret_of_argument(argument: str) -> None:
    """The same of an argument of a program."""
    _keep_passwords(argument)
    if secret := _secret_of(argument):
        _keep("secret", argument[secret.start("value") :])


def _keep_passwords(text: str) -> None:
    for user in _USER.findall(text):
        _keep("password", user.rpartition(":")[2])


def is_secret_name(name: str) -> bool:
    """Whether what is named so is a secret by its name."""
    return _SECRET_NAME.fullmatch(name) is not None


def value_of_variable(name: str, value: str) -> str:
    """What may be told of the value of an environment variable; `***` where it may be secret.

    Told are numbers of three digits at most, words such as `true`, and the values of variables that are known to decide
    how fast a server is, such as `OMP_PROC_BIND`.
    """
    if is_secret_name(name):
        return HIDDEN
    return without_secrets(value) if _SHORT.fullmatch(value) or _PUBLIC.fullmatch(name) else HIDDEN


def argument_without_secrets(argument: str) -> str:
    """An argument of a program; all that follows a secret's name is taken for it, which may have any letters in it."""
    if secret := _secret_of(argument):
        argument = f"{argument[: secret.start('value')]}{HIDDEN}"
    return without_secrets(argument)


def _secret_of(argument: str) -> re.Match[str] | None:
    """Where the secret of an argument begins, if there is one."""
    return _RESTRICTED.search(argument) or _NAMED.search(argument)


def without_secrets(text: str) -> str:
    """A text in which the values of what is named like a secret, users of URLs, and known secrets are starred out."""
    named = _NAMED.sub(rf"\g<name>{HIDDEN}", _RESTRICTED.sub(rf"\g<name>{HIDDEN}", text))
    return without_known_secrets(_USER.sub(HIDDEN, named))


def without_known_secrets(text: str) -> str:
    """A text of others, such as a log, in which only the values that `keep_secret` was told of are starred out."""
    # The longest first, as one may be part of another.
    for value in sorted(_known, key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    return text


def clean_file(path: Path) -> None:
    """Star out known secrets in a file of ours that another program has written; one that is not there is none."""
    with suppress(FileNotFoundError):
        content = path.read_bytes()
        clean = content
        for value in sorted(map(str.encode, _known), key=len, reverse=True):
            clean = clean.replace(value, HIDDEN.encode())
        if clean != content:
            write_atomically(path, clean)
