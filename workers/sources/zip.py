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
from workers.sources.entries import Entry, decode_name, decode_text
from workers.sources.kinds import estimate_s
from workers.sources.store import ArchiveError, StoreError

LOCAL_HEADER = 30  # bytes before the name (APPNOTE.TXT 4.3.7)
_ENCRYPTED, _UTF8 = 0x1, 0x800  # general purpose flags (APPNOTE.TXT 4.4.4)
_UNICODE_PATH = 0x7075  # Info-ZIP's extra field with the name in UTF-8 (APPNOTE.TXT 4.6.9)
_ZSTD = 93
_METHODS = {zipfile.ZIP_STORED: "", zipfile.ZIP_DEFLATED: "deflate", zipfile.ZIP_BZIP2: "bzip2",
            zipfile.ZIP_LZMA: "lzma", _ZSTD: "zstd"}  # fmt: skip


def entries(file: Any, uri: str) -> Iterator[Entry]:
    """The files of a zip in the order of its central directory.

    Raises ArchiveError where the directory cannot be read; StoreError where the store fails.
    """
    try:
        archive = zipfile.ZipFile(file)
    except StoreError:
        raise
    except Exception as error:  # zipfile lets struct.error, ValueError, NotImplementedError through on hostile data
        why = " ".join(str(error).split()) or type(error).__name__
        message = f"the zip's directory cannot be read ({why}): cut short, or no zip. Fetch or pack the archive again"
        raise ArchiveError(Reason.ARCHIVE_UNREADABLE, message) from error
    with archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
    for ordinal, info in enumerate(infos):
        yield _entry(info, uri, ordinal)


def _entry(info: zipfile.ZipInfo, uri: str, ordinal: int) -> Entry:
    name = decode_name(_name(info))
    member = Member(
        name,
        info.file_size,
        uri,
        f"{info.CRC:08x}",
        info.header_offset,
        stored_size=info.compress_size,
        compression=_METHODS.get(info.compress_type, str(info.compress_type)),
        ordinal=ordinal,
        estimated_s=estimate_s(name, info.file_size),
    )
    mode = info.external_attr >> 16 if info.create_system == 3 else 0  # Unix permissions, where Unix made the archive
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        what = "a symbolic link" if stat.S_ISLNK(mode) else "a device or pipe"
        return Entry(member).refuse(Reason.NOT_A_FILE, f"{what}, not a file; pack the file it stands for")
    if info.flag_bits & _ENCRYPTED:
        return Entry(member).refuse(Reason.ENCRYPTED, "password-protected; pack it again without a password")
    if info.compress_type not in _METHODS:
        method = zipfile.compressor_names.get(info.compress_type, "unknown")  # type: ignore[attr-defined]
        message = f"compressed by method {info.compress_type} ({method}); pack again with deflate"
        return Entry(member).refuse(Reason.MEMBER_UNREADABLE, message)
    return Entry(member)


def _name(info: zipfile.ZipInfo) -> str:
    """The name as its author meant it: UTF-8 where it is flagged, in the extra field, or valid UTF-8 unflagged.

    zipfile reads unflagged names as cp437, which turns the UTF-8 of macOS and Linux tools into boxes and accents.
    """
    if info.flag_bits & _UTF8:
        return info.filename
    raw, extra = info.orig_filename.encode("cp437", "replace"), info.extra
    while len(extra) >= 4:
        kind, length = struct.unpack("<HH", extra[:4])
        if kind == _UNICODE_PATH and length > 5 and struct.unpack("<L", extra[5:9])[0] == zlib.crc32(raw):
            return decode_text(extra[9 : 4 + length])
        extra = extra[4 + length :]
    try:
        return raw.decode().partition("\0")[0]
    except UnicodeDecodeError:
        return info.filename


def span(member: Member) -> int:
    """Bytes to read from ``member.offset`` on: the local header, with room for its fields, and the stored data."""
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
