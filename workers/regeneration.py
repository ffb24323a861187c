"""The data plane of ``regenerate``: published texts spoken afresh and heard again. No audio is read.

works (from rows of ``utterances``) -> synthesize -> round trip -> write; one shard is one block, as in the corpus run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.config import Cluster, Recipe, SpokenText, Storage
from schemas.ids import stable_id
from schemas.reasons import Reason
from schemas.records import Archive, Member, Receipt, Reject, Shard
from workers.arrow import table_of
from workers.block import pack, unpack
from workers.engines.base import Transcription
from workers.receipts import Staging
from workers.rows import rows_of
from workers.stage import failed
from workers.synthesize import STAGE
from workers.voices import voice_key
from workers.wiring import EngineStage, on_actors, on_tasks, receipts, start
from workers.work import Recording, Utterance, Work

UTTERANCES_PER_SHARD = 200  # a quarter of an hour or so of short clips, and memory for the longest


@dataclass(frozen=True)
class PublishedMember(Member):
    """A member as its published rows name it: its key is known, what it was made of is not."""

    published_key: str = ""

    def key(self, archive_uri: str) -> str:
        return self.published_key


@dataclass
class PublishedUtterance(Utterance):
    """An utterance as published: only what is needed to speak it."""

    published_id: str = ""

    def id(self, archive_uri: str) -> str:
        return self.published_id


def works_of(
    rows: pa.Table, archives: Sequence[Archive], run_id: str, fingerprint: str, recipe: Recipe, text: SpokenText
) -> list[Work]:
    """Shards of ``rows`` (of ``utterances``, of run ``run_id``), each of one archive, in the rows' order.

    An utterance without the ``text`` that is asked for is a reject of its shard. A reference that covers a whole
    recording is no text for a piece of it.
    """
    by_uri = {archive.uri: archive for archive in archives}
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows.to_pylist():
        groups.setdefault(row["archive"], []).append(row)
    works = []
    for uri, group in groups.items():
        for index, offset in enumerate(range(0, len(group), UTTERANCES_PER_SHARD)):
            piece = group[offset : offset + UTTERANCES_PER_SHARD]
            shard_id = stable_id("regenerate", run_id, fingerprint, text, [row["utterance_id"] for row in piece])
            work = _work(piece, by_uri[uri], shard_id, fingerprint, index, recipe, text)
            work.source_run_id = run_id
            works.append(work)
    return works


def _work(
    rows: list[dict[str, Any]], archive: Archive, shard_id: str, fingerprint: str, index: int, recipe: Recipe,
    text: SpokenText,
) -> Work:  # fmt: skip
    utterances, rejects = [], []
    for row in rows:
        reference = row["reference"] if row["reference_scope"] == "utterance" and text != "transcript" else None
        heard = row["transcript"] if text != "reference" else None
        if not (reference or heard):
            rejects.append(_without_text(row, text))
            continue
        utterances.append(_utterance(row, archive.uri, reference or None, heard or "", recipe))
    members = tuple(utterance.member for utterance in utterances)
    shard = Shard(shard_id, archive, fingerprint, members=members, rejects=tuple(rejects), index=index)
    return Work(shard=shard, sample_rate=recipe.audio.sample_rate, utterances=utterances)


def _utterance(row: dict[str, Any], uri: str, reference: str | None, heard: str, recipe: Recipe) -> Utterance:
    member = PublishedMember(
        name=row["member"],
        size=0,
        uri=uri,
        estimated_s=row["duration_s"],
        text=reference,
        language=row["language"],
        speaker=row["speaker"],
        published_key=row["member_key"],
    )
    return PublishedUtterance(
        member=member,
        recording=Recording(row["format"], row["source_sample_rate"], row["source_channels"], row["recording_s"]),
        channel=row["channel"],
        start_s=row["start_s"],
        end_s=row["end_s"],
        raw=np.zeros(0, np.float32),
        transcriptions={(recipe.asr.transcribers[0], recipe.asr.first_input): Transcription(heard)},
        published_id=row["utterance_id"],
    )


def _without_text(row: dict[str, Any], text: SpokenText) -> Reject:
    return Reject(
        archive=row["archive"],
        member=row["member"],
        stage=STAGE,
        reason=str(Reason.EMPTY_TEXT),
        message=f"nothing to speak: no {'text' if text == 'either' else text} of its own",
        member_key=row["member_key"],
        start_s=row["start_s"],
        end_s=row["end_s"],
        utterance_id=row["utterance_id"],
    )


def regenerate_shards(
    works: Sequence[Work], recipe: Recipe, staging_url: str, storage: Storage, cluster: Cluster
) -> Iterator[Receipt]:
    """Speak ``works`` on the Ray that is connected, and yield a receipt for each as it finishes, in any order.

    ``recipe.tts`` names voice and bounds, ``recipe.round_trip`` hears. Raises VoxmillError where an
    engine cannot be loaded or workers keep dying.
    """
    import ray.data

    if not works:
        return
    stages = [
        EngineStage("synthesize", str(recipe.tts.synthesizer), recipe, storage, voice_key(recipe.tts)),
        EngineStage("round trip", recipe.round_trip, recipe, storage),
    ]
    share = start([stage.pool for stage in stages], len(works), cluster)
    dataset = ray.data.from_blocks([pack(work) for work in works])
    for stage in stages:
        dataset = on_actors(dataset, stage, share[stage.pool])
    yield from receipts(
        on_tasks(dataset, write, share["write"], recipe=recipe, staging_url=staging_url, storage=storage)
    )


def write(block: pa.Table, recipe: Recipe, staging_url: str, storage: Storage) -> pa.Table:
    """Stage a shard's rows of ``regenerated`` and ``rejects``; its receipt out."""
    work: Work = unpack(block)
    if not work.failed:
        try:
            return pack(_stage(work, recipe, Staging(staging_url, storage)))
        except Exception as error:  # the boundary between a shard and the run, as in workers.stage
            work = failed(work, "write", error)
    return pack(_receipt(work, {}, failed=work.failed))


def _stage(work: Work, recipe: Recipe, staging: Staging) -> Receipt:
    rows = rows_of(work, recipe)
    tables = {name: rows[name] for name in ("regenerated", "rejects") if rows[name]}
    files = tuple(staging.put_table(work.shard.id, name, table_of(name, some)) for name, some in tables.items())
    receipt = _receipt(work, tables, files=files)
    staging.put_receipt(receipt)
    return receipt


def _receipt(work: Work, rows: dict[str, list[dict[str, Any]]], **fields: Any) -> Receipt:
    """The shard's counts. Members are utterances here: each is spoken (published) or has a row of ``rejects``."""
    spoken = rows.get("regenerated", [])
    published = len({row["utterance_id"] for row in spoken})
    return Receipt(
        shard_id=work.shard.id,
        archive_uri=work.shard.archive.uri,
        index=work.shard.index,
        members_in=work.shard.members_in,
        members_published=published,
        members_rejected=0 if work.failed else work.shard.members_in - published,
        utterances=published,
        audio_s=sum(row["duration_s"] for row in spoken),
        stages=work.stages,
        reject_reasons=dict(Counter(row["reason"] for row in rows.get("rejects", []))),
        digests=work.digests,
        **fields,
    )
