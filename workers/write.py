"""The last stage: a shard's rows go to the staging area, a receipt comes back."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa

from schemas.config import Recipe, Storage
from schemas.reasons import MAY_PASS, Reason
from schemas.records import ErrorCounts, Receipt
from schemas.tables import DUPLICATE, LEDGER, RETRY
from workers.arrow import table_of
from workers.receipts import Staging
from workers.rows import Row, rows_of
from workers.sample import keep_raw
from workers.scoring import score_rows
from workers.sources.store import StoreError
from workers.stage import Clock
from workers.work import Work

LEDGER_TABLE = "members"
LATE_TABLE = "late"
_LATE = pa.schema([(name, pa.string()) for name in ("member", "text", "language", "speaker")])


class Write:
    """Stages shards under ``staging_url``."""

    def __init__(self, recipe: Recipe, staging_url: str, storage: Storage) -> None:
        self._recipe = recipe
        self._staging = Staging(staging_url, storage)

    def __call__(self, work: Work) -> Receipt:
        """Stage every table of ``work``, then its receipt. A failed shard gets a receipt that is not staged.

        Raises StoreError where the store refuses.
        """
        if work.failed:
            return failed_receipt(work)
        clock = Clock()
        rows = rows_of(work, self._recipe)
        score_rows(rows["utterances"], rows["transcripts"], self._recipe)
        keep_raw(work, rows, self._recipe)
        ledger = _ledger(work)
        tables = {name: table_of(name, some) for name, some in rows.items() if some}
        tables[LEDGER_TABLE] = pa.Table.from_pylist(ledger, LEDGER)
        if work.late:
            late = [{"member": member, **side} for member, side in sorted(work.late.items())]
            tables[LATE_TABLE] = pa.Table.from_pylist(late, _LATE)
        try:
            return self._stage(work, rows, ledger, tables, clock)
        except OSError as error:
            raise StoreError(error, self._staging.url) from error

    def _stage(
        self, work: Work, rows: dict[str, list[Row]], ledger: list[Row], tables: dict[str, pa.Table], clock: Clock
    ) -> Receipt:
        files = tuple(self._staging.put_table(work.shard.id, name, table) for name, table in tables.items())
        work.stages["write"] = clock.read()
        receipt = _receipt(work, rows, files=files, ledger=ledger)
        self._staging.put_receipt(receipt)
        return receipt


def failed_receipt(work: Work) -> Receipt:
    """The receipt of a shard that could not be finished; it is not staged, so the shard is tried again."""
    return _receipt(work, {}, failed=work.failed)


def _ledger(work: Work) -> list[Row]:
    """One row per member of the shard; one that is published in part may have to be tried again as well.

    Raises RuntimeError where a member is neither published nor rejected.
    """
    uri = work.shard.archive.uri
    published = _published(work)
    rejected = {reject.member for reject in work.rejects}
    retried = {reject.member for reject in work.rejects if reject.reason in MAY_PASS}
    lost = [member.name for member in work.shard.members if member.name not in published | rejected]
    if lost:
        raise RuntimeError(f"{len(lost)} members are neither published nor rejected, such as {lost[0]}")
    rows = [
        {
            "archive": uri,
            "member": member.name,
            "member_key": member.key(uri),
            "side": member.side,
            "status": RETRY if member.name in retried else "published" if member.name in published else "rejected",
        }
        for member in work.shard.members
    ]
    rows += [  # refused at sight: every listing looks again
        {"archive": uri, "member": reject.member, "member_key": reject.member_key, "side": ""}
        | {"status": DUPLICATE if reject.reason == Reason.DUPLICATE_MEMBER else "rejected"}
        for reject in work.shard.rejects
    ]
    return [row | {"shard_id": work.shard.id} for row in rows]


def _published(work: Work) -> set[str]:
    """Names of the members of which at least one utterance is published."""
    return {utterance.member.name for utterance in work.utterances}


def _receipt(work: Work, rows: dict[str, list[Row]], **fields) -> Receipt:  # type: ignore[no-untyped-def]
    ledger = fields.pop("ledger", [])
    names = _published(work)
    published = sum(member.name in names for member in work.shard.members)
    return Receipt(
        shard_id=work.shard.id,
        archive_uri=work.shard.archive.uri,
        index=work.shard.index,
        members_in=work.shard.members_in,
        members_published=published,
        members_rejected=len(ledger) - published,
        utterances=len(rows.get("utterances", ())),
        audio_s=sum(row["duration_s"] for row in rows.get("utterances", ())),
        words=word_errors(rows.get("transcripts", [])),
        stages=work.stages,
        reject_reasons=dict(Counter(row["reason"] for row in rows.get("rejects", ()))),
        digests=work.digests,
        padding={spec: (one.real_s, one.padded_s) for spec, one in work.padding.items()},
        stream_shards=work.stream_shards,
        **fields,
    )


def word_errors(transcripts: list[Row]) -> dict[str, ErrorCounts]:
    """Counts by ``engine|input``, over transcripts that have a reference."""
    pooled: dict[str, ErrorCounts] = {}
    for row in transcripts:
        if row.get("normalized_reference") is not None:
            key = f"{row['engine']}|{row['input']}"
            counts = ErrorCounts(row["hits"], row["substitutions"], row["deletions"], row["insertions"])
            pooled[key] = pooled.get(key, ErrorCounts()) + counts
    return pooled
