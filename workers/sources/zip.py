"""Zip archives: members from the central directory, inflated and checked from a byte range each."""

from __future__ import annotations

import bz2
import io
import lzma
import posixpath
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

from schemas.errors import MemberError
from schemas.reasons import Reason
from schemas.records import Member
from workers.sources.entries import Entry, decode_name
from workers.sources.kinds import estimate_s
from workers.sources.store import ArchiveError, StoreError
from workers.sources.zip_directory import Record, records

LOCAL_HEADER = 30  # bytes before the name (APPNOTE.TXT 4.3.7)
_ENCRYPTED = 0x1  # general purpose flag (APPNOTE.TXT 4.4.4)
_ZSTD = 93
_METHODS = {zipfile.ZIP_STORED: "", zipfile.ZIP_DEFLATED: "deflate", zipfile.ZIP_BZIP2: "bzip2",
            zipfile.ZIP_LZMA: "lzma", _ZSTD: "zstd"}  # fmt: skip


def entries(file: Any, uri: str) -> Iterator[Entry]:
    """The files of a zip in the order of its central directory.

    Raises ArchiveError where the directory cannot be read; StoreError where the store fails.
    """
    try:
        found = [record for record in records(file) if not record.name.endswith("/")]
    except StoreError:
        raise
    except Exception as error:  # struct.error, OSError and BadZipFile on hostile data
        why = " ".join(str(error).split()) or type(error).__name__
        message = f"the zip's directory cannot be read ({why}): cut short, or no zip. Fetch or pack the archive again"
        raise ArchiveError(Reason.ARCHIVE_UNREADABLE, message) from error
    for ordinal, record in enumerate(found):
        yield _entry(record, uri, ordinal)


def _entry(record: Record, uri: str, ordinal: int) -> Entry:
    name = decode_name(record.name)
    member = Member(
        name,
        record.size,
        uri,
        f"{record.crc:08x}",
        record.offset or 0,
        stored_size=record.stored_size,
        compression=_METHODS.get(record.method, str(record.method)),
        ordinal=ordinal,
        estimated_s=estimate_s(name, record.size),
    )
    mode = record.attributes >> 16 if record.system == 3 else 0  # Unix permissions, where Unix made the archive
    is_piped = stat.S_ISFIFO(mode) and record.size > 0  # what came through a pipe when the archive was made
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG) and not is_piped:
        what = "a symbolic link" if stat.S_ISLNK(mode) else "a device or pipe"
        return Entry(member).refuse(Reason.NOT_A_FILE, f"{what}, not a file; pack the file it stands for")
    if record.flags & _ENCRYPTED:
        return Entry(member).refuse(Reason.ENCRYPTED, "password-protected; pack it again without a password")
    if record.offset is None:
        message = "its place in the archive is not in its directory; pack it again"
        return Entry(member).refuse(Reason.MEMBER_UNREADABLE, message)
    if record.method not in _METHODS:
        method = zipfile.compressor_names.get(record.method, "unknown")  # type: ignore[attr-defined]
        message = f"compressed by method {record.method} ({method}); pack again with deflate"
        return Entry(member).refuse(Reason.MEMBER_UNREADABLE, message)
    return Entry(member)


def span(member: Member) -> int:
    """Bytes to read from ``member.offset`` on: the local header, room for its usual fields, and the stored data."""
    return LOCAL_HEADER + len(posixpath.normpath(member.name).encode()) * 2 + 4096 + (member.stored_size or 0)


def data_start(local: bytes) -> int:
    """Where the data starts, given bytes from the local header on. Raises MemberError where there is no header."""
    if len(local) < LOCAL_HEADER or local[:4] != b"PK\x03\x04":
        raise MemberError(Reason.MEMBER_UNREADABLE, "no zip member at the place its directory names; pack it again")
    names: tuple[int, int] = struct.unpack("<HH", local[26:30])
    return LOCAL_HEADER + sum(names)


def inflate(member: Member, stored: bytes) -> bytes:
    """The content of a member from its stored bytes, its CRC-32 checked. Raises MemberError."""
    try:
        data = _inflated(member, stored)
    except Exception as error:  # zlib.error, EOFError, OSError, LZMAError, ZstdError, BadZipFile: all are damage
        raise MemberError(Reason.MEMBER_UNREADABLE, f"cannot be inflated: {error}; pack it again") from error
    if len(data) > member.size:
        message = f"holds more than the {member.size:,} bytes that the archive's directory says; pack it again"
        raise MemberError(Reason.MEMBER_UNREADABLE, message)
    if len(data) != member.size or f"{zlib.crc32(data):08x}" != member.version:
        what = f"{len(data):,} of {member.size:,} bytes" if len(data) != member.size else "its checksum does not match"
        raise MemberError(Reason.MEMBER_UNREADABLE, f"damaged in the archive: {what}; pack it again")
    return data


def _inflated(member: Member, stored: bytes) -> bytes:
    """What is stored, inflated, and no more than one byte beyond the size that the directory gives."""
    most = member.size + 1
    if not member.compression:
        return stored
    if member.compression == "deflate":
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(stored, most)
    if member.compression == "bzip2":
        return bz2.BZ2Decompressor().decompress(stored, most)
    if member.compression == "lzma":
        return _unlzma(stored, most)
    import zstandard

    return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(stored)).read(most)


def _unlzma(stored: bytes, most: int) -> bytes:
    """At most ``most`` bytes of raw LZMA behind a header of its own (APPNOTE.TXT 5.8.8)."""
    length, properties, dictionary = struct.unpack_from("<2xHBL", stored)
    position, literal = divmod(properties, 9)
    filters = [
        {
            "id": lzma.FILTER_LZMA1,
            "dict_size": max(4096, min(dictionary, most)),  # one longer than the content would never be filled
            "lc": literal,
            "lp": position % 5,
            "pb": position // 5,
        }
    ]
    return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters).decompress(stored[4 + length :], most)
