"""Makes pages of templates, and serves the files that they need."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from tuner.client.resources import Job, Role
from tuner.core.record import Interval
from tuner.service.auth import Principal
from tuner.service.pages.front_plots import load_in_words
from tuner.service.pages.words import ACTION_WORDS, FILTERS, KIND_WORDS, OUTCOME_TONES, ROLE_WORDS

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
"""The Content-Security-Policy of the pages: no inline script or style, nothing from elsewhere."""

_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}

MOST_HOSTS = 24
"""Hosts of a job on a page."""

_PAGES, _REPORT = "tuner.service.pages", "tuner.report.html"
_STATIC: Mapping[str, tuple[str, str]] = {
    "theme.css": (_REPORT, "text/css"),
    "dashboard.css": (_PAGES, "text/css"),
    "times.js": (_PAGES, "text/javascript"),
    "live.js": (_PAGES, "text/javascript"),
    "icon.svg": (_PAGES, "image/svg+xml"),
}
"""The static files, each with the package that has it, and its type."""

NAVIGATION: Sequence[tuple[str, str, Role]] = (
    ("/", "Overview", "read"),
    ("/queue", "Queue", "read"),
    ("/jobs", "Jobs", "read"),
    ("/proposals", "Proposals", "read"),
    ("/history", "History", "read"),
    ("/tokens", "Tokens", "admin"),
    ("/submit", "Submit a job", "submit"),
)
"""Pages that every page leads to: address, name, and the role that may see it."""


def page(
    request: Request, template: str, *, who: Principal | None = None, status: int = 200, **values: Any
) -> HTMLResponse:
    """A page.

    Args:
        request: What was asked for.
        template: Name of the template, without `.html.j2`.
        who: Who is logged in; None: nobody.
        status: Status code.
        values: What the template shows.
    """
    text = _environment().get_template(f"{template}.html.j2").render(who=who, here=request.url.path, **values)
    return HTMLResponse(text, status, headers=_HEADERS)


def static_file(name: str, asked_version: str) -> Response | None:
    """A static file; None: there is none of this name.

    Args:
        name: Its name.
        asked_version: The version in its address: a file of the current one never changes, so browsers may keep it.
    """
    if name not in _STATIC:
        return None
    content, digest = _content(name)
    keep = "public, max-age=31536000, immutable" if asked_version == digest else "no-cache"
    headers = {"Cache-Control": keep, "X-Content-Type-Options": "nosniff", "Content-Security-Policy": POLICY}
    return Response(content, media_type=_STATIC[name][1], headers=headers)


def _address(name: str) -> str:
    return f"/static/{name}?v={_content(name)[1]}"


@cache
def _content(name: str) -> tuple[bytes, str]:
    """The bytes of a static file, and its version."""
    package = _STATIC[name][0]
    folder = files(package) / "static" if package == _PAGES else files(package)
    content = (folder / name).read_bytes()
    return content, hashlib.sha256(content).hexdigest()[:12]


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(_PAGES), PackageLoader(_REPORT, "")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    environment.globals.update(
        static=_address,
        navigation=NAVIGATION,
        role_words=ROLE_WORDS,
        kind_words=KIND_WORDS,
        action_words=ACTION_WORDS,
        outcome_tones=OUTCOME_TONES,
        best_gain=_best_gain,
        load_in_words=load_in_words,
        most_hosts=MOST_HOSTS,
        version=version("tritontune"),
    )
    return environment


def _best_gain(job: Job) -> Interval | None:
    """The largest gain of a job's models over their baselines; None: no gain is known."""
    return max((r.gain for r in job.results if r.gain and r.trial), key=lambda gain: gain.value, default=None)
