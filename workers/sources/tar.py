"""Tar archives: members by byte range without reading their data, or in order from a one-way stream.

Headers are parsed by :mod:`tarfile` (ustar, GNU long names, PAX). It ends silently where headers are damaged or the
end-of-archive marker is missing; here both are told apart from a proper end. It also stops at the first marker, where
another tar may follow (``cat a.tar b.tar``); here all is read to the end of the file.
"""

from __future__ import annotations

import math
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from blake3 import blake3

from schemas.reasons import Reason
from schemas.records import Member
from workers.sources.entries import Entry, decode_name, is_wanted
from workers.sources.kinds import estimate_s
from workers.sources.store import ArchiveError, StoreError

SAMPLE = 1024  # bytes at both ends of a member that its version is taken from
_MAX_EXTENDED = 1024 * 1024  # a long name or PAX header beyond is an attack: tarfile would read it whole
_ZEROS = 1024 * 1024  # bytes read at once behind an end marker
_EXTENDED = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE,
             tarfile.SOLARIS_XHDTYPE)  # fmt: skip
_KINDS = {
    tarfile.LNKTYPE: "a hard link", tarfile.SYMTYPE: "a symbolic link", tarfile.CHRTYPE: "a character device",
    tarfile.BLKTYPE: "a block device", tarfile.FIFOTYPE: "a named pipe",
}  # fmt: skip


class _Header(tarfile.TarInfo):
    """A header that refuses what would make tarfile read without bound or loop for ever."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        header = super().frombuf(buf, encoding, errors)
        if header.size < 0:
            raise tarfile.InvalidHeaderError(f"negative size {header.size}")  # type: ignore[attr-defined]
        if header.type in _EXTENDED and header.size > _MAX_EXTENDED:
            raise tarfile.InvalidHeaderError(f"extended header of {header.size} bytes")  # type: ignore[attr-defined]
        return header

    @classmethod
    def fromtarfile(cls, tar: Any) -> _Header:
        block = tar.past_markers()
        try:
            if tar.is_marked and not block:
                raise tarfile.EOFHeaderError("end of file behind its marker")  # type: ignore[attr-defined]
            header = cls.frombuf(block, tar.encoding, tar.errors)
            header.offset = tar.fileobj.tell() - tarfile.BLOCKSIZE
            header = header._proc_member(tar)  # type: ignore[attr-defined]  # as tarfile's own does from here on
        except tarfile.HeaderError as error:
            tar.end = error
            raise
        tar.is_marked = False
        if header.size < 0 or tar.offset <= header.offset:
            raise tarfile.ReadError("a header points backwards")
        return header

    def _proc_gnusparse_10(self, *_: Any) -> None:
        """The map of a sparse member is not read: such members are refused."""


class Headers(tarfile.TarFile):
    """The headers of a tar one after another, without keeping them; of several tars where they are concatenated."""

    tarinfo = _Header
    end: Exception | None = None  # what ended the archive: the marker, or damage
    is_marked = False  # whether an end marker has come, and no header since
    current: tarfile.TarInfo

    def __iter__(self) -> Iterator[tarfile.TarInfo]:  # type: ignore[override]
        while (header := self.next()) is not None:
            self.members.clear()  # type: ignore[attr-defined]  # tarfile keeps them all: memory without bound
            self.current = header
            yield header

    def past_markers(self) -> bytes:
        """The next block, zeros between members passed over; b"" at the end of the file."""
        block = self.fileobj.read(tarfile.BLOCKSIZE)
        if self.fileobj.tell() - len(block) != self.offset:  # within a member: behind its long name or PAX header
            return bytes(block)
        while block and not block.strip(b"\0"):
            if not self.is_marked:
                self.is_marked, self.pax_headers = True, {}  # what is said of all files ends with its tar
            self.offset += len(block)
            if not isinstance(self.fileobj, tarfile._Stream):  # type: ignore[attr-defined]
                self._leap_zeros()
            block = self.fileobj.read(tarfile.BLOCKSIZE)
        return bytes(block)

    def _leap_zeros(self) -> None:
        while piece := self.fileobj.read(_ZEROS):
            zeros = len(piece) - len(piece.lstrip(b"\0"))
            if zeros < len(piece):
                self.offset += zeros // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
                self.fileobj.seek(self.offset)
                return
            self.offset += len(piece)


def is_tar(head: bytes) -> bool:
    """Whether ``head`` begins with a valid tar header (its checksum says so), or with the end marker of an empty tar.

    Old tars (v7) have no magic: only the checksum tells.
    """
    if len(head) < tarfile.BLOCKSIZE:
        return False
    try:
        tarfile.TarInfo.frombuf(head[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
        return True
    except tarfile.HeaderError:
        return False
    return True


def sample_version(mtime: float, data_head: bytes, data_tail: bytes) -> str:
    """Version of a member: its time, and a hash of its first and last 1024 bytes.

    Times alone do not tell versions apart: reproducible tars set all of them to 0. Both samples lie next to headers
    that are read anyway.
    """
    return f"{_whole(mtime)}-{blake3(data_head + data_tail).hexdigest(length=8)}"


def _whole(mtime: float) -> int:
    """The time in whole seconds, 0 for one that is no time: a PAX header can say nan."""
    return int(mtime) if math.isfinite(mtime) else 0


def entries(file: Any, uri: str, size: int | None, *, stream: bool = False) -> Iterator[tuple[Entry, Headers]]:
    """The files of a tar in its order, with offsets into ``file`` (of ``size`` bytes, where known).

    ``file`` needs read(n), and seek and tell unless ``stream``. With ``stream``, offsets and versions are not known
    before the data is read: the consumer does that, from the Headers, before it asks for the next entry.
    Raises ArchiveError at the point where the archive ends too early or is damaged; StoreError where the store fails.
    """
    count = 0
    try:
        with Headers.open(fileobj=file, mode="r|" if stream else "r:", bufsize=64 * 1024) as tar:
            for header in tar:
                if header.isdir():
                    continue
                is_plain = header.isreg() and not _is_sparse(header)  # a sparse one says its size as it was unpacked
                if size is not None and not stream and is_plain and header.offset_data + header.size > size:
                    raise _Cut(f"ends inside the member {decode_name(header.name)}")
                yield _entry(header, file, uri, count, stream), tar
                count += 1
            _check_end(tar)
    except (StoreError, ArchiveError):
        raise
    except _Cut as error:
        raise cut_off(count, str(error)) from error
    except Exception as error:  # tarfile lets ValueError, RecursionError, EOFError and others through on hostile data
        why = " ".join(str(error).split()) or type(error).__name__
        if count:
            raise cut_off(count, f"is damaged ({why})") from error
        message = f"not readable as tar: {why}. Fetch or pack the archive again"
        raise ArchiveError(Reason.ARCHIVE_UNREADABLE, message) from error


class _Cut(Exception):
    pass


def cut_off(count: int, why: str) -> ArchiveError:
    """The error of a tar that is good for ``count`` files and no further."""
    message = f"the tar {why}; the {count:,} files before are processed. Fetch or pack the archive again"
    return ArchiveError(Reason.ARCHIVE_TRUNCATED, message)


def _check_end(tar: Headers) -> None:
    if isinstance(tar.end, tarfile.EOFHeaderError):  # type: ignore[attr-defined]
        return
    if tar.is_marked:
        raise _Cut(f"goes on behind its end, from byte {tar.offset:,} on, with data that are no tar")
    if tar.end is None or isinstance(tar.end, tarfile.EmptyHeaderError):  # type: ignore[attr-defined]
        raise _Cut("ends without its end-of-archive marker: members may be missing")
    if isinstance(tar.end, tarfile.TruncatedHeaderError):  # type: ignore[attr-defined]
        raise _Cut("ends inside a header")
    raise _Cut(f"is damaged at byte {tar.offset:,} ({tar.end})")


def _entry(header: tarfile.TarInfo, file: Any, uri: str, ordinal: int, stream: bool) -> Entry:
    name = decode_name(header.name)
    member = Member(
        name, header.size, uri, str(_whole(header.mtime)), header.offset_data, ordinal=ordinal,
        estimated_s=estimate_s(name, header.size),
    )  # fmt: skip
    if header.type in _KINDS or not header.isreg():
        what = _KINDS.get(header.type, f"an entry of type {header.type!r}")
        return Entry(member).refuse(Reason.NOT_A_FILE, f"{what}, not a file; pack the file it stands for")
    if _is_sparse(header):
        return Entry(member).refuse(Reason.MEMBER_UNREADABLE, "stored as a sparse file; pack without --sparse")
    if stream:
        return Entry(member)
    return Entry(*_sampled(member, header, file))


def _is_sparse(header: tarfile.TarInfo) -> bool:
    return header.sparse is not None or any(key.startswith("GNU.sparse") for key in header.pax_headers)


def _sampled(member: Member, header: tarfile.TarInfo, file: Any) -> tuple[Member, str, str, bytes | None]:
    """The member with its version, and its content where it may be a sidecar."""
    file.seek(header.offset_data)
    data = file.read(header.size) if is_wanted(member.name, header.size) else None
    head = data[:SAMPLE] if data is not None else file.read(min(SAMPLE, header.size))
    file.seek(header.offset_data + max(0, header.size - SAMPLE))
    tail = file.read(min(SAMPLE, header.size))
    return replace(member, version=sample_version(header.mtime, head, tail)), "", "", data
