"""Files that somebody may look at at any moment."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from secrets import token_hex


def write_atomically(path: Path, text: str) -> None:
    r"""Replace a file in one move, so that a reader or a kill never meets half of one; its folder is made.

    What UTF-8 cannot say, such as a file's name in other bytes, is written as Python escapes it: `\udcff`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own, as two may write the same file at once.
    fresh = path.with_name(f".{path.name}.{token_hex(4)}")
    try:
        fresh.write_text(text, encoding="utf-8", errors="backslashreplace")
        fresh.replace(path)
    except BaseException:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise
