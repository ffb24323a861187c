"""The archives that sources name. Nothing is raised for a source: what cannot be read becomes a reject."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import fsspec
from fsspec.utils import glob_translate

from schemas.config import Storage
from schemas.errors import VoxmillError
from schemas.ids import stable_id
from schemas.reasons import Reason
from schemas.records import Archive, Discovery, Layout, Reject
from workers.sources.beside import Beside
from workers.sources.entries import archive_reject
from workers.sources.folder import MAGIC, Infos, is_pattern, objects, root_of, version_of_all
from workers.sources.kinds import Kind, is_archive_name, kind_of
from workers.sources.published import SKIPPED_WHOLE
from workers.sources.sniff import layout_of
from workers.sources.store import ArchiveError, StoreError, StoreFile, followed, is_local, uri_of, version_of
from workers.storage import absolute_url, open_filesystem

THREADS = 16  # archives looked into at once: each is one small request


def discover(sources: Sequence[str], storage: Storage) -> Discovery:
    """The archives that ``sources`` (URLs, globs) name, in their order, those of a folder sorted by name.

    A folder's archives are archives of their own, its loose files together are one more, and so are the files a
    pattern matches. What two sources reach is taken once.
    """
    found: dict[str, Archive | Reject] = {}
    for source in sources:
        for item in _source(absolute_url(source), storage):
            uri = item.uri if isinstance(item, Archive) else item.archive
            found.setdefault(uri, item)
    archives = _not_covered([item for item in found.values() if isinstance(item, Archive)])
    beside = Beside(storage)
    archives = [_with_sidecars(archive, beside) for archive in archives]
    return Discovery(tuple(archives), tuple(item for item in found.values() if isinstance(item, Reject)))


def check_apart(sources: Sequence[str], destination: str, storage: Storage) -> None:
    """Raise VoxmillError where ``destination`` lies in one of ``sources``: each run would read the last one's tables.

    Of a pattern, that is where it matches the destination, a folder that this lies in, or a table's file.
    """
    inside = _spelt(destination, storage)
    above = _folders(inside)
    files = [f"{inside}/utterances/run_date=2000-01-01/run_id=x/part-0.parquet", f"{inside}/_runs/x.json"]
    for source in sources:
        url = _spelt(source, storage)
        pattern = re.compile(glob_translate(url)) if MAGIC.search(url) else None
        if url in (inside, *above) or (pattern and any(pattern.match(name) for name in (inside, *above, *files))):
            raise VoxmillError(
                "the destination lies in this source, so every run would take the last one's tables for input",
                source,
                f"Choose a destination outside, instead of {destination}, or a source that leaves it out",
            )


def _spelt(url: str, storage: Storage) -> str:
    """``url`` as archives are named, without asking its store; as it stands where there is no driver for it.

    Of a chain of fsspec's, that is what it ends in.
    """
    url = absolute_url(url)
    target = url if url.startswith("/") else url.rpartition("::")[2]
    try:
        return uri_of(*open_filesystem(target, storage)).rstrip("/")
    except Exception:  # whatever a driver raises: discovery says it of the source
        return target.rstrip("/")


def _source(url: str, storage: Storage) -> list[Archive | Reject]:
    try:
        fs, path = open_filesystem(url, storage)
        fs.invalidate_cache()
        if is_pattern(fs, path):
            return _pattern(fs, path, storage)
        info = fs.info(path)
        if info["type"] == "directory":
            return _folder(fs, path, storage)
        return [_file(fs, path, info, storage)]
    except Exception as error:  # whatever a backend raises
        problem = error if isinstance(error, StoreError) else StoreError(error, url)
        message = f"{problem.what}. {problem.do}"
        return [archive_reject(url, problem.reason, message, stage="discover")]


def _file(fs: fsspec.AbstractFileSystem, path: str, info: dict[str, Any], storage: Storage) -> Archive | Reject:
    info = followed(fs, path, info)
    uri, size = uri_of(fs, path), info.get("size")
    try:
        if is_local(fs) and os.path.exists(path) and not os.path.isfile(path):  # a pipe would wait for its writer
            raise ArchiveError(Reason.NOT_A_FILE, "a folder, device or pipe, not a file. Name or pack the files in it")
        with StoreFile(uri, storage, block=64 * 1024) as file:
            layout = layout_of(path, file, has_size=size is not None)
    except ArchiveError as error:
        return archive_reject(uri, error.reason, error.message, version_of(info), "discover")
    except StoreError as error:
        return archive_reject(uri, error.reason, f"{error.what}. {error.do}", stage="discover")
    return Archive(uri, layout, None if size is None else int(size), version_of(info))


def _files(fs: fsspec.AbstractFileSystem, infos: Infos, storage: Storage) -> list[Archive | Reject]:
    with ThreadPoolExecutor(THREADS, thread_name_prefix="discover") as pool:
        return list(pool.map(lambda path: _file(fs, path, infos[path], storage), infos))


def _folder(fs: fsspec.AbstractFileSystem, path: str, storage: Storage) -> list[Archive | Reject]:
    infos = objects(fs, path)
    if not infos:
        return [archive_reject(uri_of(fs, path), Reason.ARCHIVE_EMPTY, "no files in this folder", "", "discover")]
    found = _group(fs, path, infos, storage)
    # A folder without recordings or archives is still a source: what lies in it is accounted for.
    return found or [Archive(uri_of(fs, path), Layout.FOLDER, *version_of_all(infos))]


def _pattern(fs: fsspec.AbstractFileSystem, path: str, storage: Storage) -> list[Archive | Reject]:
    matches = fs.glob(path, detail=True)
    folders = [name for name in sorted(matches) if matches[name]["type"] == "directory"]
    files = {name: matches[name] for name in sorted(matches) if name not in folders and not name.endswith("/")}
    found = _group(fs, path, files, storage)
    if not path.endswith("**"):  # ** matches the files themselves, at every depth
        for folder in folders:
            found += _folder(fs, folder, storage)
    if not found:
        message = "no archive or recording matches this pattern. Check it; ** stands for any number of folders"
        found.append(archive_reject(uri_of(fs, path), Reason.SOURCE_MISSING, message, stage="discover"))
    return found


def _group(fs: fsspec.AbstractFileSystem, path: str, infos: Infos, storage: Storage) -> list[Archive | Reject]:
    """The archives among files, and one of all loose files where there are recordings among them.

    Beside archives, readme and tables make no corpus. JSONL is side data of archives and recordings; alone, manifests.
    """
    packed = {name: info for name, info in infos.items() if is_archive_name(name)}
    loose = {name: info for name, info in infos.items() if name not in packed}
    root = root_of(fs, path).rstrip("/") + "/"
    if any(kind_of(name.removeprefix(root)) in (Kind.RECORDING, Kind.HEADERLESS) for name in loose):
        return [Archive(uri_of(fs, path), Layout.FOLDER, *version_of_all(loose)), *_files(fs, packed, storage)]
    manifests = {name: info for name, info in loose.items() if name.endswith((".jsonl", ".ndjson"))}
    return _files(fs, packed or manifests, storage)


def _not_covered(archives: Iterable[Archive]) -> list[Archive]:
    """Without loose files and folders that lie inside another folder that is a source, and recordings that a pattern
    matches: they are in it already."""
    archives = list(archives)
    roots = {archive.uri.rstrip("/") for archive in archives if archive.layout is Layout.FOLDER}
    patterns = [re.compile(glob_translate(root)) for root in sorted(roots) if MAGIC.search(root)]

    def is_covered(archive: Archive) -> bool:
        if archive.layout is Layout.FILE and any(pattern.match(archive.uri) for pattern in patterns):
            return True
        return archive.layout in (Layout.FOLDER, Layout.FILE) and bool(roots & set(_folders(archive.uri)))

    return [archive for archive in archives if not is_covered(archive)]


def _folders(uri: str) -> list[str]:
    """All folders that a file or folder lies in.

    >>> _folders("s3://calls/a/b.wav")
    ['s3:', 's3:/', 's3://calls', 's3://calls/a']
    """
    return [uri[:end] for end, char in enumerate(uri.rstrip("/")) if char == "/"]


def _with_sidecars(archive: Archive, beside: Beside) -> Archive:
    """An archive is skipped by its version alone, so that has to change with the references beside it, too."""
    if archive.layout not in SKIPPED_WHOLE or not (versions := beside.versions(archive)):
        return archive
    return replace(archive, version=f"{archive.version}+{stable_id('beside', versions, length=8)}")
