"""One way to reach a URL: fsspec, with the run's storage settings."""

from __future__ import annotations

import contextlib
import os
import re
import uuid
from typing import Any

import fsspec
from fsspec.core import url_to_fs

from schemas.config import Storage

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


def put_bytes(fs: fsspec.AbstractFileSystem, path: str, data: bytes) -> None:
    """Write ``data`` so that a reader sees all of it or nothing: one PUT, or a rename on a local disk."""
    if "file" not in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,)):
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


def touch(url: str, storage: Storage) -> None:
    """Prove that ``url`` can be written to; leaves one empty object. Raises what the store raises."""
    fs, root = open_filesystem(f"{url}/.writable", storage)
    put_bytes(fs, root, b"")
