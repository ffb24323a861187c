"""What is in force at a destination: the ledgers of all published runs, a later run's members over an earlier one's."""

from __future__ import annotations

import dataclasses
import posixpath
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import ValidationError

from schemas.config import Layout, Storage
from schemas.errors import VoxmillError
from schemas.manifest import RunManifest, Superseded
from schemas.records import Published
from schemas.tables import DUPLICATE, RETRY
from workers.sources.store import StoreError
from workers.storage import changed_at, open_filesystem
from workers.unchanged import done_archives


@dataclass(frozen=True)
class PastRun:
    """A published run and its ledger (:data:`schemas.tables.LEDGER`), cut down to members still in force.

    ``shards`` are all that it published, and ``published_at`` is when it did, by the store's clock (s since 1970).
    """

    manifest: RunManifest
    members: pa.Table
    shards: frozenset[str] = frozenset()
    published_at: float | None = None


def runs_in_force(destination: str, storage: Storage, kind: str = "corpus") -> list[PastRun]:
    """Published runs of ``kind``, oldest first, each with those of its members that no later run supersedes.

    Raises VoxmillError where the destination, a manifest or a ledger in it cannot be read.
    """
    layout = Layout(destination=destination)
    fs, folder = open_filesystem(f"{destination}/_runs", storage)
    fs.invalidate_cache()
    try:
        written = {posixpath.basename(one["name"]): changed_at(one) for one in fs.ls(folder, detail=True)}
    except FileNotFoundError:
        return []
    except Exception as error:  # whatever a store raises
        raise StoreError(error, destination) from error
    runs: list[PastRun] = []
    for name in sorted(name for name in written if name.endswith(".json")):
        manifest = parsed(fs.cat_file(f"{folder}/{name}"), f"{destination}/_runs/{name}")
        if manifest.kind == kind:
            ledger = _read(layout.ledger(manifest.run_id), storage)
            shards = frozenset(ledger.column("shard_id").unique().to_pylist())
            runs.append(PastRun(manifest, ledger, shards, written[name]))
    left = latest([run.members for run in runs])
    return [dataclasses.replace(run, members=members) for run, members in zip(runs, left, strict=True)]


def parsed(data: bytes, url: str) -> RunManifest:
    """The manifest that ``data``, read at ``url``, is; raises VoxmillError where it is none of this version."""
    try:
        return RunManifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        what = f"not a manifest of this version: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise VoxmillError(what, url, "Read it with the version of voxmill that wrote it") from None


def latest(ledgers: list[pa.Table]) -> list[pa.Table]:
    """``ledgers``, oldest first, each with those of its members that no later one names; in one pass over all."""
    if not ledgers:
        return []
    named = pa.chunked_array([chunk for ledger in ledgers for chunk in _names(ledger).chunks], pa.string())
    chunks = named.cast(pa.large_string()).dictionary_encode("encode").chunks  # of one dictionary
    codes = np.concatenate([np.zeros(0, np.int64), *(chunk.indices.to_numpy().astype(np.int64) for chunk in chunks)])
    runs = np.repeat(np.arange(len(ledgers)), [ledger.num_rows for ledger in ledgers])
    last = np.zeros(codes.max(initial=-1) + 1, np.int64)
    np.maximum.at(last, codes, runs)
    keep = np.split(last[codes] == runs, np.cumsum([ledger.num_rows for ledger in ledgers])[:-1])
    return [ledger.filter(pa.array(mask)) for ledger, mask in zip(ledgers, keep, strict=True)]


def finished_shards(runs: list[PastRun], fingerprint: str) -> dict[str, float | None]:
    """The shards that ``runs`` with these settings have published, and when the last of them did."""
    return {shard: run.published_at for run in runs if run.manifest.fingerprint == fingerprint for shard in run.shards}


def published(runs: list[PastRun], fingerprint: str) -> Published:
    """What of ``runs`` was made with these settings: the members a new run with the same settings may skip.

    Members to be tried again are not among them, nor are one-way streams that have such a member: to come by it, they
    have to be read again. Duplicates share the name of their first, and say nothing of what became of it.
    """
    members: dict[tuple[str, str], tuple[str, str]] = {}
    for run in runs:
        if run.manifest.fingerprint != fingerprint:
            continue
        done = _without(_firsts(run.members), _to_retry(run.members))
        columns = [done.column(name).to_pylist() for name in ("archive", "member", "member_key", "side")]
        for archive, member, key, side in zip(*columns, strict=True):
            if side or (archive, member) not in members:  # ledgers of old have duplicates without side as rejected
                members[archive, member] = (key, side)
    return Published(members, done_archives(runs, fingerprint, members))


def superseded(runs: list[PastRun], ledger: pa.Table) -> list[Superseded]:
    """What of ``runs`` the members of a new ``ledger`` replace."""
    found = []
    for run in runs:
        left = _without(run.members, ledger).num_rows
        if left < run.members.num_rows:
            found.append(Superseded(run_id=run.manifest.run_id, members=run.members.num_rows - left, whole=left == 0))
    return found


def rejected_again(runs: list[PastRun], ledger: pa.Table, utterances: pa.Table) -> int:
    """How many members of a new ``ledger`` are rejected and to be tried once more, as ``runs`` have said already.

    Those of which something is published, whose names are in ``utterances``, are not rejected.
    """
    found = [_names(_to_retry(table)) for table in (_without(ledger, utterances), *(run.members for run in runs))]
    known = pa.chunked_array([chunk for names in found[1:] for chunk in names.chunks], pa.string())
    return int(pc.sum(pc.is_in(found[0], known.combine_chunks())).as_py() or 0)


def _to_retry(members: pa.Table) -> pa.Table:
    return members.filter(pc.equal(members.column("status"), RETRY))


def _read(url: str, storage: Storage) -> pa.Table:
    fs, path = open_filesystem(url, storage)
    try:
        with fs.open(path, "rb") as file:
            return pq.read_table(file)
    except (FileNotFoundError, pa.ArrowInvalid) as error:
        why = "is missing" if isinstance(error, FileNotFoundError) else "is damaged"
        do = "Restore it, or remove the run's manifest beside it: what the run published is then done again"
        raise VoxmillError(f"this ledger of a published run {why}", url, do) from error


def _firsts(members: pa.Table) -> pa.Table:
    return members.filter(pc.not_equal(members.column("status"), DUPLICATE))


def _names(table: pa.Table) -> pa.ChunkedArray:
    """What members are known by; a duplicate by a name of its own: its shard may be done where its first's failed."""
    names = pc.binary_join_element_wise(table.column("archive"), table.column("member"), "\0")
    if "status" not in table.column_names:
        return names
    is_duplicate = pc.equal(table.column("status"), DUPLICATE)
    return pc.if_else(is_duplicate, pc.binary_join_element_wise(names, "", "\0"), names)


def _without(members: pa.Table, later: pa.Table) -> pa.Table:
    """``members`` less those that ``later`` names."""
    if not members.num_rows or not later.num_rows:
        return members
    return members.filter(pc.invert(pc.is_in(_names(members), _names(later).combine_chunks())))
