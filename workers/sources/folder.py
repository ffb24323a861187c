"""Prefixes and folders: every object below is a file of the archive."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import fsspec

from schemas.config import Storage
from schemas.ids import stable_id
from schemas.reasons import Reason
from schemas.records import Member
from workers.sources.entries import Entry, decode_name
from workers.sources.kinds import estimate_s, is_archive_name
from workers.sources.store import StoreError, followed, size_of, uri_of, version_of
from workers.storage import is_local, open_filesystem

Infos = dict[str, dict[str, Any]]  # path on the filesystem -> what it says of the object
_NO_FILES = {"directory": "a link to a folder; give that folder as a source", "missing": "a link that leads nowhere"}
MAGIC = re.compile(r"[*?\[]")


def root_of(fs: fsspec.AbstractFileSystem, path: str) -> str:
    """The folder that member names are relative to: the path itself, or what stands before a pattern's first star."""
    match = MAGIC.search(path) if is_pattern(fs, path) else None
    return path if not match else path[: match.start()].rpartition("/")[0]


def name_below(root: str, path: str) -> str:
    """The member name of ``path`` below the folder ``root``. Keys of S3 may start with a folder without a name there.

    >>> name_below("b/pre", "b/pre/a.wav"), name_below("b/pre", "b/pre//a.wav"), name_below("/", "/a.wav")
    ('a.wav', 'a.wav', 'a.wav')
    """
    return decode_name(path.removeprefix(root.rstrip("/")).lstrip("/"))


def objects(fs: fsspec.AbstractFileSystem, path: str) -> Infos:
    """All objects below a folder, or matched by a pattern, by path in sorted order. Raises what the store raises.

    Keys with a nameless folder come last: where :func:`name_below` calls two the same, the plain one is the first.
    A local subfolder that cannot be listed stands there itself, of type "denied": fsspec would leave it out silently.
    """
    fs.invalidate_cache()
    denied: Infos = {}

    def note(error: OSError) -> None:
        denied[str(error.filename or path)] = {"type": "denied", "size": 0}

    if is_pattern(fs, path):
        found = {name: info for name, info in fs.glob(path, detail=True).items() if info["type"] != "directory"}
    else:
        found = fs.find(path, detail=True, **({"on_error": note} if is_local(fs) else {}))
        if path in denied:
            raise PermissionError(path)
    found |= denied
    return {
        name: found[name]
        for name in sorted(found, key=lambda name: ("//" in name, name))
        if not name.endswith("/") and name != path
    }


def is_pattern(fs: fsspec.AbstractFileSystem, path: str) -> bool:
    """Whether ``path`` is a pattern; a file or folder whose name has brackets or stars in it is none."""
    return bool(MAGIC.search(path)) and not fs.exists(path)


def version_of_all(infos: Infos) -> tuple[int, str]:
    """Bytes of all objects together, and a version that changes when any of them does."""
    size = sum(int(info.get("size") or 0) for info in infos.values())
    return size, stable_id("folder", [[name, info.get("size"), version_of(info)] for name, info in infos.items()])


def entries(uri: str, storage: Storage) -> Iterator[Entry]:
    """The files below ``uri``, sorted by name; archives among them are left out, they are sources of their own.

    Raises StoreError.
    """
    try:
        fs, path = open_filesystem(uri, storage)
        infos = objects(fs, path)
        root = root_of(fs, path)
    except Exception as error:  # whatever a backend raises
        raise StoreError(error, uri) from error
    ordinal = 0
    for name, info in infos.items():
        if not is_archive_name(name):
            yield entry_of(fs, name, info, name_below(root, name), ordinal)
            ordinal += 1


def entry_of(fs: fsspec.AbstractFileSystem, path: str, info: dict[str, Any], name: str, ordinal: int) -> Entry:
    """The entry of one object. Links of local folders are followed to files, and to nothing else."""
    info = followed(fs, path, info)
    size = size_of(info)
    member = Member(name, size, uri_of(fs, path), version_of(info), ordinal=ordinal, estimated_s=estimate_s(name, size))
    if info.get("type") == "denied":
        message = "this folder may not be listed; check its permissions"
        return Entry(member).refuse(Reason.ACCESS_DENIED, message)
    if is_local(fs) and info["type"] != "file":
        return Entry(member).refuse(Reason.NOT_A_FILE, _NO_FILES.get(info["type"], "a device, pipe or socket"))
    return Entry(member)
