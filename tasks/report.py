"""The report task: writes the page, and leaves a link to it, the error rates and their trend in Prefect's UI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prefect import task
from prefect.artifacts import create_link_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from schemas.config import Storage
from schemas.manifest import RunManifest
from tasks.artifacts import tolerated
from tasks.runs import recent_manifests
from tasks.wording import engine_names, rate
from workers.report import write_report


@task(name="report", cache_policy=NO_CACHE)
def report(manifest: RunManifest, destination: str, storage: Storage, before: RunManifest | None = None) -> str:
    """Write the quality report of a published run; returns the URL of the page. ``before``: compare it with this run.

    Nothing but the published Parquet is read, so the page can be built again at any time, and is then the same.
    """
    page = write_report(manifest, destination, storage, before)
    with tolerated("leaving its report in Prefect"):
        create_link_artifact(link(page), link_text=f"Report of {manifest.run_id}", key="report", description=page)
        if manifest.word_errors:
            create_table_artifact(word_errors(manifest), key="wer", description="Word error rates, pooled over words")
        rows = trend(recent_manifests(manifest, destination, storage))
        create_table_artifact(rows, key="trend", description="The last runs, oldest first")
    return page


def link(page: str) -> str:
    """``page`` as a link: a local path needs its scheme.

    >>> link("/data/reports/a/index.html"), link("s3://bucket/reports/a/index.html")
    ('file:///data/reports/a/index.html', 's3://bucket/reports/a/index.html')
    """
    return page if "://" in page else f"file://{page}"


def word_errors(manifest: RunManifest) -> list[dict[str, Any]]:
    """One row per engine and input."""
    called = engine_names(manifest)
    return [
        {
            "engine": called[one.engine],
            "input": one.input,
            "WER (95% interval)": rate(one.wer, one.wer_low, one.wer_high),
            "words": one.words,
            "utterances": one.utterances,
        }
        for one in manifest.word_errors
    ]


def trend(runs: Sequence[RunManifest]) -> list[dict[str, Any]]:
    """One row per run: what was published, and how good the chosen transcripts were."""
    rows = []
    for run in runs:
        chosen = next((one for one in run.word_errors if one.engine == "chosen"), None)
        rows.append(
            {
                "run": run.run_id,
                "status": run.status,
                "WER (95% interval)": rate(chosen.wer, chosen.wer_low, chosen.wer_high) if chosen else "",
                "words": chosen.words if chosen else 0,
                "hours": round(run.hours, 3),
                "rejected": f"{run.members_rejected / run.members_in:.1%}" if run.members_in else "",
                "times real time": round(run.real_time_factor, 1),
            }
        )
    return rows
