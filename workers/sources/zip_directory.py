"""The central directory of a zip: what it says of each file, an odd one costing none of its neighbours.

:mod:`zipfile` finds the directory, and gives up all of it for one name that is not what it is flagged as, or for one
broken extra field; so its records are read here.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from workers.sources.entries import decode_text

_UTF8 = 0x800  # general purpose flag (APPNOTE.TXT 4.4.4)
_ZIP64, _UNICODE_PATH = 0x0001, 0x7075  # extra fields: sizes in 64 bits (4.5.3), Info-ZIP's name in UTF-8 (4.6.9)
_FULL = 0xFFFFFFFF  # a size or offset of 32 bits that stands for one in 64
# system that made it, flags, method, CRC-32, stored and real size, bytes of name, extra and comment, attributes, offset
_RECORD = struct.Struct("<4s x B 2x H H 4x L L L H H H 4x L L")
_END64 = 56 + 20  # bytes of the 64-bit end record and its locator (4.3.14, 4.3.15)


@dataclass(frozen=True)
class Record:
    """A file in the directory. ``offset``: where its local header starts; None where its extra field should say."""

    name: str
    size: int
    stored_size: int
    offset: int | None
    crc: int
    method: int
    flags: int
    system: int
    attributes: int


def records(file: Any) -> Iterator[Record]:
    """The directory's records in its order. Raises zipfile.BadZipFile, OSError or struct.error where it is no zip."""
    end = zipfile._EndRecData(file)  # type: ignore[attr-defined]  # finds 64-bit end records, too
    if not end:
        raise zipfile.BadZipFile("no directory at its end")
    signature, length, offset, location = end[0], end[5], end[6], end[9]
    start = location - length - (_END64 if signature == b"PK\x06\x06" else 0)
    before = start - offset  # bytes in front of the zip, such as a program that unpacks it
    if start < 0:
        raise zipfile.BadZipFile("its directory starts before the file does")
    file.seek(start)
    data = file.read(length)
    at = 0
    while at < length:
        if len(data) < at + _RECORD.size:
            raise zipfile.BadZipFile("its directory is cut short")
        signature, system, flags, method, crc, stored, size, *lengths, attributes, where = _RECORD.unpack_from(data, at)
        if signature != b"PK\x01\x02":
            raise zipfile.BadZipFile("its directory is damaged")
        at += _RECORD.size
        name, extra = data[at : at + lengths[0]], data[at + lengths[0] : at + lengths[0] + lengths[1]]
        at += sum(lengths)
        fields = dict(_fields(extra))
        large = _large([size, stored, where], fields.get(_ZIP64, b""))
        size, stored, where = large or (size, stored, 0)
        yield Record(
            _name(name, bool(flags & _UTF8), fields), size, stored, before + where if large else None, crc, method,
            flags, system, attributes,
        )  # fmt: skip


def _fields(extra: bytes) -> Iterator[tuple[int, bytes]]:
    """The extra fields, as far as they are whole."""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        if length > len(extra) - 4:
            return
        yield kind, extra[4 : 4 + length]
        extra = extra[4 + length :]


def _large(values: list[int], field: bytes) -> list[int] | None:
    """``values`` with those that are in ``field``, 64 bits each, put in; None where one is missing there."""
    for at, value in enumerate(values):
        if value == _FULL:
            if len(field) < 8:
                return None
            (values[at],) = struct.unpack_from("<Q", field)
            field = field[8:]
    return values


def _name(raw: bytes, is_utf8: bool, fields: dict[int, bytes]) -> str:
    r"""The name as its author meant it: UTF-8 where it is flagged, in the extra field, or valid UTF-8 unflagged.

    Else it is in the code page of DOS; flagged as UTF-8 which it is not, in Windows'. Some of Windows' packers write
    backslashes between folders.
    """
    other = fields.get(_UNICODE_PATH, b"")
    if not is_utf8 and len(other) > 5 and struct.unpack_from("<L", other, 1)[0] == zlib.crc32(raw):
        name = decode_text(other[5:])
    else:
        try:
            name = raw.decode()
        except UnicodeDecodeError:
            name = decode_text(raw) if is_utf8 else raw.decode("cp437")
    name = name.partition("\0")[0]
    return name if "/" in name else name.replace("\\", "/")
