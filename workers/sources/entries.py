"""What an archive's listing gives, one entry per file, whatever the layout; and what is refused at sight."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, replace

from schemas.ids import stable_id
from schemas.reasons import Reason
from schemas.records import UNTOLD, Member, Reject
from workers.sources.kinds import Kind, kind_of

MB = 1_000_000  # bytes; limits are given in MB
MAX_SIDECAR = 512 * 1024 * 1024  # bytes; Common Voice's largest tables are about that long
_DRIVE = re.compile(r"^[A-Za-z]:[\\/]")


@dataclass(frozen=True)
class Entry:
    """A file as listed. ``reason`` set: refused, ``message`` says why. ``data``: content of what may be a sidecar."""

    member: Member
    reason: str = ""
    message: str = ""
    data: bytes | None = None

    def refuse(self, reason: Reason, message: str) -> Entry:
        return replace(self, reason=str(reason), message=message)


def is_wanted(name: str, size: int) -> bool:
    """Whether a listing should bring the content along: files that may hold references."""
    return kind_of(name) is Kind.SIDECAR and (size == UNTOLD or 0 < size <= MAX_SIDECAR)


def decode_name(name: str) -> str:
    """A member name that can be written anywhere, without a leading ``./``."""
    name = readable(name)
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    return name


def readable(name: str) -> str:
    """``name`` as it can be written anywhere: bytes that are not UTF-8 are read as Windows-1252, else Latin-1.

    Python hands over undecodable bytes as lone surrogates (PEP 383), which Parquet refuses.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        try:
            return decode_text(name.encode("utf-8", "surrogateescape"))
        except UnicodeEncodeError:  # half an emoji, out of JSON
            return clean(name)
    return name


def clean(text: str) -> str:
    """``text`` as it can be written anywhere: halves of surrogate pairs, which JSON allows, are marked as unreadable.

    >>> clean("x \\ud83d y"), clean("\\ud83d\\ude00") == "\\U0001f600"
    ('x \ufffd y', True)
    """
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def decode_text(data: bytes) -> str:
    """Text of a sidecar: UTF-8 (with or without a byte order mark), UTF-16 with one, else Windows-1252 or Latin-1."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1")


def is_unsafe(name: str) -> bool:
    """Absolute, or leading out of the archive, on any system.

    >>> is_unsafe("/etc/a.wav"), is_unsafe("a/../../b.wav"), is_unsafe("C:\\\\a.wav"), is_unsafe("a..b/c.wav")
    (True, True, True, False)
    """
    path = name.replace("\\", "/")
    return path.startswith("/") or ".." in path.split("/") or bool(_DRIVE.match(name))


class Screen:
    """Refuses members at sight, one archive long: duplicates, unsafe paths, other kinds of files, sizes.

    A name that came before is a duplicate whatever became of the first; its reject carries the first one's key and
    ordinal, so that both are dealt with in the same shard and known by the same identity afterwards.
    """

    def __init__(self, archive_uri: str, max_bytes: int, *, is_manifest: bool = False) -> None:
        """``is_manifest``: paths are the user's own, lead where they will, and every one should be a recording."""
        self._uri, self._max_bytes, self._is_manifest = archive_uri, max_bytes, is_manifest
        self._seen: dict[str, tuple[str, int]] = {}

    def __call__(self, entry: Entry) -> Entry | Reject:
        """The entry where it is a candidate recording or sidecar, else its reject."""
        member = entry.member
        if member.name in self._seen:
            key, ordinal = self._seen[member.name]
            message = "the same name came before in this archive; the first one is processed"
            return self.reject(replace(member, ordinal=ordinal), Reason.DUPLICATE_MEMBER, message, key)
        self._seen[member.name] = (member.key(self._uri), member.ordinal)
        reason, message = (entry.reason, entry.message) if entry.reason else self._judge(member)
        return self.reject(member, reason, message) if reason else entry

    def identify(self, member: Member) -> None:
        """Know ``member`` by its content, now that it has been read: duplicates have the identity of their first."""
        self._seen[member.name] = (member.key(self._uri), member.ordinal)

    def _judge(self, member: Member) -> tuple[str, str]:
        kind = kind_of(posixpath.basename(member.uri) if self._is_manifest else member.name)
        if not self._is_manifest and is_unsafe(member.name):
            return Reason.UNSAFE_PATH, "the path is absolute or leads out of the archive; rename the member"
        if kind is Kind.SIDECAR and not self._is_manifest:
            if member.size > MAX_SIDECAR:
                return Reason.NOT_AUDIO, f"a text file of {member.size:,} bytes, too long to look for references in"
            return "", ""
        if kind is Kind.ARCHIVE:
            return Reason.NOT_AUDIO, "an archive inside an archive is not opened; give it as a source of its own"
        if kind in (Kind.OTHER, Kind.SIDECAR):
            return Reason.NOT_AUDIO, f"{posixpath.basename(member.name)} is no recording, by its name"
        if kind is Kind.HEADERLESS:
            return Reason.HEADERLESS_AUDIO, "samples without a header: rate and depth are unknown; wrap it as wav"
        if member.size == 0:
            return Reason.EMPTY_FILE, "zero bytes"
        if member.size > self._max_bytes:
            limit = f"{member.size:,} bytes, the limit is {self._max_bytes:,}"
            return Reason.MEMBER_TOO_LARGE, f"{limit}; raise recipe.audio.max_member_mb or cut the recording"
        return "", ""

    def reject(self, member: Member, reason: str, message: str, key: str = "") -> Reject:
        """A reject at sight of ``member``."""
        return Reject(
            archive=self._uri,
            member=member.name,
            stage="list",
            reason=str(reason),
            message=message,
            member_key=key or member.key(self._uri),
            ordinal=member.ordinal,
        )


def archive_reject(uri: str, reason: str, message: str, version: str = "", stage: str = "list") -> Reject:
    """A reject of a whole source or archive; ``version`` makes it known again as long as the archive stays as it is."""
    key = stable_id("archive", uri, version, str(reason))
    return Reject(archive=uri, member="", stage=stage, reason=str(reason), message=message, member_key=key)
