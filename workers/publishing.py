"""The steps of publishing a run, in the order the publish task takes them. S3 has no rename: nothing depends on one.

Files go under the run's own partition, where no reader looks before the manifest names them; the manifest comes last.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.config import Recipe, Storage
from schemas.errors import VoxmillError
from schemas.ids import stable_id
from schemas.manifest import PublishedFile, RunManifest
from schemas.reasons import MAY_PASS
from schemas.records import Plan, Receipt, Reject
from schemas.tables import LEDGER, RETRY, schema_of
from workers.arrow import table_of
from workers.choice import apply_choice, choose
from workers.compact import Part, write_part, write_table
from workers.late import Sides, apply_late
from workers.parquet import to_bytes
from workers.quality.slices import quality_table
from workers.receipts import Staging
from workers.rows import reject_row
from workers.storage import open_filesystem, put_bytes
from workers.write import LATE_TABLE, LEDGER_TABLE


def in_plan_order(plan: Plan, receipts: Sequence[Receipt]) -> list[Receipt]:
    """Receipts by archive as planned, then by shard, so that published files do not depend on who finished first."""
    place = {archive.uri: index for index, archive in enumerate(plan.archives)}
    return sorted(receipts, key=lambda one: (place[one.archive_uri], one.index, one.shard_id))


def check_counts(plan: Plan, receipts: Sequence[Receipt]) -> None:
    """Members in = published + rejected, shard by shard, and no shard lost or doubled.

    Raises VoxmillError at the first shard that does not add up: nothing is published then.
    """
    found = {receipt.shard_id: receipt for receipt in receipts}
    if len(found) != len(receipts):
        raise VoxmillError(f"{len(receipts) - len(found)} shards have two receipts", do=_REPORT)
    planned = {shard.id: shard for shard in plan.shards}
    missing = planned.keys() - found.keys()
    if missing:
        raise VoxmillError(f"{len(missing)} shards gave no receipt, such as {min(missing)}", do=_REPORT)
    for receipt in receipts:
        shard = planned.get(receipt.shard_id)
        expected = receipt.members_in if shard is None or shard.is_stream else shard.members_in
        counted = receipt.members_published + receipt.members_rejected
        if not receipt.failed and not counted == receipt.members_in == expected:
            raise VoxmillError(
                f"{expected} members in, {receipt.members_published} published, {receipt.members_rejected} rejected",
                f"{receipt.archive_uri} shard {receipt.shard_id}",
                _REPORT,
            )


_REPORT = "Nothing is published. This should not happen: please report it with the run's log"


def stage_source_rejects(plan: Plan, staging: Staging) -> list[Receipt]:
    """Sources and archives that could not be read at all, each as a shard of its own: one member in, one rejected."""
    by_uri: dict[str, list[Reject]] = {}
    for reject in plan.rejects:
        by_uri.setdefault(reject.archive, []).append(reject)
    return [_stage_rejects_of(uri, rejects, plan.fingerprint, staging) for uri, rejects in by_uri.items()]


def _stage_rejects_of(uri: str, rejects: Sequence[Reject], fingerprint: str, staging: Staging) -> Receipt:
    shard_id = stable_id("source", uri, fingerprint, [dataclasses.astuple(reject) for reject in rejects])
    ledger = [
        {
            "archive": uri,
            "member": reject.member,
            "member_key": reject.member_key,
            "side": "",
            "status": RETRY if reject.reason in MAY_PASS else "rejected",
            "shard_id": shard_id,
        }
        for reject in rejects
    ]
    files = (
        staging.put_table(shard_id, "rejects", table_of("rejects", [reject_row(one, shard_id) for one in rejects])),
        staging.put_table(shard_id, LEDGER_TABLE, pa.Table.from_pylist(ledger, LEDGER)),
    )
    receipt = Receipt(
        shard_id=shard_id,
        archive_uri=uri,
        index=0,
        members_in=len(rejects),
        members_published=0,
        members_rejected=len(rejects),
        utterances=0,
        audio_s=0.0,
        files=files,
        reject_reasons=dict(sorted(Counter(reject.reason for reject in rejects).items())),
    )
    staging.put_receipt(receipt)
    return receipt


def join_late(receipts: Sequence[Receipt], recipe: Recipe, staging: Staging, storage: Storage) -> list[Receipt]:
    """Receipts after references that came late in a one-way stream have been joined to their shards."""
    late: dict[str, Sides] = {}
    for receipt in receipts:
        for file in receipt.files:
            if file.table == LATE_TABLE:
                rows = staging.read(file).to_pylist()
                late[receipt.archive_uri] = {row.pop("member"): row for row in rows}
    todo = [receipt for receipt in receipts if receipt.archive_uri in late and receipt.members_in]
    arguments = [(one, late[one.archive_uri], recipe, staging.url, storage) for one in todo]
    joined = {receipt.shard_id: receipt for receipt in fan_out(apply_late, arguments, _scored_bytes(todo))}
    return [joined.get(receipt.shard_id, receipt) for receipt in receipts]


def choose_input(
    receipts: Sequence[Receipt], recipe: Recipe, staging: Staging, storage: Storage
) -> tuple[list[Receipt], str]:
    """Under ``asr.chosen_input: auto``, receipts after the chosen transcripts have been settled, and why in a sentence;
    otherwise the receipts as they are, and nothing."""
    if recipe.asr.chosen_input != "auto":
        return list(receipts), ""
    chosen, why = choose(receipts, recipe, staging)
    arguments = [(one, chosen, recipe, staging.url, storage) for one in receipts]
    return fan_out(apply_choice, arguments, _scored_bytes(receipts)), why


def write_parts(parts: Sequence[Part], destination: str, staging: Staging, storage: Storage) -> list[PublishedFile]:
    """Write all ``parts``, side by side on the cluster."""
    size = sum(file.bytes for part in parts for file in part.files)
    return fan_out(write_part, [(part, destination, staging.url, storage) for part in parts], size)


SMALL_BYTES = 64 << 20  # are through before Ray has started processes for them


def _scored_bytes(receipts: Sequence[Receipt]) -> int:
    """Staged bytes of the tables that scoring again reads."""
    scored = ("utterances", "transcripts")
    return sum(file.bytes for receipt in receipts for file in receipt.files if file.table in scored)


def fan_out(function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], size: int) -> list[Any]:
    """Results of ``function`` over ``calls``, in order; as Ray tasks where they read more than :data:`SMALL_BYTES`.

    ``size``: how many bytes they read in all. Raises what ``function`` raises.
    """
    if len(calls) < 2 or size < SMALL_BYTES:
        return [function(*call) for call in calls]
    import ray

    remote = ray.remote(num_cpus=0.5, max_retries=3)(function)
    try:
        return ray.get([remote.remote(*call) for call in calls])
    except ray.exceptions.RayTaskError as error:
        raise error.cause or error from None


def read_published(
    files: Sequence[PublishedFile], table: str, columns: Sequence[str], destination: str, storage: Storage
) -> pa.Table:
    """``columns`` of a table's published ``files``, in order."""
    schema = schema_of(table)
    pieces = [pa.schema([schema.field(name) for name in columns]).empty_table()]
    for file in (file for file in files if file.table == table):
        fs, path = open_filesystem(f"{destination}/{file.path}", storage)
        with fs.open(path, "rb") as source:
            pieces.append(pq.read_table(source, columns=list(columns)))
    return pa.concat_tables([piece.replace_schema_metadata(None).select(list(columns)) for piece in pieces])


def regenerated_hours(files: Sequence[PublishedFile], destination: str, storage: Storage) -> dict[str, float]:
    """Hours of speech made and kept after the round trip, as the manifest has them."""
    table = read_published(files, "regenerated", ["kept", "duration_s"], destination, storage)
    made, kept = (pc.sum(one["duration_s"]).as_py() or 0.0 for one in (table, table.filter(table["kept"])))
    return {"regenerated_hours": made / 3600, "kept_hours": kept / 3600}


def write_ledger(receipts: Sequence[Receipt], url: str, staging: Staging, storage: Storage) -> pa.Table:
    """Join the shards' ledgers into the run's, written at ``url``; returns it."""
    files = [file for receipt in receipts for file in receipt.files if file.table == LEDGER_TABLE]
    ledger = pa.concat_tables([LEDGER.empty_table(), *(staging.read(file) for file in files)])
    fs, path = open_filesystem(url, storage)
    put_bytes(fs, path, to_bytes(LEDGER_TABLE, ledger).to_pybytes())
    return ledger


def commit(manifest: RunManifest, receipts: Sequence[Receipt], url: str, staging: Staging, storage: Storage) -> str:
    """The manifest at ``url``, which makes the run visible; then its shards' staged files go.

    Once the manifest is there the run is published, and nothing raises: returns why files could not be removed, or "".
    """
    fs, path = open_filesystem(url, storage)
    put_bytes(fs, path, manifest.model_dump_json(indent=1).encode())
    try:
        staging.clear(receipts)
    except Exception as error:  # whatever a store raises
        return f"Run {manifest.run_id} is published, but its staged files could not be removed: {error}"
    return ""


_TEXTS = ("words", "text", "normalized_text", "normalized_reference")  # of transcripts: large, and scored already


def write_quality(
    files: Sequence[PublishedFile], partition: str, destination: str, storage: Storage
) -> tuple[pa.Table, list[PublishedFile]]:
    """Measure the published rows; returns the ``quality`` table and the file it was written to."""
    utterances = read_published(files, "utterances", schema_of("utterances").names, destination, storage)
    columns = [name for name in schema_of("transcripts").names if name not in _TEXTS]
    transcripts = read_published(files, "transcripts", columns, destination, storage)
    table = quality_table(utterances, transcripts)
    path = f"quality/{partition}/part-00000.parquet"
    return table, [write_table("quality", iter([table]), path, destination, storage)]
