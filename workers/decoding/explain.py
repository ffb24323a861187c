"""Why bytes are not a recording: a reason and a sentence for whoever has to find out what lies in the archive."""

from __future__ import annotations

import struct
from pathlib import PurePosixPath

from schemas.errors import MemberError
from schemas.reasons import Reason
from workers.decoding.limits import check_header

HEADERLESS_SUFFIXES = frozenset({".raw", ".pcm", ".sln", ".slin", ".ul", ".al", ".ulaw", ".alaw", ".vox", ".s16"})

_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the recording itself; fetch it with git lfs pull"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "gzip-compressed data"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"SQLite format 3", "an SQLite database"),
    (b"\x7fELF", "a program"),
)


def is_headerless(name: str) -> bool:
    """Whether the name says raw samples, whose rate and depth nobody can know from the bytes."""
    return PurePosixPath(name).suffix.lower() in HEADERLESS_SUFFIXES


def explain(name: str, head: bytes, size: int, messages: dict[str, str]) -> MemberError:
    """The reject for ``size`` bytes beginning with ``head`` that no library reads; ``messages``: library -> its words.

    >>> explain("a.wav", b"<!DOCTYPE html><html>", 21, {}).message
    'not a recording: a web page'
    """
    if is_headerless(name):
        return MemberError(
            Reason.HEADERLESS_AUDIO, "raw samples without a header: rate and depth are unknown; store it as WAV or FLAC"
        )
    try:
        _check_riff(head, size)
    except MemberError as error:
        return error
    known = _recognise(head)
    if known:
        return MemberError(Reason.UNDECODABLE, f"not a recording: {known}")
    if not head.strip(b"\0"):
        return MemberError(Reason.UNDECODABLE, "not a recording: nothing but zero bytes, a failed copy or download?")
    said = "; ".join(f"{library}: {text.strip().rstrip('.')}" for library, text in messages.items())
    return MemberError(Reason.UNDECODABLE, f"cannot be decoded ({said})")


def _recognise(head: bytes) -> str | None:
    for signature, what in _SIGNATURES:
        if head.startswith(signature):
            return what
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "a web page"
    if start.startswith(b"<"):
        return "XML, perhaps a storage service's error message"
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        text = head[: error.start].decode() if error.start >= len(head) - 3 else ""
    if text and all(character.isprintable() or character in "\t\r\n" for character in text):
        return "text"  # never a word of it: whoever made the archive may have named a file that is not theirs to read
    return None


def _check_riff(head: bytes, size: int) -> None:
    """libsndfile and FFmpeg only say 'malformed' where a WAV header is absurd; this says what is."""
    at = head.find(b"fmt ", 12, 512)
    if head[:4] in (b"RIFF", b"RF64", b"RIFX") and head[8:12] == b"WAVE" and 0 < at <= len(head) - 16:
        order = ">" if head[:4] == b"RIFX" else "<"
        channels, rate = struct.unpack_from(f"{order}HI", head, at + 10)
        check_header(rate, channels, None, size)
