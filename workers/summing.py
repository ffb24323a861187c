"""A run summed up: its manifest from its receipts."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
from collections import Counter, defaultdict
from collections.abc import Sequence

import pyarrow as pa

from schemas.config import CorpusParameters
from schemas.manifest import ArchiveCounts, PublishedFile, RunManifest, Superseded, WordErrors
from schemas.records import Plan, Receipt, Run

_VERSIONED = (
    "voxmill", "ray", "prefect", "torch", "openai-whisper", "nemo-toolkit", "transformers", "ctranslate2", "silero-vad",
    "noisereduce", "librosa", "soundfile", "av", "soxr", "jiwer", "pyarrow",
)  # fmt: skip


def manifest_of(
    run: Run,
    plan: Plan,
    parameters: CorpusParameters,
    finished: Sequence[Receipt],
    failed: Sequence[Receipt],
    files: Sequence[PublishedFile],
    quality: pa.Table,
    supersedes: Sequence[Superseded],
) -> RunManifest:
    """The manifest of a run whose tables are written."""
    now = dt.datetime.now(dt.UTC)
    wall = (now - dt.datetime.fromisoformat(run.started_at)).total_seconds()
    audio = sum(receipt.audio_s for receipt in finished)
    resumed = sum(receipt.audio_s for receipt in finished if receipt.resumed)
    reasons: Counter[str] = Counter()
    digests: dict[str, str] = {}
    for receipt in finished:
        reasons.update(receipt.reject_reasons)
        digests |= receipt.digests
    return RunManifest(
        run_id=run.id,
        run_date=run.date,
        status="partial" if failed else "published",
        fingerprint=plan.fingerprint,
        parameters=parameters.model_dump(mode="json"),
        started_at=run.started_at,
        finished_at=now.isoformat(timespec="seconds"),
        members_in=sum(receipt.members_in for receipt in finished),
        members_published=sum(receipt.members_published for receipt in finished),
        members_rejected=sum(receipt.members_rejected for receipt in finished),
        utterances=sum(receipt.utterances for receipt in finished),
        hours=audio / 3600,
        wall_s=wall,
        resumed_hours=resumed / 3600,
        real_time_factor=(audio - resumed) / wall if wall > 0 else 0.0,
        archives=_archives(plan, finished, failed),
        reject_reasons=dict(sorted(reasons.items())),
        word_errors=_word_errors(quality),
        stages=_stages(finished),
        padding_waste=_padding_waste(finished),
        files=list(files),
        supersedes=list(supersedes),
        digests=digests,
        versions=versions(),
        failed_shards={receipt.shard_id: receipt.failed for receipt in failed},
    )


def versions() -> dict[str, str]:
    """Installed versions of what a result may depend on."""
    found = {}
    for name in _VERSIONED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _archives(plan: Plan, finished: Sequence[Receipt], failed: Sequence[Receipt]) -> list[ArchiveCounts]:
    """One per archive that the plan opened, then one per source that is none because it could not be read.

    Those that were done already stand in the manifests of earlier runs: a night's own does not grow with all the rest.
    """
    unfinished = {receipt.archive_uri for receipt in failed}
    known = {archive.uri: archive for archive in plan.archives if archive.uri not in plan.unopened}
    by_uri: dict[str, list[Receipt]] = {uri: [] for uri in known}
    for receipt in finished:
        by_uri.setdefault(receipt.archive_uri, []).append(receipt)
    return [
        ArchiveCounts(
            uri=uri,
            id=known[uri].id if uri in known else "",
            layout=known[uri].layout if uri in known else "",
            whole=uri in known and uri not in unfinished,
            members_in=sum(one.members_in for one in mine),
            members_published=sum(one.members_published for one in mine),
            members_rejected=sum(one.members_rejected for one in mine),
            utterances=sum(one.utterances for one in mine),
            hours=sum(one.audio_s for one in mine) / 3600,
        )
        for uri, mine in by_uri.items()
    ]


def _word_errors(quality: pa.Table) -> list[WordErrors]:
    return [
        WordErrors(
            engine=row["engine"],
            input=row["input"],
            utterances=row["utterances"],
            words=row["words"],
            errors=row["substitutions"] + row["deletions"] + row["insertions"],
            wer=row["wer"],
            wer_low=row["wer_low"],
            wer_high=row["wer_high"],
            block_kind=row["block_kind"],
        )
        for row in quality.to_pylist()
        if row["slice"] == "all" and row["wer"] is not None
    ]


def _stages(receipts: Sequence[Receipt]) -> dict[str, dict[str, float]]:
    total: dict[str, dict[str, float]] = {}
    for receipt in receipts:
        for name, spent in receipt.stages.items():
            stage = total.setdefault(name, {"wall_s": 0.0, "cpu_s": 0.0, "gpu_s": 0.0})
            stage["wall_s"] += spent.wall_s
            stage["cpu_s"] += spent.cpu_s
            stage["gpu_s"] += spent.gpu_s
    return total


def _padding_waste(receipts: Sequence[Receipt]) -> dict[str, float]:
    real: dict[str, float] = defaultdict(float)
    padded: dict[str, float] = defaultdict(float)
    for receipt in receipts:
        for spec, (own_s, padded_s) in receipt.padding.items():
            real[spec] += own_s
            padded[spec] += padded_s
    return {spec: (padded[spec] - real[spec]) / real[spec] for spec in real if real[spec]}
