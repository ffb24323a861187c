"""What is in force at a destination: the ledgers of all published runs, a later run's members over an earlier one's."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.config import Layout, Storage
from schemas.manifest import RunManifest, Superseded
from schemas.records import Published
from schemas.tables import RETRY
from workers.sources.store import StoreError
from workers.storage import open_filesystem
from workers.unchanged import done_archives


@dataclass(frozen=True)
class PastRun:
    """A published run and its ledger (:data:`schemas.tables.LEDGER`), cut down to members still in force."""

    manifest: RunManifest
    members: pa.Table


def runs_in_force(destination: str, storage: Storage, kind: str = "corpus") -> list[PastRun]:
    """Published runs of ``kind``, oldest first, each with those of its members that no later run supersedes.

    Raises VoxmillError where the destination cannot be read.
    """
    layout = Layout(destination=destination)
    fs, folder = open_filesystem(f"{destination}/_runs", storage)
    fs.invalidate_cache()
    try:
        names = [posixpath.basename(path) for path in fs.ls(folder, detail=False)]
    except FileNotFoundError:
        return []
    except Exception as error:  # whatever a store raises
        raise StoreError(error, destination) from error
    in_force: list[PastRun] = []
    for name in sorted((name for name in names if name.endswith(".json")), reverse=True):
        manifest = RunManifest.model_validate_json(fs.cat_file(f"{folder}/{name}"))
        if manifest.kind != kind:
            continue
        members = _read(layout.ledger(manifest.run_id), storage)
        for later in in_force:
            members = _without(members, later.members)
        in_force.append(PastRun(manifest, members))
    return in_force[::-1]


def published(runs: list[PastRun], fingerprint: str) -> Published:
    """What of ``runs`` was made with these settings: the members a new run with the same settings may skip.

    Members to be tried again are not among them, nor are one-way streams that have such a member: to come by it, they
    have to be read again. Duplicates share the name of their first, and what becomes of it.
    """
    members: dict[tuple[str, str], tuple[str, str]] = {}
    for run in runs:
        if run.manifest.fingerprint != fingerprint:
            continue
        retried = run.members.filter(pc.equal(run.members.column("status"), RETRY))
        done = _without(run.members, retried)
        columns = [done.column(name).to_pylist() for name in ("archive", "member", "member_key", "side")]
        for archive, member, key, side in zip(*columns, strict=True):
            if side or (archive, member) not in members:  # a duplicate has no side of its own
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


def _read(url: str, storage: Storage) -> pa.Table:
    fs, path = open_filesystem(url, storage)
    with fs.open(path, "rb") as file:
        return pq.read_table(file)


def _names(table: pa.Table) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(table.column("archive"), table.column("member"), "\0")


def _without(members: pa.Table, later: pa.Table) -> pa.Table:
    """``members`` less those that ``later`` names."""
    if not members.num_rows or not later.num_rows:
        return members
    return members.filter(pc.invert(pc.is_in(_names(members), _names(later).combine_chunks())))
