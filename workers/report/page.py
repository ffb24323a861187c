"""The page: tables of a run -> what the template shows -> one self-contained HTML file."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup

from schemas.config import Layout, Storage
from schemas.manifest import RunManifest
from workers.report import wording
from workers.report.content import content
from workers.report.data import Reader, last_comparable
from workers.storage import open_filesystem, put_bytes


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("workers.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    for name in ("percent", "interval", "points", "number", "hours", "seconds", "money", "count", "name_of", "judged"):
        environment.filters[name] = getattr(wording, name)
    environment.filters["json"] = lambda value: json.dumps(value, indent=2, ensure_ascii=False)
    environment.filters["called"] = _called
    environment.filters["svg"] = Markup  # figures only: drawn here, from numbers and engine names
    return environment


@pass_context
def _called(context: Context, text: str) -> str:
    """``text``, an engine's spec or a stage's name that ends in one, with the short name in the spec's place."""
    for spec, name in context["called"].items():
        if text.endswith(spec):
            return text.removesuffix(spec) + str(name)
    return text


def _source(name: str) -> str:
    loader = _environment().loader
    if loader is None:
        raise RuntimeError("the template environment has no loader")
    return loader.get_source(_environment(), name)[0]


def render(context: dict[str, Any]) -> str:
    """The page of a context made by :func:`workers.report.content.content`.

    Everything is escaped; the one script is allowed by its hash, so that nothing else in the page can ever run, and
    the policy forbids every connection.
    """
    script = _source("script.js").strip()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _environment()
        .get_template("report.html.j2")
        .render(**context, script=Markup(script), style=Markup(_source("style.css")), script_hash=digest)
    )


def build_report(manifest: RunManifest, destination: str, storage: Storage, before: RunManifest | None = None) -> str:
    """HTML of the report of a published run, from the files its manifest names and those of the run it is compared
    with: ``before``, or else the last that can be compared."""
    reader = Reader(manifest, destination, storage)
    previous = before or last_comparable(manifest, destination, storage)
    found = content(reader, Reader(previous, destination, storage) if previous else None)
    return render(found | {"asked": before is not None})


def write_report(manifest: RunManifest, destination: str, storage: Storage, before: RunManifest | None = None) -> str:
    """Build the report and put it where :class:`schemas.config.Layout` says; returns its URL.

    A comparison with a run that was asked for is a page of its own, beside the run's.
    """
    url = Layout(destination=destination).report(manifest.run_id, before.run_id if before else None)
    fs, path = open_filesystem(url, storage)
    put_bytes(fs, path, build_report(manifest, destination, storage, before).encode())
    return url
