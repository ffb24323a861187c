"""Corpora unpack as downloaded: references are found where each of them keeps its own."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from source_archives import COMPRESSORS, Files, clips, listed, one, sides, streamed, tar_bytes, write, zip_bytes

from schemas.config import Sharding
from schemas.reasons import Reason
from workers.sources import references
from workers.sources.shards import cut
from workers.sources.tables import Row, Side, stem_key

Sides = dict[str, tuple[str | None, str | None, str | None]]
LJ_FIRST = (
    "Printing, in the only sense with which we are at present concerned, differs from most if not from all the arts "
    "and crafts represented in the Exhibition"
)
LJ_SECOND = "in being comparatively modern."
CV = "client_id\tpath\tsentence\tup_votes\tage\tlocale"


def jsonl(*records: dict) -> bytes:  # type: ignore[type-arg]
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


# layout -> (files beside the two recordings, names of the recordings, what is known of them, names refused)
CORPORA: dict[str, tuple[Files, list[str], Sides, list[str]]] = {
    "same stem": (
        [("a.txt", "﻿Erste\n Zeile".encode()), ("b.lab", "ça va".encode("cp1252")), ("c.txt", b"no recording")],
        ["a.wav", "b.wav"], {"a.wav": ("Erste Zeile", None, None), "b.wav": ("ça va", None, None)}, ["c.txt"],
    ),
    "webdataset": (
        [("s/1.json", json.dumps({"text": "one", "id": "x", "language": "en", "speaker": 7}).encode()),
         ("s/1.cls", b"1"), ("s/2.txt", b"two")],
        ["s/1.wav", "s/2.wav"], {"s/1.wav": ("one", "en", "7"), "s/2.wav": ("two", None, None)}, [],
    ),
    "webdataset, other fields": (
        [("1.transcript", b"one"), ("1.lang", b"en"), ("2.json", b'{"text": "two"}'), ("3.text", b"of none")],
        ["1.wav", "2.audio.wav"], {"1.wav": ("one", "en", None), "2.audio.wav": ("two", None, None)}, ["3.text"],
    ),
    "librispeech": (
        [("L/84/121/84-121.trans.txt", b"84-121-0000 GO ON\n84-121-0001 DO YOU KNOW\n"), ("L/README.TXT", b"about"),
         ("L/SPEAKERS.TXT", b"; comment\n84 | F | dev-clean | 8.02 | Christie Nowak\n")],
        ["L/84/121/84-121-0000.flac", "L/84/121/84-121-0001.flac"],
        {"L/84/121/84-121-0000.flac": ("GO ON", None, "84"), "L/84/121/84-121-0001.flac": ("DO YOU KNOW", None, "84")},
        ["L/README.TXT"],
    ),
    "lj speech": (
        [("LJ/metadata.csv", b'LJ001-0001|In 1465|In fourteen "sixty"-five\nLJ001-0002|he said, "no"|\n')],
        ["LJ/wavs/LJ001-0001.wav", "LJ/wavs/LJ001-0002.wav"],
        {"LJ/wavs/LJ001-0001.wav": ('In fourteen "sixty"-five', None, None),
         "LJ/wavs/LJ001-0002.wav": ('he said, "no"', None, None)}, [],
    ),
    "lj speech, its own first lines": (
        [("LJ/metadata.csv", f"LJ001-0001|{LJ_FIRST}|{LJ_FIRST}\nLJ001-0002|{LJ_SECOND}|{LJ_SECOND}\n".encode())],
        ["LJ/wavs/LJ001-0001.wav", "LJ/wavs/LJ001-0002.wav"],
        {"LJ/wavs/LJ001-0001.wav": (LJ_FIRST, None, None), "LJ/wavs/LJ001-0002.wav": (LJ_SECOND, None, None)}, [],
    ),
    "vctk": (
        [("V/txt/p225/p225_001.txt", b"Please call Stella."), ("V/speaker-info.txt", b"ID AGE\n225 23\n")],
        ["V/wav48_silence_trimmed/p225/p225_001_mic1.flac", "V/wav48_silence_trimmed/p225/p225_001_mic2.flac"],
        {f"V/wav48_silence_trimmed/p225/p225_001_mic{i}.flac": ("Please call Stella.", None, "p225") for i in (1, 2)},
        ["V/speaker-info.txt"],
    ),
    "common voice": (
        [("cv/de/validated.tsv", f'{CV}\nc1\tx_1.mp3\t"Ja", sagte er\t2\t\tde\n'.encode()),
         ("cv/de/invalidated.tsv", f"{CV}\nc2\tx_2.mp3\tfalsch\t0\t\tde\n".encode())],
        ["cv/de/clips/x_1.mp3", "cv/de/clips/x_2.mp3"],
        {"cv/de/clips/x_1.mp3": ('"Ja", sagte er', "de", "c1"), "cv/de/clips/x_2.mp3": (None, "de", "c2")}, [],
    ),
    "common voice with durations": (
        [("cv/de/clip_durations.tsv", b"clip\tduration[ms]\nx_1.mp3\t4860\nx_2.mp3\t3000\n"),
         ("cv/de/invalidated.tsv", f"{CV}\nc2\tx_2.mp3\tfalsch\t0\t\tde\n".encode()),
         ("cv/de/validated.tsv", f"{CV}\nc1\tx_1.mp3\tJa\t2\t\tde\n".encode())],
        ["cv/de/clips/x_1.mp3", "cv/de/clips/x_2.mp3"],
        {"cv/de/clips/x_1.mp3": ("Ja", "de", "c1"), "cv/de/clips/x_2.mp3": (None, "de", "c2")},
        ["cv/de/clip_durations.tsv"],
    ),
    "columns that are no text": (
        [("d.tsv", b"file\tduration_ms\na.wav\t123\n"), ("train.tsv", b"a.wav\t1.5\nb.wav\t2.5\n"),
         ("who.tsv", b"a.wav\tann\nb.wav\tbob\n"), ("dev.tsv", b"a.wav\tHello there\nb.wav\t7\n")],
        ["a.wav", "b.wav"], {"a.wav": ("Hello there", None, None), "b.wav": ("7", None, None)},
        ["d.tsv", "train.tsv", "who.tsv"],
    ),
    "a blank first line, and columns named in quotes": (
        [("metadata.csv", b'\r\n"file_name","notes, raw","text"\r\n"a.wav","x, y","hello"\r\nb.wav,z,bye\r\n')],
        ["a.wav", "b.wav"], {"a.wav": ("hello", None, None), "b.wav": ("bye", None, None)}, [],
    ),
    "lines of old Macintoshes": (
        [("metadata.csv", b"file_name;text\ra.wav;hello, you\rb.wav;bye\r")],
        ["a.wav", "b.wav"], {"a.wav": ("hello, you", None, None), "b.wav": ("bye", None, None)}, [],
    ),
    "fleurs": (
        [("f/test.tsv", b"1\t10.wav\tRoh, eins\troh eins\tr o h\t9\tMALE\n2\t11.wav\tZwei\tzwei\tz\t9\tMALE\n")],
        ["f/audio/test/10.wav", "f/audio/test/11.wav"],
        {"f/audio/test/10.wav": ("Roh, eins", None, None), "f/audio/test/11.wav": ("Zwei", None, None)}, [],
    ),
    "hugging face csv": (
        [("metadata.csv", b'file_name,transcription,speaker_id\ndata/a.wav,"one, two",s1\ndata/b.wav,three,s2\n')],
        ["data/a.wav", "data/b.wav"], {"data/a.wav": ("one, two", None, "s1"), "data/b.wav": ("three", None, "s2")}, [],
    ),
    "hugging face jsonl": (
        [("data/metadata.jsonl",
          jsonl({"file_name": "a.wav", "sentence": "eins"}, {"file_name": "b.wav", "text": " "}))],
        ["data/a.wav", "data/b.wav"], {"data/a.wav": ("eins", None, None), "data/b.wav": (None, None, None)}, [],
    ),
    "nemo": (
        [("m.json", jsonl({"audio_filepath": "/home/x/c/wavs/a.wav", "duration": 1.5, "text": "a", "lang": "en"},
                          {"audio_filepath": "wavs/b.wav", "duration": 2, "text": "b", "offset": 0}))],
        ["c/wavs/a.wav", "c/wavs/b.wav"], {"c/wavs/a.wav": ("a", "en", None), "c/wavs/b.wav": ("b", None, None)}, [],
    ),
    "kaldi": (
        [("data/text", b"s1-u1 hello there\ns1-u2 bye\n"), ("data/utt2spk", b"s1-u1 s1\ns1-u2 s1\n"),
         ("data/utt2dur", b"s1-u1 1.5\n")],
        ["data/wav/s1-u1.wav", "data/wav/s1-u2.wav"],
        {"data/wav/s1-u1.wav": ("hello there", None, "s1"), "data/wav/s1-u2.wav": ("bye", None, "s1")},
        ["data/utt2dur"],
    ),
    "kaldi, files by id": (
        [("data/text", b"s1-u1 hello there\ns1-u2 bye\n"), ("data/utt2spk", b"s1-u1 s1\ns1-u2 s1\n"),
         ("data/wav.scp", b"s1-u1 /home/me/wav/x1.wav\ns1-u2 sox wav/x2.wav -t wav - |\n")],
        ["wav/x1.wav", "data/wav/x2.wav"],
        {"wav/x1.wav": ("hello there", None, "s1"), "data/wav/x2.wav": ("bye", None, "s1")}, [],
    ),
    "same names in many folders": (
        [("metadata.csv", b"file_name,text\ns1/001.wav,one\ns2/001.wav,two\n")],
        ["s1/001.wav", "s2/001.wav"], {"s1/001.wav": ("one", None, None), "s2/001.wav": ("two", None, None)}, [],
    ),
    "texts of digits": (
        [("a.txt", b"3 5 7 1"), ("b.lab", b"1 2 3")],
        ["a.wav", "b.wav"], {"a.wav": ("3 5 7 1", None, None), "b.wav": ("1 2 3", None, None)}, [],
    ),
    "numbers of samples": (
        [("a.txt", b"0 46797 She had your dark suit.\n"), ("b.lab", b"0 2500000 sil\n2500000 3600000 b ih\n")],
        ["a.wav", "b.wav"], {"a.wav": ("She had your dark suit.", None, None), "b.wav": (None, None, None)}, [],
    ),
    "letters and accents apart": (
        [("metadata.csv", "file_name,text\né/é.wav,hello\n".encode()), ("e\u0301/ü.txt", b"bye")],
        ["e\u0301/e\u0301.wav", "é/u\u0308.wav"],
        {"e\u0301/e\u0301.wav": ("hello", None, None), "é/u\u0308.wav": ("bye", None, None)}, [],
    ),
    "a table of other recordings": (
        [("metadata.csv", b"file_name,text\ns3/001.wav,one\ns4/001.wav,two\n")],
        ["s1/001.wav", "s2/002.wav"], {"s1/001.wav": (None, None, None), "s2/002.wav": (None, None, None)}, [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("corpus", CORPORA)
@pytest.mark.parametrize("pack", ["tar", "zip", "folder", "stream", "stream, tables last"])
def test_references_are_found(corpus: str, pack: str, tmp_path: Path, shared_data: Path) -> None:
    beside, names, expected, refused = CORPORA[corpus]
    audio = list(zip(names, clips(shared_data, 2), strict=True))
    files = [*audio, *beside] if pack.endswith("last") else [*beside, *audio]
    if pack.startswith("stream"):
        (tmp_path / "c.tar.gz").write_bytes(COMPRESSORS[".tar.gz"](tar_bytes(files)))
        shards, _ = streamed(tmp_path / "c.tar.gz")
        members = [member for shard in shards for member, _ in shard.payloads]
        rejects = [reject for shard in shards for reject in shard.shard.rejects]
    else:
        if pack == "folder":
            write(tmp_path / "c", files)
        else:
            (tmp_path / f"c.{pack}").write_bytes((tar_bytes if pack == "tar" else zip_bytes)(files))
        listing = listed(tmp_path / ("c" if pack == "folder" else f"c.{pack}"))
        members, rejects = list(listing.members), list(listing.rejects)
    if corpus == "a table of other recordings":
        assert sides(members) == expected
        return
    assert sides(members) == expected
    assert [(reject.member, reject.reason) for reject in rejects] == [(name, Reason.NOT_AUDIO) for name in refused]


def test_base_names_that_thousands_of_folders_share_are_found_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    count, looked = 3_000, []
    fit = references._fit
    monkeypatch.setattr(references, "_fit", lambda *args: looked.append(args) or fit(*args))
    table = references.Table()
    table.add("", [Row(f"id{at}/vid/1.wav", Side(f"path {at}")) for at in range(count)])
    table.add("x", [Row(f"/home/me/x/{at}/2.wav", Side(f"longer {at}")) for at in range(count)])
    for at in range(count):
        table.add(f"s/{at}", [Row("3.wav", Side(f"folder {at}"))])
        table.add("", [Row("4.wav", Side(f"archive {at}"), f"{at}.tar")])
    for at in range(count):
        for name, text in (
            (f"c/id{at}/vid/1.flac", f"path {at}"), (f"x/{at}/2.wav", f"longer {at}"),
            (f"s/{at}/wav/3.wav", f"folder {at}"), ("4.wav", f"archive {at}"),
        ):  # fmt: skip
            (row,) = table.find(name, stem_key(name), f"{at}.tar", crowded=not name.startswith("4"))
            assert row.side.text == text
    assert table.find("1.wav", "1", "a.tar", crowded=True) == []
    assert len(looked) < 10 * count


def test_manifests_inside_cut_recordings_up(tmp_path: Path, shared_data: Path) -> None:
    rows = [{"audio_filepath": "a.wav", "offset": o, "duration": 0.2, "text": t} for o, t in ((0, "x"), (0.2, "y"))]
    (clip,) = clips(shared_data, 1)
    (tmp_path / "c.tar").write_bytes(tar_bytes([("a.wav", clip), ("manifest.json", jsonl(*rows))]))
    assert [(m.name, m.clip_start_s, m.clip_duration_s, m.text) for m in listed(tmp_path / "c.tar").members] == [
        ("a.wav", 0.0, 0.2, "x"), ("a.wav@0.2", 0.2, 0.2, "y"),
    ]  # fmt: skip


def test_a_piece_that_starts_its_recording_is_cut_and_is_itself_alone(tmp_path: Path, shared_data: Path) -> None:
    (clip,) = clips(shared_data, 1)
    pieces = [
        {"audio_filepath": "a.wav", "offset": 0.0, "duration": 0.1, "text": "x"},
        {"audio_filepath": "b.wav", "offset": 0.0, "duration": 0.1, "text": "y", "speaker": "s", "lang": "de"},
        {"audio_filepath": "b.wav", "offset": 0.2, "duration": 0.1, "text": "z"},
    ]
    write(tmp_path, [("c/a.wav", clip), ("c/b.wav", clip), ("c/manifest.jsonl", jsonl(*pieces))])
    for source in (tmp_path / "c", tmp_path / "c" / "manifest.jsonl"):
        assert [(m.name, m.clip_start_s, m.clip_duration_s, *sides([m])[m.name]) for m in listed(source).members] == [
            ("a.wav", 0.0, 0.1, "x", None, None),
            ("b.wav", 0.0, 0.1, "y", "de", "s"),
            ("b.wav@0.2", 0.2, 0.1, "z", None, None),
        ]


def test_ids_of_a_sidecar_s_segments_are_no_names_of_other_recordings(tmp_path: Path, shared_data: Path) -> None:
    (clip,) = clips(shared_data, 1)
    segments = [{"id": at, "start": at, "text": f"segment {at}"} for at in range(3)]
    write(tmp_path / "c", [
        *((f"{at}.wav", clip) for at in range(3)), *((f"{at}.json", json.dumps(segments).encode()) for at in (0, 1)),
        ("2.json", b'{"id": 1, "text": "its own"}'),
    ])  # fmt: skip
    listing = listed(tmp_path / "c")
    assert {m.name: m.text for m in listing.members} == {"0.wav": None, "1.wav": None, "2.wav": "its own"}
    assert [reject.member for reject in listing.rejects] == ["0.json", "1.json"]


@pytest.mark.parametrize("recordings", [b"", b"call-1 wav/x.wav\n"])
def test_segments_cut_recordings_up(recordings: bytes, tmp_path: Path, shared_data: Path) -> None:
    (clip,) = clips(shared_data, 1)
    name = "data/wav/x.wav" if recordings else "data/wav/call-1.wav"
    files = [
        ("data/segments", b"u1 call-1 0.0 0.2\nu2 call-1 0.2 0.45\nu3 call-1 0.4 -1\n"),
        ("data/text", b"u1 hello\nu2 bye\n"), ("data/utt2spk", b"u1 ann\nu2 bob\nu3 ann\n"), (name, clip),
        *([("data/wav.scp", recordings)] if recordings else []),
    ]  # fmt: skip
    (tmp_path / "c.tar").write_bytes(tar_bytes(files))
    listing = listed(tmp_path / "c.tar")
    assert [(m.name, m.clip_start_s, m.clip_duration_s, m.text, m.speaker) for m in listing.members] == [
        (name, 0.0, 0.2, "hello", "ann"), (f"{name}@0.2", 0.2, 0.25, "bye", "bob"),
        (f"{name}@0.4", 0.4, None, None, "ann"),
    ]  # fmt: skip
    assert not listing.rejects


# (offset, duration, speaker) of a manifest's lines: close together, at once, the very same
CUTS = [(0.05, 0.2, "a"), (0.0504, 0.2, "a"), (0.05, 0.3, "b"), (0.05, None, "b"), (1234.561, 2.0, "a"),
        (1234.564, 2.0, "a"), (0.0, 0.2, "a"), (0.05, 0.3, "c"), (1234.561, 2.0, "a")]  # fmt: skip


@pytest.mark.parametrize("pack", ["tar", "stream", "manifest"])
def test_pieces_are_told_apart_and_the_same_piece_is_a_duplicate(pack: str, tmp_path: Path, shared_data: Path) -> None:
    (clip,) = clips(shared_data, 1)
    rows = [{"audio_filepath": "a.wav", "offset": o, "duration": d, "speaker": s} for o, d, s in CUTS]
    sharding = Sharding(max_members=2)
    if pack == "manifest":
        source = write(tmp_path, [("a.wav", clip), ("m.jsonl", jsonl(*rows))]) / "m.jsonl"
    else:
        source = tmp_path / ("c.tar" if pack == "tar" else "c.tar.gz")
        data = tar_bytes([("manifest.json", jsonl(*rows)), ("a.wav", clip)])
        source.write_bytes(data if pack == "tar" else COMPRESSORS[".tar.gz"](data))
    if pack == "stream":
        shards = [shard.shard for shard in streamed(source, sharding)[0]]
    else:
        listing = listed(source)
        shards = list(cut(one(source), listing.members, listing.rejects, "f", sharding))
    members = [member for shard in shards for member in shard.members]
    assert {(m.name, m.clip_start_s, m.clip_duration_s, m.speaker) for m in members} == {
        ("a.wav", 0.0, 0.2, "a"), ("a.wav@0.05", 0.05, 0.2, "a"), ("a.wav@0.05+0.2", 0.0504, 0.2, "a"),
        ("a.wav@0.05+0.3", 0.05, 0.3, "b"), ("a.wav@0.05+rest", 0.05, None, "b"),
        ("a.wav@1234.561", 1234.561, 2.0, "a"), ("a.wav@1234.564", 1234.564, 2.0, "a"),
    }  # fmt: skip
    assert sum(shard.members_in for shard in shards) == len(CUTS)
    # A duplicate and its first have one identity, so they are done or undone in one shard.
    duplicates = {r.member: (r.reason, r.member_key, s) for s in shards for r in s.rejects}
    firsts = {m.name: (Reason.DUPLICATE_MEMBER, m.key(s.archive.uri), s) for s in shards for m in s.members}
    assert duplicates == {name: firsts[name] for name in ("a.wav@0.05+0.3", "a.wav@1234.561")}


def test_references_beside_archives(tmp_path: Path, shared_data: Path) -> None:
    clip, other = clips(shared_data, 2)
    first, second = tar_bytes([("1.wav", clip)]), tar_bytes([("2.wav", other)])
    records = [
        {"audio": "a.tar", "member": "1.wav", "text": "one", "language": "en"},
        {"audio": "b.tar", "member": "1.wav"},
    ]
    write(tmp_path, [
        ("m/a.tar", first), ("m/metadata.jsonl", jsonl(*records)),
        ("own/b.tar.gz", COMPRESSORS[".tar.gz"](second)),
        ("own/b.transcripts.tsv", b"file\ttext\tspeaker\n2.wav\ttwo\tx\n"),
        ("fleurs/audio/test.zip", zip_bytes([("test/1.wav", clip)])), ("fleurs/test.tsv", b"1\t1.wav\tRaw\traw\tr\n"),
        ("cv/clips/1.mp3", clip), ("cv/train.tsv", f"{CV}\nc\t1.mp3\tJa\t1\t\tde\n".encode()),
        ("single/x.wav", clip), ("single/x.txt", b"alone"),
        ("single/y.wav", clip), ("single/y.json", b'{"text": "why"}'),
        ("splits/train.tar", first), ("splits/train.tsv", b"file\ttext\n1.wav\tlearnt\n"),
        ("splits/test.tar", first), ("splits/test.tsv", b"file\ttext\n1.wav\tasked\n"),
        ("splits/metadata.jsonl", jsonl({"file": "1.wav", "text": "of both", "speaker": "z"})),
    ])  # fmt: skip
    for split, text in (("train", "learnt"), ("test", "asked")):
        assert sides(listed(tmp_path / "splits" / f"{split}.tar").members) == {"1.wav": (text, None, "z")}
    assert sides(listed(tmp_path / "m" / "a.tar").members) == {"1.wav": ("one", "en", None)}
    (shard,), late = streamed(tmp_path / "own" / "b.tar.gz")
    assert (sides(shard.shard.members), late) == ({"2.wav": ("two", None, "x")}, [])
    assert sides(listed(tmp_path / "fleurs" / "audio" / "test.zip").members) == {"test/1.wav": ("Raw", None, None)}
    assert sides(listed(tmp_path / "cv" / "clips").members) == {"1.mp3": ("Ja", "de", "c")}
    assert sides(listed(tmp_path / "single" / "x.wav").members) == {"x.wav": ("alone", None, None)}
    glob = listed(f"{tmp_path}/single/*.wav")
    assert sides(glob.members) == {"x.wav": ("alone", None, None), "y.wav": ("why", None, None)}
    assert not glob.rejects


def test_shared_corpora_carry_their_references(shared_data: Path) -> None:
    for name, known in (
        ("librispeech-test-other", 35),
        ("rhasspy", 11),
        ("common-voice", 12),
        ("fsdd/fsdd_test.tar", 250),
    ):
        members = listed(shared_data / name).members
        assert sum(member.text is not None for member in members) == known, name
    speakers = {m.speaker for m in listed(shared_data / "fsdd" / "fsdd_test.tar").members}
    assert speakers == {"george", "jackson", "lucas", "nicolas", "yweweler"}
    assert os.path.isfile(shared_data / "librispeech-test-other" / "SPEAKERS.TXT")
