"""What a finished run leaves in Prefect's UI: a table per archive, a summary in markdown. Data stays out of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from schemas.manifest import RunManifest
from tasks.summary import figures, headline, query
from tasks.wording import engine_names, rate

ARCHIVES_SHOWN = 200  # rows of the table artifact; Prefect refuses very large ones, and the manifest holds all


@contextmanager
def tolerated(what: str) -> Iterator[None]:
    """A run that is published stays so, whatever becomes of what is done afterwards: where ``what`` fails, it warns."""
    try:
        yield
    except Exception as error:  # of a store or of Prefect's API, whatever it raises
        get_run_logger().warning("The run is published, but %s failed: %s: %s", what, type(error).__name__, error)


def publish_artifacts(manifest: RunManifest, destination: str, report: str) -> None:
    """Leave the table and the markdown artifact in the Prefect run that this is called from.

    An API that cannot be reached costs the artifacts, not the run.
    """
    with tolerated("leaving its summary in Prefect"):
        create_table_artifact(archive_rows(manifest), key="archives", description=headline(manifest))
        create_markdown_artifact(markdown(manifest, destination, report), key="summary", description=headline(manifest))


def archive_rows(manifest: RunManifest) -> list[dict[str, Any]]:
    """One row per archive, those with most rejects first where there are more than :data:`ARCHIVES_SHOWN`."""
    archives = manifest.archives
    if len(archives) > ARCHIVES_SHOWN:
        archives = sorted(archives, key=lambda a: (-a.members_rejected, a.uri))[:ARCHIVES_SHOWN]
    return [
        {
            "archive": a.uri,
            "members in": a.members_in,
            "published": a.members_published,
            "rejected": a.members_rejected,
            "utterances": a.utterances,
            "hours": round(a.hours, 3),
        }
        for a in archives
    ]


def markdown(manifest: RunManifest, destination: str, report: str) -> str:
    """The run for people, in markdown."""
    parts = [f"# Run {manifest.run_id}: {manifest.status}", f"{headline(manifest)}. {figures(manifest)}."]
    if manifest.word_errors:
        called = engine_names(manifest)
        rows = [
            (called[w.engine], w.input, rate(w.wer, w.wer_low, w.wer_high), f"{w.words:,}", f"{w.utterances:,}")
            for w in manifest.word_errors
        ]
        parts.append("## Word error rate\nPooled over words, with its 95% interval.")
        parts.append(_table(("engine", "input", "WER", "words", "utterances"), rows))
    if manifest.gate:
        outcome = {True: "breached", False: "kept"}
        checks = [
            (one.name, outcome[one.breached] if one.measured is not None else "not judged", one.reason)
            for one in manifest.gate
        ]
        parts.append("## Quality gate")
        parts.append(_table(("condition", "outcome", "measured"), checks))
    if manifest.reject_reasons:
        reasons = sorted(manifest.reject_reasons.items(), key=lambda item: (-item[1], item[0]))
        parts.append("## Rejected")
        parts.append(_table(("reason", "members or segments"), [(reason, f"{n:,}") for reason, n in reasons]))
    if manifest.failed_shards:
        parts.append("## Failed shards\nTried again by the next run.")
        parts.append(_table(("shard", "why"), list(manifest.failed_shards.items())))
    page = f"`{report}`" if report else "could not be written"
    parts.append(f"## Where\nReport: {page}\n\n```sql\n{query(manifest, destination)}\n```")
    return "\n\n".join(parts)


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    """Text as one cell: no line break, and nothing in it acts as markup."""
    flat = " ".join(text.split())
    for sign in "\\`*_[]<>|":
        flat = flat.replace(sign, "\\" + sign)
    return flat
