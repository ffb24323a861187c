"""Recordings put one behind the other in one file: chained Ogg, and MP3 files concatenated.

libsndfile gives the first of them and says nothing of the rest. So does FFmpeg of a chain that changes its codec,
rate or channels, so it is given each link by itself; through MP3 files it reads on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

_READ_BYTES = 1 << 20
_OGG_FIRST = re.compile(rb"OggS\0[\x02\x06]\0{8}")  # a page that begins a stream (RFC 3533, 6), at position 0
_OGG_HEADER = 27  # bytes of a page before its table of segments
_MP3_FRAME = re.compile(rb"\xff[\xe2-\xff]")
_MP3_RUN = 4  # frames one behind the other that are no chance
_MP3_SEARCHED = 16 << 20  # bytes behind the first recording, for tags and pictures before the next
# ISO 11172-3 and 13818-3, layer III: kbit/s by the header's index, and Hz
_KBPS = {
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_HZ = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


def starts_of(file: BinaryIO, size: int) -> list[int]:
    """Where the links of a chained Ogg in the ``size`` bytes of ``file`` start; 0 alone for anything else."""
    return [0, *(_links(file, size) if _at(file, 0, 4) == b"OggS" else ())]


def is_mp3_and_more(file: BinaryIO, size: int) -> bool:
    """Whether MP3 frames follow behind those that the first frame's Xing, Info or VBRI header counts."""
    start = _past_id3(file)
    return (start > 0 or _MP3_FRAME.match(_at(file, 0, 4)) is not None) and _goes_on(file, start, size)


def _at(file: BinaryIO, position: int, size: int) -> bytes:
    file.seek(position)
    return file.read(size)


def _links(file: BinaryIO, size: int) -> Iterator[int]:
    """Where the links of an Ogg chain start, but for the first. A link may begin with several streams, page by page."""
    position = _past_first_pages(file, 0)
    while position < size:
        found = _OGG_FIRST.search(_at(file, position, _READ_BYTES + 13))
        if found is None:
            position += _READ_BYTES
        else:
            yield position + found.start()
            position = _past_first_pages(file, position + found.start())


def _past_first_pages(file: BinaryIO, position: int) -> int:
    while _OGG_FIRST.match(page := _at(file, position, _OGG_HEADER + 255)):
        table = page[_OGG_HEADER : _OGG_HEADER + page[_OGG_HEADER - 1]]
        position += _OGG_HEADER + len(table) + sum(table)
    return position


def _past_id3(file: BinaryIO) -> int:
    """Where the bytes behind ID3v2 tags start."""
    position = 0
    while (tag := _at(file, position, 10))[:3] == b"ID3" and len(tag) == 10:
        length = sum((byte & 0x7F) << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True))
        position += 10 + length + (10 if tag[5] & 0x10 else 0)
    return position


def _goes_on(file: BinaryIO, start: int, size: int) -> bool:
    first = _at(file, start, 2048)
    length = _frame_bytes(first, 0)
    tag = re.search(rb"Xing|Info|VBRI", first[: min(length, 200)])
    if tag is None:
        return False
    if tag[0] == b"VBRI":
        counted = first[tag.start() + 10 : tag.start() + 14]
    else:
        flags = int.from_bytes(first[tag.end() : tag.end() + 4], "big")
        at = tag.end() + (8 if flags & 1 else 4)
        counted = first[at : at + 4] if flags & 2 else b""
    end = start + int.from_bytes(counted, "big")
    if end <= start or end + _MP3_RUN * length > size:
        return False
    rest = _at(file, end, min(size - end, _MP3_SEARCHED))
    return any(_is_run(rest, match.start()) for match in _MP3_FRAME.finditer(rest))


def _is_run(data: bytes, at: int) -> bool:
    """Whether frames of one kind follow one another from ``at`` on."""
    kind = data[at + 1 : at + 2]
    for _ in range(_MP3_RUN):
        length = _frame_bytes(data, at)
        if not length or data[at + 1 : at + 2] != kind:
            return False
        at += length
    return True


def _frame_bytes(data: bytes, at: int) -> int:
    """Bytes of the layer III frame that starts at ``at``; 0 where none does."""
    header = data[at : at + 4]
    if len(header) < 4 or not _MP3_FRAME.match(header) or header[1] >> 1 & 3 != 1:
        return 0
    version, rate, hz = header[1] >> 3 & 3, header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or hz == 3 or not 0 < rate < 15:
        return 0
    is_mpeg1 = version == 3
    bits = _KBPS[is_mpeg1][rate] * 1000 * (144 if is_mpeg1 else 72)
    return bits // _HZ[version][hz] + (header[2] >> 1 & 1)
