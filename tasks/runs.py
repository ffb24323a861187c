"""The published runs of a destination: their manifests, found and read."""

from __future__ import annotations

import dataclasses
import datetime as dt
import posixpath
from collections.abc import Callable

from schemas.config import Layout, Storage
from schemas.errors import VoxmillError
from schemas.manifest import RunManifest
from schemas.records import ID_TIME, Run
from workers.ledger import parsed
from workers.storage import absolute_url, open_filesystem

RECENT = 30  # runs of a trend: a month of nights


def run_ids(destination: str, storage: Storage) -> list[str]:
    """Ids of the published runs, oldest first (:func:`after_published`)."""
    fs, folder = open_filesystem(f"{absolute_url(destination)}/_runs", storage)
    fs.invalidate_cache()
    try:
        names = [posixpath.basename(path) for path in fs.ls(folder, detail=False)]
    except FileNotFoundError:
        return []
    except PermissionError as error:
        raise VoxmillError(
            "this store refuses to list the runs", destination, f"Check the credentials ({error})"
        ) from None
    return sorted(name.removesuffix(".json") for name in names if name.endswith(".json"))


def after_published(run: Run, destination: str, storage: Storage) -> Run:
    """``run``, with an id (and its date) after those of all published runs: what is published last is in force.

    An id is the time of a run's start, and another run that started later, or before the clock was set back, may be
    published already. Then this one's id is a second after that one's.
    """
    last = max(run_ids(destination, storage), default="")
    return run if last < run.id else _just_after(last, run)


def _just_after(last: str, run: Run) -> Run:
    """``run`` under the id that is its own but for the time.

    >>> _just_after("20260101T235959Z-bbbbbbbb", Run("20260101T120000Z-aaaaaaaa", "2026-01-01", "")).id
    '20260102T000000Z-aaaaaaaa'
    """
    own = run.id.rpartition("-")[2]
    try:
        moment = dt.datetime.strptime(last.partition("-")[0], ID_TIME) + dt.timedelta(seconds=1)
        later = dataclasses.replace(run, id=f"{moment:{ID_TIME}}-{own}", date=f"{moment:%Y-%m-%d}")
    except (ValueError, OverflowError):
        later = run
    # Behind an id of another making stands whatever begins with it.
    return later if later.id > last else dataclasses.replace(run, id=f"{last}-{own}")


def published_before(run: Run, destination: str, storage: Storage) -> RunManifest | None:
    """What an earlier attempt of the same flow run has published, the last of it; None where there is nothing.

    Attempts share the digits of the flow run's id that a run's own ends in.
    """
    flow_run = run.id.rpartition("-")[2]
    mine = [one for one in run_ids(destination, storage) if one.rpartition("-")[2] == flow_run]
    return read_manifest(destination, mine[-1], storage) if mine else None


def read_manifest(destination: str, run_id: str, storage: Storage) -> RunManifest:
    """The manifest of one run; raises VoxmillError where there is none or it cannot be read."""
    url = Layout(destination=absolute_url(destination)).manifest(run_id)
    fs, path = open_filesystem(url, storage)
    try:
        return parsed(fs.cat_file(path), url)
    except FileNotFoundError:
        known = ", ".join(run_ids(destination, storage)[-3:]) or "none"
        raise VoxmillError(f"no run {run_id} is published here", destination, f"The latest runs: {known}") from None


def latest_manifest(
    destination: str, storage: Storage, suits: Callable[[RunManifest], bool] = lambda run: run.kind == "corpus"
) -> RunManifest | None:
    """The manifest of the latest run that ``suits`` (any corpus run does), or None where there is none."""
    manifests = (read_manifest(destination, run_id, storage) for run_id in reversed(run_ids(destination, storage)))
    return next(filter(suits, manifests), None)


def find_manifest(destination: str, run_id: str | None, storage: Storage, kind: str | None = "corpus") -> RunManifest:
    """The manifest of ``run_id``, by default of the latest corpus run, if possible one that published utterances.

    Raises VoxmillError where there is none, and where ``run_id`` is not of ``kind`` (None: whatever it is of).
    """
    if run_id:
        found = read_manifest(destination, run_id, storage)
        if kind and found.kind != kind:
            source = found.parameters.get("run_id")
            do = f"Give the {kind} run whose texts it spoke{f', {source}' if source else ''}"
            raise VoxmillError(f"run {run_id} is a {found.kind} run", destination, do)
        return found
    manifest = latest_manifest(destination, storage, lambda run: run.kind == "corpus" and run.utterances > 0)
    manifest = manifest or latest_manifest(destination, storage)
    if manifest is None:
        raise VoxmillError("nothing is published here yet", destination, "Start a run first: voxmill run")
    return manifest


def recent_manifests(manifest: RunManifest, destination: str, storage: Storage) -> list[RunManifest]:
    """The last runs of the same kind up to ``manifest``'s own, oldest first, at most :data:`RECENT`.

    Manifests that this version cannot read are passed over.
    """
    found = [manifest]
    for run_id in reversed(run_ids(destination, storage)):
        if len(found) == RECENT:
            break
        if run_id >= manifest.run_id:
            continue
        try:
            before = read_manifest(destination, run_id, storage)
        except VoxmillError:
            continue
        if before.kind == manifest.kind:
            found.append(before)
    return found[::-1]
