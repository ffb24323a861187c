"""What lies at a URL: names, versions and errors of stores, the same for every fsspec filesystem."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import Any

import fsspec

from schemas.config import Storage
from schemas.errors import MemberError, VoxmillError
from schemas.reasons import Reason
from schemas.records import UNTOLD
from workers.sources.leaps import LeapCache
from workers.storage import escaped, is_local, open_filesystem

# Read ahead of a seek on a remote store. At about 30 ms per request and 100 MB/s, 3 MB take as long as asking for them.
REMOTE_BLOCK = 4 * 1024 * 1024
# Read ahead of a header where data between headers is leapt over: a member's end, its neighbour's sidecars and start.
HEADER_BLOCK = 16 * 1024


class ArchiveError(MemberError):
    """A whole archive that cannot be read, or not to its end; becomes a reject with an empty member name."""


class StoreError(VoxmillError):
    """The store, not the data, failed: missing, denied or out of reach. ``reason`` is a code of Reason.

    ``is_general``: not for the sake of this one object; what is asked for next would fail as well.
    """

    def __init__(self, error: Exception, uri: str) -> None:
        self.reason, what, do = _explain(error)
        is_unreachable = self.reason == Reason.SOURCE_UNREACHABLE and not _is_of_url(error)
        self.is_general = is_unreachable or _has_no_access(error)
        super().__init__(what, uri, do)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self.reason, self.is_general, self.what, self.where, self.do)


def _restore(reason: Reason, is_general: bool, what: str, where: str, do: str) -> StoreError:
    error = StoreError.__new__(StoreError)
    VoxmillError.__init__(error, what, where, do)
    error.reason, error.is_general = reason, is_general
    return error


# botocore's errors where there are no credentials, or none that can be used
_NO_CREDENTIALS = frozenset(
    ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound",
     "NoAuthTokenError", "TokenRetrievalError", "UnauthorizedSSOTokenError", "SSOTokenLoadError")
)  # fmt: skip
# S3's codes that speak of credentials, clock, account or bucket. s3fs makes the same errors of them as of an object's.
_NO_ACCESS = frozenset(
    ("ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired", "InvalidAccessKeyId",
     "SignatureDoesNotMatch", "RequestTimeTooSkewed", "RequestExpired", "InvalidSecurity", "InvalidPayer",
     "AccountProblem", "AllAccessDisabled", "NotSignedUp", "NoSuchBucket")
)  # fmt: skip


def _has_no_access(error: BaseException) -> bool:
    """Whether ``error``, or what it came from, says that no object can be had this way."""
    if type(error).__name__ in _NO_CREDENTIALS:
        return True
    response = getattr(error, "response", None)
    if isinstance(response, dict) and response.get("Error", {}).get("Code") in _NO_ACCESS:
        return True
    return error.__cause__ is not None and _has_no_access(error.__cause__)


def _is_of_url(error: Exception) -> bool:
    """Whether nothing can be had under this very URL: no path, or of a kind of store that there is no driver for."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.EISDIR)
    return isinstance(error, ImportError) or (isinstance(error, ValueError) and "endpoint" not in str(error).lower())


def _explain(error: Exception) -> tuple[Reason, str, str]:
    """Reason, what was wrong and what to do, for any exception a store raises."""
    name, said = type(error).__name__, " ".join(str(error).split())[:200]
    if isinstance(error, PermissionError) or name in _NO_CREDENTIALS:
        return Reason.ACCESS_DENIED, f"access denied ({said or name})", (
            "Check the credentials (environment, storage.profile, storage.credentials_block or storage.anonymous for "
            "public buckets) and the file's or bucket's permissions"
        )  # fmt: skip
    if isinstance(error, NotADirectoryError):
        return Reason.SOURCE_MISSING, f"a file is in the way of a folder ({said})", "Correct the path, or name another"
    if isinstance(error, FileNotFoundError):
        if "bucket" in said.lower():
            return Reason.SOURCE_MISSING, "no such bucket", "Check the bucket's name, storage.endpoint_url and region"
        return Reason.SOURCE_MISSING, "nothing is there", "Check the URL for typing errors and the store it lies in"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            Reason.SOURCE_UNREACHABLE,
            f"no space is left ({said})",
            ("Free some, or name another destination; then run again: finished shards are kept"),
        )
    if isinstance(error, ImportError):
        return Reason.SOURCE_UNREACHABLE, f"no driver for this kind of store ({said})", "Install the package it names"
    if isinstance(error, ValueError) and "rotocol" in said:
        return Reason.SOURCE_UNREACHABLE, f"unknown kind of URL ({said})", "Use a local path, s3://, gs://, https://"
    if _is_of_url(error):
        return Reason.SOURCE_UNREACHABLE, f"no path that can be read ({said or name})", "Correct or rename it"
    return Reason.SOURCE_UNREACHABLE, f"the store did not answer as it should ({name}: {said})", (
        "Check storage.endpoint_url, the region and the network, then run again"
    )  # fmt: skip


def uri_of(fs: fsspec.AbstractFileSystem, path: str) -> str:
    """The URI of ``path`` on ``fs``; a plain path for local files, in characters that can be written anywhere."""
    return escaped(path) if is_local(fs) else str(fs.unstrip_protocol(path))


def version_of(info: Mapping[str, Any]) -> str:
    """What changes when the object does: its ETag, else the time of its last change, else ""."""
    times = ("mtime", "LastModified", "last_modified", "Last-Modified", "updated", "modified", "created")
    for field in ("ETag", "etag", *times):
        if info.get(field):
            return str(info[field]).strip('"')
    return ""


def size_of(info: Mapping[str, Any]) -> int:
    """Bytes of an object, UNTOLD where the store does not say."""
    size = info.get("size")
    return UNTOLD if size is None else int(size)


def followed(fs: fsspec.AbstractFileSystem, path: str, info: dict[str, Any]) -> dict[str, Any]:
    """``info``, of a link what it leads to: local listings tell of the link itself. Its ``type`` is "missing" where it
    leads nowhere."""
    if not is_local(fs) or not info.get("islink"):
        return info
    try:
        return info | fs.info(path)
    except OSError:
        return info | {"type": "missing"}


class StoreFile:
    """A file opened for reading whose errors are :class:`StoreError`, so they are never taken for damaged data.

    Reads are exact: fewer bytes than asked for come only at the end of the file. ``leaps``: only headers will be read,
    far apart or not, so that on a remote store as little as sensible is fetched between them.
    """

    def __init__(self, uri: str, storage: Storage, block: int = REMOTE_BLOCK, *, leaps: bool = False) -> None:
        self._uri = uri
        block, cache = (HEADER_BLOCK, LeapCache.name) if leaps else (block, "readahead")
        try:
            fs, path = open_filesystem(uri, storage)
            self._file = fs.open(path, "rb", block_size=block, cache_type=cache)
        except Exception as error:  # whatever a backend raises
            raise StoreError(error, uri) from error

    def read(self, size: int = -1) -> bytes:
        try:
            data = bytes(self._file.read(size))
            while 0 < len(data) < size and (more := self._file.read(size - len(data))):
                data += more
        except Exception as error:  # whatever a backend raises
            raise StoreError(error, self._uri) from error
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def seekable(self) -> bool:
        return bool(self._file.seekable())

    def readable(self) -> bool:
        return True

    @property
    def closed(self) -> bool:
        return bool(self._file.closed)

    def flush(self) -> None:
        """Nothing to flush; file-like objects have it."""

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> StoreFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
