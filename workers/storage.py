"""One way to reach a URL: fsspec, with the run's storage settings."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import re
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import fsspec
from fsspec.core import has_magic, url_to_fs

from schemas.config import Storage

REMOVED_AT_ONCE = 16  # files, where a store takes them one by one
_SURROGATE = re.compile("[\udc80-\udcff]")
_ESCAPE = re.compile(r"\\u(dc[89a-f][0-9a-f])")


def storage_options(url: str, storage: Storage) -> dict[str, Any]:
    """fsspec options for ``url``. Credentials come from the standard chain: environment, profile, instance role."""
    if not url.startswith(("s3://", "s3a://")):
        return {}
    options: dict[str, Any] = {"anon": storage.anonymous}
    if storage.endpoint_url:
        options["endpoint_url"] = storage.endpoint_url
    if storage.profile:
        options["profile"] = storage.profile
    if storage.region:
        options["client_kwargs"] = {"region_name": storage.region}
    return options


def open_filesystem(url: str, storage: Storage) -> tuple[fsspec.AbstractFileSystem, str]:
    """The filesystem of ``url`` and the path inside it. Opens no connection yet for remote stores."""
    if "://" not in url:
        url = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), url)
        if "::" in url and url.startswith("/"):  # a name like any other; fsspec would take it for a chain of URLs
            return fsspec.filesystem("file"), url
    return url_to_fs(url, **storage_options(url, storage))


def escaped(path: str) -> str:
    """A local path in characters that can be written anywhere: bytes that are not UTF-8, which Python hands over as
    lone surrogates (PEP 383), as ``\\udc80`` to ``\\udcff``. :func:`open_filesystem` knows them.

    >>> escaped("/d/caf\\udce9.tar")
    '/d/caf\\\\udce9.tar'
    """
    return path if path.isascii() else _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):x}", path)


def absolute_url(url: str) -> str:
    """``url`` without trailing slashes; a local path becomes absolute, so that identities do not depend on the cwd."""
    if "://" in url or "::" in url:
        return url.rstrip("/").removeprefix("file://")
    return os.path.abspath(os.path.expanduser(url))


def is_local(fs: fsspec.AbstractFileSystem) -> bool:
    return "file" in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,))


def put_bytes(fs: fsspec.AbstractFileSystem, path: str, data: bytes) -> None:
    """Write ``data`` so that a reader sees all of it or nothing: one PUT, or a rename on a local disk."""
    if not is_local(fs):
        fs.pipe_file(path, data)
        return
    fs.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    try:
        with open(temporary, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def read_all(fs: fsspec.AbstractFileSystem, paths: Sequence[str]) -> list[bytes | None]:
    """The contents of ``paths``, fetched side by side; None for those that are not there.

    Names are taken as they stand: ``fs.cat`` takes ``[``, ``*`` and ``?`` for a pattern. Raises what the store raises.
    """
    found = fs.cat_ranges(list(paths), None, None, on_error="return")
    for one in found:
        if isinstance(one, BaseException) and not isinstance(one, FileNotFoundError):
            raise one
    return [None if isinstance(one, FileNotFoundError) else one for one in found]


def remove(fs: fsspec.AbstractFileSystem, paths: Sequence[str]) -> None:
    """Remove files, by their names as they stand; those that have gone already are as good as removed.

    Raises what the store raises.
    """
    if paths and not is_local(fs) and not any(map(has_magic, paths)):
        with contextlib.suppress(FileNotFoundError):  # of a store that removes one by one, and stops at the first
            fs.rm(list(paths))  # on S3 one request for a thousand
            return

    def remove_one(path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            fs.rm_file(path)

    with ThreadPoolExecutor(REMOVED_AT_ONCE) as pool:
        list(pool.map(remove_one, paths))


def changed_at(info: Mapping[str, Any]) -> float | None:
    """When a listed file was last changed, in seconds since 1970 by its store's clock; None where it does not say."""
    for field in ("mtime", "LastModified", "last_modified", "updated", "modified", "created"):
        when = info.get(field)
        if isinstance(when, str):
            with contextlib.suppress(ValueError):
                when = dt.datetime.fromisoformat(when)
        if isinstance(when, dt.datetime):
            return (when if when.tzinfo else when.replace(tzinfo=dt.UTC)).timestamp()
        if isinstance(when, int | float):
            return float(when)
    return None


def touch(url: str, storage: Storage) -> None:
    """Prove that ``url`` can be written to; leaves one empty object. Raises what the store raises."""
    fs, root = open_filesystem(f"{url}/.writable", storage)
    put_bytes(fs, root, b"")
