"""Zips, whole and broken: every member is accounted for, whatever is wrong with its neighbours."""

from __future__ import annotations

import bz2
import io
import stat
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import pytest
import zstandard
from source_archives import clips, contents, listed, zip_bytes

from schemas.errors import MemberError
from schemas.reasons import Reason
from schemas.records import Member
from workers.sources.zip import inflate


def test_odd_headers_of_a_zip_cost_at_most_their_members(tmp_path: Path, shared_data: Path) -> None:
    sounds = clips(shared_data, 6)
    names = ["aé.wav", "extra.wav", "long.wav", "new.wav", "far.wav", "last.wav"]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, clip in zip(names, sounds, strict=True):
            info = zipfile.ZipInfo(name)
            kept = {"extra.wav": 4, "long.wav": 60_000}.get(name, 0)
            info.extra = struct.pack("<HH", 0x9999, kept) + bytes(kept) if kept else b""
            archive.writestr(info, clip)
    packed = bytearray(buffer.getvalue().replace("aé".encode(), b"a\xe9\xe9"))  # flagged as UTF-8
    at = packed.rindex(struct.pack("<HH", 0x9999, 4))
    packed[at + 2 : at + 4] = struct.pack("<H", 400)  # reaches beyond all extra fields
    packed[packed.rindex(b"new.wav") - 46 + 6] = 99  # made for a zip of the future
    at = packed.rindex(b"far.wav") - 46 + 42
    packed[at : at + 4] = b"\xff" * 4  # its place stands in an extra field that is not there
    path = tmp_path / "odd.zip"
    path.write_bytes(packed)
    expected = dict(zip(["aéé.wav", *names[1:]], sounds, strict=True))
    del expected["far.wav"]
    assert contents(path) == expected
    listing = listed(path)
    assert [(r.member, r.reason) for r in listing.rejects] == [("far.wav", Reason.MEMBER_UNREADABLE)]
    assert not listing.problems


def test_zips_of_windows_and_of_pipes(tmp_path: Path, shared_data: Path) -> None:
    (clip,) = clips(shared_data, 1)
    files = [("w\\", b""), ("w\\a.wav", clip), ("w\\a.txt", b"zero"), ("__MACOSX\\._a.wav", b"1")]
    (tmp_path / "w.zip").write_bytes(zip_bytes(files))
    listing = listed(tmp_path / "w.zip")
    assert [(member.name, member.text) for member in listing.members] == [("w/a.wav", "zero")]
    assert [(r.member, r.reason) for r in listing.rejects] == [("__MACOSX/._a.wav", Reason.NOT_AUDIO)]
    info = zipfile.ZipInfo("-")
    info.external_attr = (stat.S_IFIFO | 0o600) << 16  # as zip writes what it reads from a pipe
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        archive.writestr(info, clip)
    assert contents(tmp_path / "p.zip") == {"-": clip}


def test_zip_members_are_checked_one_by_one(tmp_path: Path, shared_data: Path) -> None:
    files = [(f"{i}.wav", clip) for i, clip in enumerate(clips(shared_data, 4))]
    packed = bytearray(zip_bytes(files, zipfile.ZIP_STORED))
    at = packed.index(files[1][1][100:200])
    packed[at] ^= 0xFF  # one byte of the second member
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        entry = archive.infolist()[2].header_offset
    packed[entry : entry + 4] = b"XXXX"  # the third member's header
    flags = packed.rindex(b"3.wav") - 46 + 8
    packed[flags] |= 1  # the fourth is marked as encrypted
    path = tmp_path / "damaged.zip"
    path.write_bytes(packed)
    listing = listed(path)
    assert [(r.member, r.reason) for r in listing.rejects] == [("3.wav", Reason.ENCRYPTED)]
    found = contents(path)
    assert found["0.wav"] == files[0][1]
    for name in ("1.wav", "2.wav"):
        assert isinstance(found[name], MemberError)
        assert found[name].reason == Reason.MEMBER_UNREADABLE


@pytest.mark.parametrize("method", ["deflate", "bzip2", "lzma", "zstd"])
def test_a_zip_member_that_inflates_to_more_than_it_says_is_not_inflated(method: str) -> None:
    bomb = bytes(50_000_000)
    raw = zlib.compressobj(wbits=-15)
    stored = {
        "deflate": lambda: raw.compress(bomb) + raw.flush(), "bzip2": lambda: bz2.compress(bomb),
        "lzma": lambda: zip_bytes([("a", bomb)], zipfile.ZIP_LZMA)[31:], "zstd": lambda: zstandard.compress(bomb),
    }[method]()  # fmt: skip
    member = Member(
        "a.wav", 1000, "a.zip", f"{zlib.crc32(bomb[:1000]):08x}", stored_size=len(stored), compression=method
    )
    tracemalloc.start()
    with pytest.raises(MemberError, match=r"member_unreadable.*more than the 1,000 bytes"):
        inflate(member, stored)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()
