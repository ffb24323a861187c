"""Listing and reading archives: every file is accounted for, whatever is wrong with its neighbours."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import os
import stat
import struct
import subprocess
import tarfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest
import zstandard
from fsspec.implementations.local import LocalFileSystem
from source_archives import MAX_BYTES, clips, contents, listed, one, sides, streamed, tar_bytes, write, zip_bytes

from schemas.config import CorpusParameters, Sharding, Storage
from schemas.errors import MemberError
from schemas.reasons import Reason
from schemas.records import Archive, Layout, Member, Published
from workers.arrow import table_of
from workers.sources import entries, planning, read
from workers.sources.discover import discover
from workers.sources.listing import Listing, list_archive
from workers.sources.read import read_contents, read_members
from workers.sources.shards import cut
from workers.sources.zip import inflate

NAMES = ["a.wav", "б/запись.wav", "録音/音声 1.wav", "x" * 150 + ".wav", "d/" * 60 + "deep.wav", "naïve, \"q\" 'r'.wav"]


@pytest.mark.parametrize("pack", ["gnu", "pax", "zip", "stored", "bzip2", "lzma", "folder"])
def test_every_layout_gives_back_the_very_bytes(pack: str, tmp_path: Path, shared_data: Path) -> None:
    files = list(zip(NAMES, clips(shared_data, len(NAMES)), strict=True))
    if pack == "folder":
        source = write(tmp_path / "corpus", files)
    elif pack in ("gnu", "pax"):
        source = tmp_path / "corpus.tar"
        source.write_bytes(tar_bytes(files, format=tarfile.GNU_FORMAT if pack == "gnu" else tarfile.PAX_FORMAT))
    else:
        methods = {"zip": 8, "stored": 0, "bzip2": 12, "lzma": 14}
        source = tmp_path / "corpus.zip"
        source.write_bytes(zip_bytes(files, methods[pack]))
    assert contents(source) == dict(files)
    assert contents(source, sharding=Sharding(max_members=2)) == dict(files)


def test_real_archives_are_read_whole(shared_data: Path) -> None:
    for path in ("fsdd/fsdd_test.tar", "wenet/shards_000000000.tar", "azure-customspeech/de-DE_training.zip"):
        listing = listed(shared_data / path)
        assert not listing.rejects
        assert not listing.problems
        assert all(member.text for member in listing.members)
        found = contents(shared_data / path)
        assert {name: len(data) for name, data in found.items()} == {m.name: m.size for m in listing.members}


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


def test_names_that_are_no_utf8_can_be_written(tmp_path: Path, shared_data: Path) -> None:
    (clip,) = clips(shared_data, 1)
    tar = tmp_path / "latin.tar"
    tar.write_bytes(tar_bytes([("café.wav", clip), ("café.txt", "crème".encode("latin-1"))], encoding="latin-1",
                              format=tarfile.GNU_FORMAT))  # fmt: skip
    (member,) = listed(tar).members
    assert (member.name, member.text) == ("café.wav", "crème")
    packed = bytearray(zip_bytes([("記.wav", clip)]))  # without the flag that says UTF-8, as macOS writes it
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = packed.index(header) + flags
        packed[at : at + 2] = struct.pack("<H", struct.unpack("<H", packed[at : at + 2])[0] & ~0x800)
    (tmp_path / "mac.zip").write_bytes(packed)
    assert contents(tmp_path / "mac.zip") == {"記.wav": clip}


def test_sidecars_beyond_all_measure_are_not_read(
    tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (clip,) = clips(shared_data, 1)
    long = b"file_name,text\na.wav," + b"x" * 900 + b"\n"
    monkeypatch.setattr(entries, "MAX_SIDECAR", 500)
    write(tmp_path, [("a.tar", tar_bytes([("a.wav", clip), ("b.txt", b""), ("c.csv", long)])), ("train.csv", long)])
    write(tmp_path / "loose", [("a.wav", clip), ("a.txt", long)])
    listing = listed(tmp_path / "a.tar")
    assert sides(listing.members) == {"a.wav": (None, None, None)}
    assert [(r.member, r.reason) for r in listing.rejects] == [(n, Reason.NOT_AUDIO) for n in ("b.txt", "c.csv")]
    assert sides(listed(f"{tmp_path}/loose/*.wav").members) == {"a.wav": (None, None, None)}


def test_text_that_parquet_refuses_is_cleaned(tmp_path: Path, shared_data: Path) -> None:
    (clip,) = clips(shared_data, 1)
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    files = [("a.wav", clip), ("a.json", b'{"text": "x \\ud83d y", "speaker": "\\ud83d\\ude00"}')]
    write(Path(folder), [("b\udce9.tar", tar_bytes(files)), ("c\udce9/d\udce8.wav", clip), ("e::\udce9.wav", clip)])
    lines = [{"audio_filepath": f"caf\udce9/{name}"} for name in ("c\udce9/d\udce8.wav", "e::\udce9.wav")]
    write(tmp_path, [("m.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())])
    found = {}
    for source in (f"{folder}/b\udce9.tar", f"{folder}/c\udce9", f"{folder}/e::\udce9.wav", f"{tmp_path}/m.jsonl"):
        listing, read = listed(source), contents(source)
        found |= {member.name: (member.text, member.speaker, read[member.name] == clip) for member in listing.members}
        one(source).uri.encode()
    assert found == {
        "a.wav": ("x \ufffd y", "\U0001f600", True), "dè.wav": (None, None, True), "e::é.wav": (None, None, True),
        "café/cé/dè.wav": (None, None, True), "café/e::é.wav": (None, None, True),
    }  # fmt: skip


def test_tables_of_text_that_parquet_refuses() -> None:
    rows = [{"archive": "a", "text": "x \ud800", "words": [{"text": "\udce9", "start_s": 0.0}]}, {"archive": "b"}]
    table = table_of("transcripts", rows)
    assert table["text"].to_pylist() == ["x \ufffd", None]
    assert table["words"].to_pylist()[0][0]["text"] == "\ufffd"


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


def test_archives_that_are_none(tmp_path: Path, shared_data: Path) -> None:
    (clip,) = clips(shared_data, 1)
    packed = zip_bytes([("a.wav", clip)])
    files = [
        ("cut.zip", packed[: len(packed) // 2]), ("zero.tar", b""), ("empty.tar", tar_bytes([])),
        ("empty.zip", zip_bytes([])), ("text.tar", b"hello " * 200), ("garbage.tar.gz", b"\x1f\x8b" + b"\xff" * 99),
        ("seven.zip", b"7z\xbc\xaf\x27\x1c" + bytes(99)),
    ]  # fmt: skip
    discovery = discover([str(write(tmp_path, files))], Storage())
    found = {reject.archive: reject.reason for reject in discovery.rejects}
    for archive in discovery.archives:
        listing = list_archive(archive, Storage(), MAX_BYTES)
        assert not listing.members
        found |= {reject.archive: reject.reason for reject in listing.problems}
    assert {os.path.basename(uri): reason for uri, reason in found.items()} == {
        "cut.zip": Reason.ARCHIVE_UNREADABLE, "zero.tar": Reason.ARCHIVE_EMPTY, "empty.tar": Reason.ARCHIVE_EMPTY,
        "empty.zip": Reason.ARCHIVE_EMPTY, "text.tar": Reason.ARCHIVE_UNREADABLE,
        "garbage.tar.gz": Reason.ARCHIVE_UNREADABLE, "seven.zip": Reason.ARCHIVE_UNREADABLE,
    }  # fmt: skip


def test_sources_of_every_kind_in_a_stable_order(tmp_path: Path, shared_data: Path) -> None:
    clip, other = clips(shared_data, 2)
    manifest = json.dumps({"audio_filepath": "loose/a.wav", "duration": 0.5, "text": "x"}).encode()
    write(tmp_path, [
        ("b.tar", tar_bytes([("a.wav", clip)])), ("misnamed.tar", zip_bytes([("z.wav", clip)])), ("loose/a.wav", clip),
        ("loose/sub/b.wav", other), ("lists/m.jsonl", manifest), ("brackets[1]/c.wav", clip), ("README.md", b"#"),
    ])  # fmt: skip
    sources = [str(tmp_path / name) for name in ("b.tar", "loose", "loose/sub", "loose/a.wav", "*.tar", "lists", "no*")]
    first, again = discover(sources, Storage()), discover(sources, Storage())
    assert first == again
    assert [(os.path.relpath(a.uri, tmp_path), a.layout) for a in first.archives] == [
        ("b.tar", Layout.TAR), ("loose", Layout.FOLDER), ("misnamed.tar", Layout.ZIP),
        ("lists/m.jsonl", Layout.MANIFEST),
    ]  # fmt: skip
    assert [(r.archive, r.reason) for r in first.rejects] == [(f"{tmp_path}/no*", Reason.SOURCE_MISSING)]
    assert list(contents(tmp_path / "brackets[1]")) == ["c.wav"]
    assert sorted(contents(f"{tmp_path}/loose/**/*.wav")) == ["a.wav", "sub/b.wav"]
    assert sorted(contents(f"{tmp_path}/loose/**")) == ["a.wav", "sub/b.wav"]
    whole = discover([str(tmp_path)], Storage())
    assert [os.path.relpath(a.uri, tmp_path) for a in whole.archives] == [".", "b.tar", "misnamed.tar"]


def test_local_folders_follow_links_to_files_and_to_nothing_else(tmp_path: Path, shared_data: Path) -> None:
    (clip,) = clips(shared_data, 1)
    write(tmp_path, [("store/blob", clip), ("corpus/a.wav", clip)])
    os.symlink(tmp_path / "store" / "blob", tmp_path / "corpus" / "linked.wav")
    os.symlink(tmp_path / "nowhere", tmp_path / "corpus" / "broken.wav")
    os.symlink(tmp_path / "store", tmp_path / "corpus" / "folder")
    os.mkfifo(tmp_path / "corpus" / "pipe.wav")
    assert contents(tmp_path / "corpus") == {"a.wav": clip, "linked.wav": clip}
    rejects = listed(tmp_path / "corpus").rejects
    assert {(r.member, r.reason) for r in rejects} == {
        (n, Reason.NOT_A_FILE) for n in ("broken.wav", "folder", "pipe.wav")
    }


def test_pipes_and_folders_with_an_archives_name_are_not_opened(tmp_path: Path, shared_data: Path) -> None:
    write(tmp_path, [("corpus/a.wav", clips(shared_data, 1)[0]), ("other/b.wav", b"")])
    os.mkfifo(tmp_path / "corpus" / "pipe.tar")
    os.symlink(tmp_path / "other", tmp_path / "corpus" / "folder.tar")
    os.symlink(tmp_path / "nowhere", tmp_path / "corpus" / "gone.tar")
    discovery = discover([str(tmp_path / "corpus"), str(tmp_path / "corpus" / "pipe.tar")], Storage())
    assert [archive.layout for archive in discovery.archives] == [Layout.FOLDER]
    assert {os.path.basename(reject.archive): reject.reason for reject in discovery.rejects} == {
        "folder.tar": Reason.NOT_A_FILE, "pipe.tar": Reason.NOT_A_FILE, "gone.tar": Reason.SOURCE_MISSING,
    }  # fmt: skip


def test_manifest_lines_are_members_or_rejects(tmp_path: Path, shared_data: Path) -> None:
    (clip,) = clips(shared_data, 1)
    lines = [
        {"audio_filepath": "wavs/a.wav", "duration": 0.6, "text": "zero", "lang": "en", "speaker": "george"},
        {"audio_filepath": "wavs/a.wav", "offset": 0.1, "duration": 0.2, "text": "ze"},
        {"audio_filepath": "wavs/a.wav", "offset": 0.3, "duration": 0.25},
        {"audio_filepath": "wavs/none.wav", "duration": 1.0}, {"text": "no path"},
        {"audio_filepath": "wavs/a.wav", "offset": -1}, {"audio_filepath": "../b.wav"},
        {"audio_filepath": "wavs/x.txt"},
    ]  # fmt: skip
    text = "\n".join([*map(json.dumps, lines), "{broken", ""])
    write(tmp_path, [("m/wavs/a.wav", clip), ("b.wav", clip), ("m/wavs/x.txt", b"x"), ("m/all.jsonl", text.encode())])
    listing = listed(tmp_path / "m" / "all.jsonl")
    assert [(m.name, m.clip_start_s, m.clip_duration_s, m.text, m.language, m.speaker) for m in listing.members] == [
        ("wavs/a.wav", None, None, "zero", "en", "george"), ("wavs/a.wav@0.1", 0.1, 0.2, "ze", None, None),
        ("wavs/a.wav@0.3", 0.3, 0.25, None, None, None), ("../b.wav", None, None, None, None, None),
    ]  # fmt: skip
    assert [(r.member, r.reason) for r in listing.rejects] == [
        ("wavs/none.wav", Reason.MEMBER_MISSING), ("line 5", Reason.MANIFEST_LINE), ("line 6", Reason.MANIFEST_LINE),
        ("wavs/x.txt", Reason.NOT_AUDIO), ("line 9", Reason.MANIFEST_LINE),
    ]  # fmt: skip
    assert set(contents(tmp_path / "m" / "all.jsonl").values()) == {clip}


@pytest.mark.parametrize("count", [1, 9])
def test_manifests_find_recordings_however_their_accents_are_written(
    count: int, tmp_path: Path, shared_data: Path
) -> None:
    (clip,) = clips(shared_data, 1)
    write(tmp_path / "m", [(f"e\u0301{at}.wav", clip) for at in range(count)])
    lines = [{"audio_filepath": f"é{at}.wav"} for at in range(count + 1)]
    write(tmp_path, [("m/m.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())])
    assert contents(tmp_path / "m" / "m.jsonl") == {f"é{at}.wav": clip for at in range(count)}
    assert [(r.member, r.reason) for r in listed(tmp_path / "m" / "m.jsonl").rejects] == [
        (f"é{count}.wav", Reason.MEMBER_MISSING)
    ]


BAD_PATHS = ("a\0.wav", "\ud83d.wav", "x" * 300 + ".wav", "foo://b/a.wav", "nosuchchain::foo://b/a.wav", "loop.wav")


@pytest.mark.parametrize("copies", [1, 9])
def test_a_path_that_is_none_costs_its_line_alone(copies: int, tmp_path: Path, shared_data: Path) -> None:
    (clip,) = clips(shared_data, 1)
    os.symlink("loop.wav", tmp_path / "loop.wav")
    lines = [{"audio_filepath": "a.wav", "text": "ok"}]
    lines += [{"audio_filepath": path, "offset": float(at)} for path in BAD_PATHS for at in range(copies)]
    write(tmp_path, [("a.wav", clip), ("m.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())])
    listing = listed(tmp_path / "m.jsonl")
    assert not listing.problems
    assert [(m.name, m.text) for m in listing.members] == [("a.wav", "ok")]
    assert [r.reason for r in listing.rejects] == [Reason.MANIFEST_LINE] * len(BAD_PATHS) * copies
    assert not any("endpoint" in r.message for r in listing.rejects)


def test_absurd_numbers_cost_their_line_alone(tmp_path: Path, shared_data: Path) -> None:
    (clip,) = clips(shared_data, 1)
    absurd = b'{"audio_filepath": "a.wav", "text": "one", "duration": 1' + b"0" * 400 + b"}\n"
    side = b'{"text": NaN, "speaker": "s", "duration": 1e999}'
    (tmp_path / "a.tar").write_bytes(
        tar_bytes([("a.wav", clip), ("m.json", absurd), ("b.wav", clip), ("b.json", side)])
    )
    assert sides(listed(tmp_path / "a.tar").members) == {"a.wav": ("one", None, None), "b.wav": (None, None, "s")}
    write(tmp_path / "m", [("a.wav", clip), ("m.jsonl", b'{"audio_filepath": "a.wav"}\n' + absurd)])
    listing = listed(tmp_path / "m" / "m.jsonl")
    assert [m.name for m in listing.members] == ["a.wav"]
    assert [(r.member, r.reason) for r in listing.rejects] == [("line 2", Reason.MANIFEST_LINE)]


def test_an_archive_that_cannot_be_planned_costs_itself_alone(
    tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (clip,) = clips(shared_data, 1)
    write(tmp_path, [("a.tar", tar_bytes([("a.wav", clip)])), ("b.tar", tar_bytes([("b.wav", clip)]))])

    def fails(archive: Archive, *rest: Any) -> Listing:
        if archive.uri.endswith("a.tar"):
            raise ZeroDivisionError("nobody thought of it")
        return list_archive(archive, *rest)

    monkeypatch.setattr(planning, "list_archive", fails)
    parameters = CorpusParameters(sources=[str(tmp_path)], destination=str(tmp_path / "out"))
    plan = planning.make_plan(discover(parameters.sources, Storage()), "f", parameters, Published())
    assert [member.name for shard in plan.shards for member in shard.members] == ["b.wav"]
    assert [(os.path.basename(r.archive), r.reason) for r in plan.rejects] == [("a.tar", Reason.ARCHIVE_UNREADABLE)]
    assert "nobody thought of it" in plan.rejects[0].message


@pytest.mark.parametrize("pack", ["tar", "zip", "folder"])
def test_the_pieces_of_a_recording_are_read_at_once(
    pack: str, tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "REQUEST", 1000)  # bytes; recordings are longer
    sounds = clips(shared_data, 2)
    lines = [{"audio_filepath": "long.wav", "offset": i / 10, "duration": 0.1} for i in range(3)]
    files = [("a.wav", sounds[0]), ("long.wav", sounds[1]), ("m.jsonl", "\n".join(map(json.dumps, lines)).encode())]
    source = tmp_path / f"c.{pack}"
    if pack == "folder":
        write(source, files)
    else:
        source.write_bytes({"tar": tar_bytes, "zip": zip_bytes}[pack](files))
    archive, listing = one(source), listed(source)
    requests = []
    asked = LocalFileSystem.cat_file
    monkeypatch.setattr(LocalFileSystem, "cat_file", lambda *at, **to: requests.append(to) or asked(*at, **to))
    found = list(read_contents(listing.members, archive.layout, Storage()))
    assert [(member.clip_start_s, data) for member, data in found] == [
        (None, sounds[0]), (0.0, sounds[1]), (0.1, sounds[1]), (0.2, sounds[1]),
    ]  # fmt: skip
    assert len(requests) == 2
    assert len({id(data) for _, data in found}) == 2


def test_an_archive_that_changes_after_listing_fails_its_members_not_the_run(tmp_path: Path, shared_data: Path) -> None:
    files = [(f"{i}.wav", clip) for i, clip in enumerate(clips(shared_data, 3))]
    path = tmp_path / "a.tar"
    path.write_bytes(tar_bytes(files))
    archive = one(path)
    listing = list_archive(archive, Storage(), MAX_BYTES)
    (shard,) = cut(archive, listing.members, (), "f", Sharding())
    path.write_bytes(tar_bytes(files)[:6000])
    results = {member.name: data for member, data in read_members(shard, Storage())}
    assert results["0.wav"] == files[0][1]
    assert isinstance(results["2.wav"], MemberError)
