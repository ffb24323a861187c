"""The report task: writes the page, and leaves the error rates and a link to the page in Prefect's UI."""

from __future__ import annotations

from typing import Any

from prefect import task
from prefect.artifacts import create_link_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from schemas.config import Storage
from schemas.manifest import RunManifest
from tasks.wording import rate
from workers.report import write_report


@task(name="report", cache_policy=NO_CACHE)
def report(manifest: RunManifest, destination: str, storage: Storage) -> str:
    """Write the quality report of a published run; returns the URL of the page.

    Nothing but the published Parquet is read, so the page can be built again at any time, and is then the same.
    """
    page = write_report(manifest, destination, storage)
    create_link_artifact(link(page), link_text=f"Report of {manifest.run_id}", key="report", description=page)
    if manifest.word_errors:
        create_table_artifact(word_errors(manifest), key="wer", description="Word error rates, pooled over words")
    return page


def link(page: str) -> str:
    """``page`` as a link: a local path needs its scheme.

    >>> link("/data/reports/a/index.html"), link("s3://bucket/reports/a/index.html")
    ('file:///data/reports/a/index.html', 's3://bucket/reports/a/index.html')
    """
    return page if "://" in page else f"file://{page}"


def word_errors(manifest: RunManifest) -> list[dict[str, Any]]:
    """One row per engine and input."""
    return [
        {
            "engine": one.engine,
            "input": one.input,
            "WER (95% interval)": rate(one.wer, one.wer_low, one.wer_high),
            "words": one.words,
            "utterances": one.utterances,
        }
        for one in manifest.word_errors
    ]
