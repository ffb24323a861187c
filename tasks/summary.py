"""A run on the terminal, from its manifest alone: what went in and came out, how well, how fast, and where it lies."""

from __future__ import annotations

import os
import posixpath
from glob import escape
from urllib.parse import urlsplit

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from schemas.manifest import RunManifest
from tasks.wording import clock, count, engine_names, name_of, rate, size, yield_of

ARCHIVES_SHOWN = 50  # those with most rejects and members; the manifest holds all


def summary(manifest: RunManifest) -> RenderableType:
    """Tables for a terminal: archives, word errors, rejects by reason, and the run's figures."""
    parts: list[RenderableType] = [_archives(manifest)]
    if manifest.word_errors:
        parts.append(_word_errors(manifest))
    if manifest.reject_reasons:
        parts.append(_rejects(manifest))
    parts.append(Text(figures(manifest)))
    parts += [Text(f"Shard {shard} failed: {why}", style="red") for shard, why in manifest.failed_shards.items()]
    return Group(*parts)


def headline(manifest: RunManifest) -> str:
    """The run in one line: the message of its flow run's state.

    Members in are published, rejected, or left for the next run where shards failed.
    """
    noun = "utterance" if manifest.kind == "regenerate" else "member"
    counts = f"{count(manifest.members_in, noun)} in, {manifest.members_published:,} published"
    failed = f", {count(len(manifest.failed_shards), 'shard')} failed" if manifest.failed_shards else ""
    return f"{counts}, {manifest.members_rejected:,} rejected{failed}; {manifest.hours:.2f} h of speech"


def figures(manifest: RunManifest) -> str:
    written = sum(file.bytes for file in manifest.files)
    resumed = f" ({manifest.resumed_hours:.2f} h of it from a stopped run)" if manifest.resumed_hours else ""
    pace = f"{manifest.real_time_factor:.1f} times real time"
    if manifest.resumed_hours and not manifest.real_time_factor:
        pace = "nothing was left to process"
    return (
        f"{count(manifest.utterances, 'utterance')}, {manifest.hours:.2f} h{resumed} in {clock(manifest.wall_s)}: "
        f"{pace}; {count(len(manifest.files), 'file')}, {size(written)}"
        + (f"; {yield_of(manifest.kept_hours, manifest.regenerated_hours)}" if manifest.regenerated_hours else "")
    )


def query(manifest: RunManifest, destination: str) -> str:
    """A DuckDB query over the run's published utterances that can be pasted as it is."""
    folders = sorted({posixpath.dirname(file.path) for file in manifest.files if file.table == "utterances"})
    paths = [f"{escape(f'{destination}/{folder}')}/*.parquet" for folder in folders]
    globs = ", ".join("'{}'".format(path.replace("'", "''")) for path in paths)
    return _secret(manifest, destination) + (
        "SELECT archive, count(*) AS utterances, round(sum(duration_s) / 3600, 3) AS hours,"
        " round(avg(wer), 3) AS mean_wer\n"
        f"FROM read_parquet([{globs}], hive_partitioning = true)\n"
        "GROUP BY archive ORDER BY hours DESC;"
    )


def _secret(manifest: RunManifest, destination: str) -> str:
    """How DuckDB reaches an object store: by the same standard credential chain, at the same endpoint."""
    if not destination.startswith(("s3://", "s3a://")):
        return ""
    endpoint = (manifest.parameters.get("storage") or {}).get("endpoint_url")
    endpoint = endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not endpoint:
        return "CREATE SECRET (TYPE s3, PROVIDER credential_chain);\n"
    parts = urlsplit(endpoint)
    tls = str(parts.scheme == "https").lower()
    return (
        f"CREATE SECRET (TYPE s3, PROVIDER credential_chain, ENDPOINT '{parts.netloc}', URL_STYLE 'path', "
        f"USE_SSL {tls});\n"
    )


def print_summary(manifest: RunManifest, destination: str, report: str | None, console: Console) -> None:
    """Print :func:`summary`, the report's path and :func:`query`. Paths and the query are never wrapped or styled."""
    console.print(summary(manifest))
    if report:
        console.print(f"\nReport  {report}", soft_wrap=True, markup=False, highlight=False)
    if any(file.table == "utterances" for file in manifest.files):
        console.print("\nDuckDB  (duckdb -c, or duckdb.sql in Python)", markup=False, highlight=False)
        console.print(query(manifest, destination), soft_wrap=True, markup=False, highlight=False)


def _table(title: str, *columns: str, left: int = 1) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="dim",
        box=None,
        pad_edge=False,
        collapse_padding=True,  # an engine, its interval and counts fit 80 columns
    )
    for position, column in enumerate(columns):
        table.add_column(column, justify="left" if position < left else "right", overflow="fold")
    return table


def _archives(manifest: RunManifest) -> Table:
    table = _table(f"Run {manifest.run_id}", "archive", "members in", "published", "rejected", "utterances", "hours")
    shown = sorted(manifest.archives, key=lambda one: (-one.members_rejected, -one.members_in))[:ARCHIVES_SHOWN]
    for a in [one for one in manifest.archives if one in shown]:
        cells = (a.members_in, a.members_published, a.members_rejected, a.utterances)
        table.add_row(Text(name_of(a.uri)), *(f"{n:,}" for n in cells), f"{a.hours:.3f}")
    if more := len(manifest.archives) - len(shown):
        table.add_row(f"and {count(more, 'more archive')}", style="dim")
    cells = (manifest.members_in, manifest.members_published, manifest.members_rejected, manifest.utterances)
    table.add_row("all", *(f"{n:,}" for n in cells), f"{manifest.hours:.3f}", style="bold")
    return table


def _word_errors(manifest: RunManifest) -> Table:
    title = "\nWord error rate (pooled over words; 95% interval)"
    table = _table(title, "engine", "input", "WER", "words", "utterances", left=2)
    called = engine_names(manifest)
    for w in manifest.word_errors:
        wer = rate(w.wer, w.wer_low, w.wer_high)
        table.add_row(Text(called[w.engine]), w.input, wer, f"{w.words:,}", f"{w.utterances:,}")
    return table


def _rejects(manifest: RunManifest) -> Table:
    table = _table("\nRejected", "reason", "members or segments")
    for reason, n in sorted(manifest.reject_reasons.items(), key=lambda item: (-item[1], item[0])):
        table.add_row(reason, f"{n:,}")
    return table
