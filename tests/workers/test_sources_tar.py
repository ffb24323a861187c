"""Tars, whole and broken: every member is accounted for, whatever is wrong with its neighbours."""

from __future__ import annotations

import gzip
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from source_archives import MAX_BYTES, clips, contents, listed, streamed, tar_bytes, write

from schemas.reasons import Reason


def test_a_hostile_tar_costs_its_hostile_members_alone(tmp_path: Path, shared_data: Path) -> None:
    good, other = clips(shared_data, 2)
    links = []
    for kind, name in ((tarfile.SYMTYPE, "link.wav"), (tarfile.CHRTYPE, "device.wav"), (tarfile.FIFOTYPE, "pipe.wav")):
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/passwd"
        links.append(info)
    files = [
        ("good.wav", good), ("/etc/evil.wav", good), ("a/../../evil.wav", good), ("empty.wav", b""),
        ("good.wav", other), ("README.md", b"# readme"), ("notes.txt", b"nothing spoken"), (".DS_Store", b"\0\1"),
        ("__MACOSX/._good.wav", b"\0"), ("call.pcm", good), ("nested.zip", b"PK"), ("huge.wav", bytes(MAX_BYTES + 1)),
        ("last.wav", other),
    ]  # fmt: skip
    path = tmp_path / "hostile.tar"
    path.write_bytes(tar_bytes(files, links))
    listing = listed(path)
    assert {reject.member: reject.reason for reject in listing.rejects} == {
        "/etc/evil.wav": Reason.UNSAFE_PATH, "a/../../evil.wav": Reason.UNSAFE_PATH, "empty.wav": Reason.EMPTY_FILE,
        "good.wav": Reason.DUPLICATE_MEMBER, "README.md": Reason.NOT_AUDIO, "notes.txt": Reason.NOT_AUDIO,
        ".DS_Store": Reason.NOT_AUDIO, "__MACOSX/._good.wav": Reason.NOT_AUDIO, "call.pcm": Reason.HEADERLESS_AUDIO,
        "nested.zip": Reason.NOT_AUDIO, "huge.wav": Reason.MEMBER_TOO_LARGE, "link.wav": Reason.NOT_A_FILE,
        "device.wav": Reason.NOT_A_FILE, "pipe.wav": Reason.NOT_A_FILE,
    }  # fmt: skip
    assert len(listing.members) + len(listing.rejects) == len(files) + len(links)
    assert contents(path) == {"good.wav": good, "last.wav": other}
    assert all(reject.message for reject in listing.rejects)


@pytest.mark.parametrize("form", ["gnu", "posix"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_sparse_member_of_a_tar_is_refused_alone(form: str, suffix: str, tmp_path: Path, shared_data: Path) -> None:
    clip, other, last = clips(shared_data, 3)
    write(tmp_path, [("a.wav", clip), ("holes.wav", other), ("z.wav", last)])
    os.truncate(tmp_path / "holes.wav", 5_000_000)
    path = tmp_path / f"c.tar{suffix}"
    options = ["-C", tmp_path, "-S", f"--format={form}", *(["-z"] if suffix else [])]
    subprocess.run(["tar", *options, "-cf", path, "a.wav", "holes.wav", "z.wav"], check=True)
    if suffix:
        (part,), _ = streamed(path)
        members, rejects, problems = part.shard.members, part.shard.rejects, ()
    else:
        listing = listed(path)
        members, rejects, problems = listing.members, listing.rejects, listing.problems
    assert [member.name for member in members] == ["a.wav", "z.wav"]
    assert [(r.member, r.reason) for r in rejects] == [("holes.wav", Reason.MEMBER_UNREADABLE)]
    assert not problems


def test_a_time_that_is_no_number_costs_nothing(tmp_path: Path, shared_data: Path) -> None:
    files = [(f"{i}.wav", clip) for i, clip in enumerate(clips(shared_data, 2))]
    infos = []
    for time in ("nan", "inf"):
        info = tarfile.TarInfo(f"{time}.md")
        info.pax_headers = {"mtime": time}
        infos.append(info)
    path = tmp_path / "c.tar"
    path.write_bytes(tar_bytes([], infos, format=tarfile.PAX_FORMAT)[:3072] + tar_bytes(files))
    assert contents(path) == dict(files)
    assert [r.member for r in listed(path).rejects] == ["nan.md", "inf.md"]
    (tmp_path / "c.tar.gz").write_bytes(gzip.compress(path.read_bytes()))
    (part,), _ = streamed(tmp_path / "c.tar.gz")
    assert [(member.name, data) for member, data in part.payloads] == files


@pytest.mark.parametrize("share", [0.97, 0.5])
def test_a_cut_tar_gives_what_came_before(share: float, tmp_path: Path, shared_data: Path) -> None:
    files = [(f"{i}.wav", clip) for i, clip in enumerate(clips(shared_data, 10))]
    whole = tar_bytes(files)
    path = tmp_path / "cut.tar"
    path.write_bytes(whole[: int(sum(512 + -(-len(clip) // 512) * 512 for _, clip in files) * share)])
    listing = listed(path)
    assert [problem.reason for problem in listing.problems] == [Reason.ARCHIVE_TRUNCATED]
    assert 0 < len(listing.members) < 10
    assert contents(path) == dict(files[: len(listing.members)])


@pytest.mark.parametrize("ending", [b"", b"\x99" * 1024])
def test_a_tar_that_does_not_end_as_a_tar_says_so(ending: bytes, tmp_path: Path, shared_data: Path) -> None:
    (clip,) = clips(shared_data, 1)
    body = tar_bytes([("a.wav", clip)])
    end = 512 + -(-len(clip) // 512) * 512
    path = tmp_path / "odd.tar"
    path.write_bytes(body[:end] + ending)
    listing = listed(path)
    assert [m.name for m in listing.members] == ["a.wav"]
    assert [problem.reason for problem in listing.problems] == [Reason.ARCHIVE_TRUNCATED]


@pytest.mark.parametrize("between", [b"", bytes(3_000_320)])
def test_a_tar_is_read_to_the_end_of_its_file(between: bytes, tmp_path: Path, shared_data: Path) -> None:
    files = [(f"{i}{'x' * 120 * i}.wav", clip) for i, clip in enumerate(clips(shared_data, 3))]
    whole = tar_bytes([]) + b"".join(tar_bytes([file]) + between for file in files)
    path = tmp_path / "joined.tar"
    path.write_bytes(whole)
    assert contents(path) == dict(files)
    assert not listed(path).problems
    path.write_bytes(whole + b"\x99" * 600)
    listing = listed(path)
    assert len(listing.members) == 3
    ((reason, message),) = [(problem.reason, problem.message) for problem in listing.problems]
    assert reason == Reason.ARCHIVE_TRUNCATED
    assert f"from byte {len(whole):,} on, with data that are no tar" in message


def test_tar_headers_that_lie_neither_hang_nor_fill_memory(tmp_path: Path, shared_data: Path) -> None:
    (clip,) = clips(shared_data, 1)
    for number, size in enumerate((-512, 2**40)):
        info = tarfile.TarInfo("liar.wav")
        info.size = size
        header = info.tobuf(tarfile.GNU_FORMAT)
        path = tmp_path / f"liar{number}.tar"
        path.write_bytes(tar_bytes([("a.wav", clip)])[: 512 + -(-len(clip) // 512) * 512] + header + bytes(2048))
        listing = listed(path)
        assert [m.name for m in listing.members] == ["a.wav"]
        assert [problem.reason for problem in listing.problems] == [Reason.ARCHIVE_TRUNCATED]
    long_name = tarfile.TarInfo("././@LongLink")
    long_name.type, long_name.size = tarfile.GNUTYPE_LONGNAME, 2**33
    (tmp_path / "bomb.tar").write_bytes(long_name.tobuf() + bytes(4096))
    (reject,) = listed(tmp_path / "bomb.tar").problems
    assert reject.reason == Reason.ARCHIVE_UNREADABLE
