"""Is what the manifests say what lies there? Reads manifests, file sizes and Parquet footers; no rows but keys."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.config import Storage
from schemas.manifest import PublishedFile, RunManifest
from schemas.tables import TABLES
from tasks.runs import read_manifest, run_ids
from tasks.wording import count, size
from workers.storage import changed_at, open_filesystem

FOOTERS_AT_ONCE = 16


def verify_run(manifest: RunManifest, destination: str, storage: Storage) -> list[str]:
    """What is wrong with one run, a line each: missing or altered files, counts that do not add up."""
    found = list(_counts(manifest))
    with ThreadPoolExecutor(FOOTERS_AT_ONCE) as pool:
        for lines in pool.map(lambda file: list(_file(file, destination, storage)), manifest.files):
            found += lines
    return [f"{manifest.run_id}: {line}" for line in found]


def orphans(manifests: list[RunManifest], destination: str, storage: Storage) -> list[str]:
    """Files among the tables that no manifest names: left by a run that was stopped while it published, or foreign."""
    fs, root = open_filesystem(destination, storage)
    named = {f"{root.rstrip('/')}/{file.path}" for manifest in manifests for file in manifest.files}
    there = [path for table in TABLES for path in fs.find(f"{root.rstrip('/')}/{table}")]
    return [
        f"{path}: no manifest names this file. Remove it if no run is publishing now: one broke off"
        for path in sorted(there)
        if path not in named
    ]


def unfinished(destination: str, storage: Storage) -> list[str]:
    """What lies in the staging area, a line per fingerprint: no fault, for a run may be at work or be gone on with.

    Nothing but a person can tell whether a stopped run will be: with other settings it never is.
    """
    fs, root = open_filesystem(f"{destination}/_staging", storage)
    fs.invalidate_cache()
    found: dict[str, list[dict[str, Any]]] = {}
    for path, info in fs.find(root, detail=True).items():
        folder, _, name = path.rpartition("/")
        if not name.startswith("."):  # which proves that the destination can be written to
            found.setdefault(folder.rpartition("/")[2], []).append(info)
    lines = []
    for fingerprint, infos in sorted(found.items()):
        last = max((changed_at(info) or 0.0 for info in infos), default=0.0)
        when = f", the last on {dt.datetime.fromtimestamp(last, dt.UTC):%Y-%m-%d}" if last else ""
        written = size(sum(info["size"] for info in infos))
        lines.append(
            f"_staging/{fingerprint}: {count(len(infos), 'file')} ({written}) of unpublished shards{when}. A run with"
            " the same settings and sources goes on from them; remove the folder if none is under way or to come"
        )
    return lines


def verify(destination: str, run_id: str | None, storage: Storage) -> tuple[list[RunManifest], list[str]]:
    """The runs looked at and what is wrong with them; all runs, and orphans too, where ``run_id`` is None."""
    ids = [run_id] if run_id else run_ids(destination, storage)
    manifests = [read_manifest(destination, one, storage) for one in ids]
    found = [line for manifest in manifests for line in verify_run(manifest, destination, storage)]
    return manifests, found if run_id else found + orphans(manifests, destination, storage)


def _counts(manifest: RunManifest) -> Iterator[str]:
    counted = (manifest.members_in, manifest.members_published, manifest.members_rejected)
    if counted[0] != counted[1] + counted[2]:
        yield "{} members in, but {} published and {} rejected".format(*counted)
    archives = manifest.archives
    summed = tuple(
        sum(getattr(a, name) for a in archives) for name in ("members_in", "members_published", "members_rejected")
    )
    if summed != counted:
        yield f"members of its archives (in, published, rejected) sum to {summed}, the run says {counted}"
    rows = {table: sum(file.rows for file in manifest.files if file.table == table) for table in TABLES}
    if manifest.kind == "corpus":
        for table in ("utterances", "audio", "features"):
            if rows[table] != manifest.utterances:
                yield f"{rows[table]} rows of {table} for {manifest.utterances} utterances"


def _file(file: PublishedFile, destination: str, storage: Storage) -> Iterator[str]:
    fs, path = open_filesystem(f"{destination}/{file.path}", storage)
    try:
        length = fs.info(path)["size"]
        with fs.open(path, "rb") as stream:
            footer = pq.read_metadata(stream)
    except FileNotFoundError:
        yield f"{file.path} is missing"
        return
    except (OSError, pa.ArrowInvalid) as error:
        yield f"{file.path} cannot be read ({' '.join(str(error).split())})"
        return
    if length != file.bytes:
        yield f"{file.path} has {length} bytes, the manifest says {file.bytes}"
    if footer.num_rows != file.rows:
        yield f"{file.path} has {footer.num_rows} rows, the manifest says {file.rows}"
