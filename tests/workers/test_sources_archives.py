"""Listing and reading archives: every file is accounted for, whatever is wrong with its neighbours."""

from __future__ import annotations

import json
import os
import struct
import tarfile
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem
from source_archives import MAX_BYTES, clips, contents, listed, one, sides, tar_bytes, write, zip_bytes

from schemas.config import CorpusParameters, Sharding, Storage
from schemas.errors import MemberError, VoxmillError
from schemas.reasons import Reason
from schemas.records import Archive, Layout, Published
from workers.arrow import table_of
from workers.sources import entries, planning, read
from workers.sources.discover import check_apart, discover
from workers.sources.listing import Listing, list_archive
from workers.sources.manifest import LISTED
from workers.sources.read import read_contents, read_members
from workers.sources.shards import cut

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
    matched = discover([f"{tmp_path}/loose/**/*.wav", f"{tmp_path}/loose/a.wav", f"{tmp_path}/*.tar"], Storage())
    assert [os.path.relpath(a.uri, tmp_path) for a in matched.archives] == ["loose/**/*.wav", "b.tar", "misnamed.tar"]


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


@pytest.mark.parametrize(
    ("source", "destination"),
    [
        ("s3a://b", "s3://b/out"),
        ("s3://b/*", "s3a://b/out"),
        ("local:///d", "/d/out"),
        ("/d", "local:///d/out"),
        ("simplecache::s3://b", "s3://b/out"),
    ],
)
def test_a_destination_inside_a_source_is_refused_however_they_are_spelt(source: str, destination: str) -> None:
    with pytest.raises(VoxmillError, match="the destination lies in this source"):
        check_apart([source], destination, Storage())


@pytest.mark.parametrize("source", ["s3a://bb", "s3://b/other", "nowhere://b", "zip://*::s3://b/x.zip", "/b"])
def test_what_lies_apart_or_cannot_be_read_is_no_source_of_its_destination(source: str) -> None:
    check_apart([source], "s3://b/out", Storage())


def test_what_links_lead_to_is_seen_wherever_they_lie(tmp_path: Path, shared_data: Path) -> None:
    """As in the caches of the Hugging Face hub, DVC and git-annex: every file a link to one that may be rewritten."""
    (clip,) = clips(shared_data, 1)
    names = [f"{at}.wav" for at in range(LISTED)]
    lines = b"\n".join(json.dumps({"audio_filepath": name}).encode() for name in names)
    blobs = [("x.tar", tar_bytes([("a.wav", clip)])), ("x.tsv", b"file\ttext\na.wav\tread\n"), ("m.jsonl", lines)]
    write(tmp_path / "blobs", [*blobs, *((name, clip) for name in names)])
    (tmp_path / "hub").mkdir()
    for blob in (tmp_path / "blobs").iterdir():
        (tmp_path / "hub" / blob.name).symlink_to(blob)

    def seen() -> list[set[str]]:
        packed = {one.version for one in discover([f"{tmp_path}/hub/*.tar"], Storage()).archives}
        sides = {str(member.text) for member in listed(tmp_path / "hub" / "x.tar").members}
        loose = {member.version for member in listed(tmp_path / "hub" / "m.jsonl").members if member.name == "3.wav"}
        return [packed, sides, loose]

    first = seen()
    assert first[1] == {"read"}
    for name in ("x.tar", "x.tsv", "3.wav"):
        os.utime(tmp_path / "blobs" / name, (1, 1))
    packed, _, loose = seen()
    assert not packed & first[0]
    assert not loose & first[2]


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
