"""Writes `report.html` from the stored studies of a run."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from tuner.core.atomic_file import write_atomically
from tuner.core.errors import JobError, shortened
from tuner.core.json_text import finite
from tuner.report.html.model_view import ModelView, model_view
from tuner.study.run_folder import RunFolder
from tuner.study.snapshot import snapshot
from tuner.study.study import Study

_PACKAGE = "tuner.report.html"
_SCRIPTS = ("plots.js", "selection.js", "table.js")


def write_report(run: RunFolder, out: Path | None = None) -> Path:
    """Write the report of a run from its stored studies; the run may still be going on.

    Args:
        run: The run folder.
        out: The file to write; None: `report.html` in the run folder.

    Returns:
        The path of the file.

    Raises:
        JobError: the studies cannot be read, or the file cannot be written.
    """
    path, page = out or run.report, report_html(run)
    try:
        write_atomically(path, page)
    except OSError as error:
        raise JobError(f"{path}: cannot be written: {error.strerror}") from None
    return path


def report_html(run: RunFolder) -> str:
    """The HTML text of the page."""
    with snapshot(run.database) as database:
        views = tuple(model_view(run, study) for study in Study.load_all(database))
    if not views:
        raise JobError(f"{run.path}: has no study yet")
    return _page(run, views)


def _page(run: RunFolder, views: Sequence[ModelView]) -> str:
    scripts = [get_plotlyjs(), *(_text(name) for name in _SCRIPTS)]
    environment = Environment(
        loader=FunctionLoader(_text),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["json_script"] = json_script
    environment.filters["shortened"] = shortened
    environment.filters["breakable"] = _breakable
    return environment.get_template("report.html.j2").render(
        run=run,
        views=views,
        title=f"{', '.join(view.name for view in views)}: tritontune report",
        style=Markup(_text("theme.css") + _text("report.css")),  # noqa: S704 (our own)
        scripts=[Markup(text) for text in scripts],  # noqa: S704 (our own, and Plotly's)
        # The Content-Security-Policy allows only these scripts and no requests, so that names of models can do no harm.
        script_sources=" ".join(_source_hash(text) for text in scripts),
    )


def json_script(data: Any) -> Markup:
    """Data as JSON for a script element, escaped so that no text can end the element or begin a comment."""
    text = json.dumps(finite(data), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))  # noqa: S704 (escaped)


def _breakable(name: str) -> Markup:
    """A name with possible line breaks after underscores and dots."""
    parts = re.split(r"(?<=[_.])", name)
    return Markup("<wbr>").join(parts)


@cache
def _text(name: str) -> str:
    return files(_PACKAGE).joinpath(name).read_text(encoding="utf-8")


def _source_hash(script: str) -> str:
    """The hash of a script for the Content-Security-Policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
