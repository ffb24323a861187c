"""What a file is by its first bytes; its name decides only where the content does not."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from typing import Any

from schemas.reasons import Reason
from schemas.records import Layout
from workers.sources.kinds import extension, is_archive_name
from workers.sources.store import ArchiveError, StoreError
from workers.sources.tar import is_tar

HEAD = 64 * 1024  # bytes looked at
_BLOCK = 1024 * 1024  # and of bzip2 and zstd, which give nothing before a whole block (900 and 128 kB) is there
_BUFFER = 64 * 1024
_MAGIC = (
    (b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ\x00", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"PK\x03\x04", "zip"), (b"PK\x05\x06", "zip"), (b"7z\xbc\xaf\x27\x1c", "7z"), (b"Rar!", "rar"),
)  # fmt: skip
# zstd's skippable frames, with which pzstd begins (RFC 8878, 3.1.2): 0x184D2A50 to 0x184D2A5F, little-endian
_SKIPPABLE = tuple(bytes([first]) + b"\x2a\x4d\x18" for first in range(0x50, 0x60))
_ZSTD_WINDOW = 1 << 30  # bytes of memory that a zstd frame may ask for, as packed with --long=30
_MANIFESTS = ("jsonl", "ndjson", "json", "manifest")


def compression_of(head: bytes) -> str:
    """gzip, bzip2, xz, zstd, zip, 7z, rar, or "" for anything else."""
    if head.startswith(_SKIPPABLE):
        return "zstd"
    return next((name for magic, name in _MAGIC if head.startswith(magic)), "")


class Decompressed:
    """A one-way reader that gives what has been decompressed by now, up to the number of bytes asked for.

    So all that comes before damage is given before the damage is raised, where a reader that fills its buffers loses
    what is in them.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def read(self, size: int = _BUFFER) -> bytes:
        return bytes(self._inner.read1(min(size, _BUFFER)))

    def read_all(self) -> bytes:
        return b"".join(iter(self.read, b""))


def decompressor(file: Any, compression: str) -> Decompressed:
    """A one-way reader of what is compressed in ``file``; several concatenated streams are read as one."""
    if compression == "gzip":
        return Decompressed(gzip.GzipFile(fileobj=file, mode="rb"))
    if compression == "bzip2":
        return Decompressed(bz2.BZ2File(file))
    if compression == "xz":
        return Decompressed(lzma.LZMAFile(file))
    import zstandard

    zstd = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    return Decompressed(zstd.stream_reader(file, read_across_frames=True))


def layout_of(name: str, file: Any, *, has_size: bool = True) -> Layout:
    """The layout of a file, from its content and then its name. ``file`` is read from its start, 64 kB
    (bzip2, zstd: 1 MB).

    Raises ArchiveError where it is an archive that cannot be read here; StoreError where the store fails.
    """
    head = file.read(HEAD)
    kind = compression_of(head)
    if not head and is_archive_name(name):
        raise ArchiveError(Reason.ARCHIVE_EMPTY, "zero bytes. Fetch or pack the archive again")
    if kind in ("7z", "rar"):
        raise ArchiveError(Reason.ARCHIVE_UNREADABLE, f"a {kind} archive. Pack it again as tar or zip")
    if kind == "zip" or (not kind and name.lower().endswith(".zip") and not is_tar(head)):
        return Layout.ZIP
    if kind:
        head += file.read(_BLOCK) if kind in ("bzip2", "zstd") and len(head) == HEAD else b""
        return _compressed(name, head, kind)
    if is_tar(head):
        return Layout.TAR if has_size else Layout.STREAM
    if extension(name) in _MANIFESTS:
        return Layout.MANIFEST
    if is_archive_name(name):
        raise ArchiveError(Reason.ARCHIVE_UNREADABLE, "no tar or zip, by its first bytes. Fetch or pack it again")
    return Layout.FILE


def _compressed(name: str, head: bytes, kind: str) -> Layout:
    """A compressed tar or manifest, from what its first bytes decompress to."""
    try:
        first = _read_some(decompressor(io.BytesIO(head), kind), 512)
    except StoreError:
        raise
    except Exception as error:  # each library has errors of its own for damage
        raise ArchiveError(Reason.ARCHIVE_UNREADABLE, f"damaged {kind} data ({error}). Fetch it again") from error
    if is_tar(first):
        return Layout.STREAM
    if any(f".{manifest}" in name.lower() for manifest in _MANIFESTS):
        return Layout.MANIFEST
    if is_archive_name(name) and len(first) < 512:
        raise ArchiveError(Reason.ARCHIVE_UNREADABLE, f"the {kind} data end before a first tar header. Fetch it again")
    message = f"{kind} data that hold no tar. Decompress it, or pack its files as tar"
    raise ArchiveError(Reason.ARCHIVE_UNREADABLE, message)


def _read_some(inner: Decompressed, size: int) -> bytes:
    """Up to ``size`` bytes; fewer where the input ends early (the head is cut on purpose)."""
    data = b""
    try:
        while len(data) < size and (more := inner.read(size - len(data))):
            data += more
    except EOFError:
        pass
    return data
