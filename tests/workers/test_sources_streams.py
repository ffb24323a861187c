"""One-way streams: the same members as the plain tar holds, read once, in order."""

from __future__ import annotations

import gzip
import json
import random
import struct
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
import zstandard
from source_archives import COMPRESSORS, LIMITS, MAX_BYTES, Files, clips, listed, one, sides, streamed, tar_bytes

from schemas.config import Sharding, Storage
from schemas.reasons import Reason
from schemas.records import Archive, Layout, Published
from workers.sources.listing import with_side
from workers.sources.published import is_unchanged
from workers.sources.store import StoreError
from workers.sources.stream import LateReferences, StreamShard, read_stream
from workers.sources.tables import Side

SMALL = Sharding(max_members=4)


@pytest.mark.parametrize("suffix", COMPRESSORS)
@pytest.mark.parametrize("named", [True, False])
def test_streams_give_what_tars_give(suffix: str, named: bool, tmp_path: Path, shared_data: Path) -> None:
    files = [(f"{i}.wav", clip) for i, clip in enumerate(clips(shared_data, 10))]
    plain = tar_bytes([*files, ("README.md", b"#"), ("0.wav", b"again")])
    (tmp_path / "plain.tar").write_bytes(plain)
    path = tmp_path / (f"a{suffix}" if named else "a.tar")  # by content, whatever the name says
    path.write_bytes(COMPRESSORS[suffix](plain))
    assert one(path).layout is Layout.STREAM
    shards, late = streamed(path, SMALL)
    assert (shards, late) == streamed(path, SMALL)
    assert [(m.name, data) for shard in shards for m, data in shard.payloads] == files
    assert [tuple(m for m, _ in shard.payloads) for shard in shards] == [shard.shard.members for shard in shards]
    assert max(shard.shard.members_in for shard in shards) <= 4
    listing = listed(tmp_path / "plain.tar")
    streamed_members = [m for shard in shards for m in shard.shard.members]
    assert [(m.name, m.size, m.version) for m in streamed_members] == [
        (m.name, m.size, m.version) for m in listing.members
    ]
    rejects = {r.member: r.reason for shard in shards for r in shard.shard.rejects}
    assert rejects == {"README.md": Reason.NOT_AUDIO, "0.wav": Reason.DUPLICATE_MEMBER}
    assert not late


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_a_cut_stream_gives_what_came_before(suffix: str, tmp_path: Path, shared_data: Path) -> None:
    noise = random.Random(0)
    files = [(f"{i}.wav", noise.randbytes(150_000)) for i in range(10)]  # blocks of bzip2 and zstd are long
    data = COMPRESSORS[suffix](tar_bytes(files))
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(data[: int(len(data) * 0.7)])
    shards, _ = streamed(path, SMALL)
    given = [(m.name, data) for shard in shards for m, data in shard.payloads]
    assert given == files[: len(given)]
    assert len(given) >= 3
    assert [r.reason for shard in shards for r in shard.shard.rejects] == [Reason.ARCHIVE_TRUNCATED]


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_joined_streams_are_read_to_the_end(suffix: str, tmp_path: Path, shared_data: Path) -> None:
    files = [(f"{i}.wav", clip) for i, clip in enumerate(clips(shared_data, 3))]
    path = tmp_path / f"joined{suffix}"
    path.write_bytes(b"".join(COMPRESSORS[suffix](tar_bytes([file])) for file in files))
    shards, _ = streamed(path)
    assert [(m.name, data) for shard in shards for m, data in shard.payloads] == files
    assert rejected(shards) == {}


def test_zstd_with_skippable_frames_and_long_windows(tmp_path: Path, shared_data: Path) -> None:
    files = [(f"{i}.wav", clip) for i, clip in enumerate(clips(shared_data, 3))]
    skipped = struct.pack("<III", 0x184D2A50, 4, 123)
    (tmp_path / "pzstd.tar.zst").write_bytes(
        b"".join(skipped + zstandard.compress(part) for part in (tar_bytes(files)[:9000], tar_bytes(files)[9000:]))
    )
    window = zstandard.ZstdCompressionParameters(window_log=30, compression_level=1, hash_log=10, chain_log=10)
    writer = zstandard.ZstdCompressor(compression_params=window).compressobj()  # no size known: the window stays as is
    (tmp_path / "long.tar.zst").write_bytes(writer.compress(tar_bytes(files)) + writer.flush())
    for path in tmp_path.iterdir():
        shards, _ = streamed(path)
        assert [(m.name, data) for shard in shards for m, data in shard.payloads] == files, path
        assert rejected(shards) == {}


def test_damage_that_only_the_checksum_shows_is_said(tmp_path: Path, shared_data: Path) -> None:
    files = [(f"{i}.wav", clip) for i, clip in enumerate(clips(shared_data, 3))]
    data = bytearray(gzip.compress(tar_bytes(files), 0))
    data[data.index(files[2][1][1000:1100])] ^= 0xFF
    (tmp_path / "flipped.tar.gz").write_bytes(data)
    shards, _ = streamed(tmp_path / "flipped.tar.gz")
    assert [m.name for shard in shards for m, _ in shard.payloads] == ["0.wav", "1.wav", "2.wav"]
    assert rejected(shards) == {"": Reason.ARCHIVE_TRUNCATED}


def test_damaged_empty_and_huge(tmp_path: Path, shared_data: Path) -> None:
    (clip,) = clips(shared_data, 1)
    data = bytearray(gzip.compress(tar_bytes([("a.wav", clip), ("b.wav", random.Random(1).randbytes(100_000))])))
    data[-50_000] ^= 0xFF
    (tmp_path / "flipped.tar.gz").write_bytes(data)
    shards, _ = streamed(tmp_path / "flipped.tar.gz")
    assert {m.name for shard in shards for m, _ in shard.payloads} >= {"a.wav"}  # what came before the damage
    latin = tar_bytes([("a.wav", clip), ("caf\udce9.wav", bytes(9000))], format=tarfile.GNU_FORMAT)
    (tmp_path / "latin.tar.gz").write_bytes(gzip.compress(latin[: len(clip) + 9000], 0))
    (shard,), _ = streamed(tmp_path / "latin.tar.gz")
    assert [("café.wav" in r.message, r.reason) for r in shard.shard.rejects] == [(True, Reason.ARCHIVE_TRUNCATED)]
    (tmp_path / "empty.tar.gz").write_bytes(gzip.compress(tar_bytes([])))
    (shard,), _ = streamed(tmp_path / "empty.tar.gz")
    assert [(r.member, r.reason) for r in shard.shard.rejects] == [("", Reason.ARCHIVE_EMPTY)]
    huge = [("huge.wav", bytes(MAX_BYTES + 1)), ("after.wav", clip)]
    (tmp_path / "huge.tar.gz").write_bytes(gzip.compress(tar_bytes(huge), 1))
    (shard,), _ = streamed(tmp_path / "huge.tar.gz")
    assert [r.reason for r in shard.shard.rejects] == [Reason.MEMBER_TOO_LARGE]
    assert [(m.name, data) for m, data in shard.payloads] == [("after.wav", clip)]


def test_sidecars_count_for_their_shard_or_come_late(tmp_path: Path, shared_data: Path) -> None:
    sounds = clips(shared_data, 4)
    files = [item for i, clip in enumerate(sounds) for item in ((f"{i}.wav", clip), (f"{i}.txt", b"text %d" % i))]
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(tar_bytes(files)))
    shards, late = streamed(tmp_path / "a.tar.gz", Sharding(max_members=1))  # each side follows its recording
    assert [sides(shard.shard.members) for shard in shards] == [
        {f"{i}.wav": (f"text {i}", None, None)} for i in range(4)
    ]
    assert not late
    last = [(f"{i}.wav", clip) for i, clip in enumerate(sounds)]
    last.append(("metadata.csv", b"file_name,text,locale\n" + b"".join(b"%d.wav,t%d,en\n" % (i, i) for i in range(4))))
    (tmp_path / "b.tar.gz").write_bytes(gzip.compress(tar_bytes(last)))
    shards, late = streamed(tmp_path / "b.tar.gz", SMALL)
    assert (len(shards), late) == (1, [])  # still open when the table came: nothing is late
    shards, (late_one,) = streamed(tmp_path / "b.tar.gz", Sharding(max_members=2))
    assert late_one.sides == {"0.wav": ("t0", "en", None), "1.wav": ("t1", "en", None)}
    assert sides(shards[1].shard.members) == {"2.wav": ("t2", "en", None), "3.wav": ("t3", "en", None)}
    assert not [r for shard in shards for r in shard.shard.rejects]


def test_a_grown_stream_gives_only_what_is_new(tmp_path: Path, shared_data: Path) -> None:
    files = [(f"{i}.wav", clip) for i, clip in enumerate(clips(shared_data, 6))]
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(tar_bytes([*files[:4], ("x.md", b"#")])))
    shards, _ = streamed(path)
    held = {(str(path), m.name): (m.key(str(path)), m.side) for shard in shards for m in shard.shard.members}
    held |= {(str(path), r.member): (r.member_key, "") for shard in shards for r in shard.shard.rejects}
    path.write_bytes(gzip.compress(tar_bytes([*files[:4], ("x.md", b"#"), *files[4:]])))
    shards, _ = streamed(path, skip=Published(held))
    assert [m.name for shard in shards for m, _ in shard.payloads] == ["4.wav", "5.wav"]
    assert not [r for shard in shards for r in shard.shard.rejects]


def ledger(path: Path, shards: Sequence[StreamShard], late: Sequence[LateReferences] = ()) -> Published:
    """What a run leaves that has published ``shards``, with the references that came ``late`` joined to them."""
    held = {}
    joined = {name: side for part in late for name, side in part.sides.items()}
    for shard in (part.shard for part in shards):
        for member in shard.members:
            known = with_side(member, Side(*joined[member.name])) if member.name in joined else member
            held[str(path), member.name] = (member.key(str(path)), known.side)
        held = {(r.archive, r.member): (r.member_key, "") for r in shard.rejects} | held
    return Published(held)


def texts(shards: Sequence[StreamShard]) -> dict[str, str | None]:
    return {member.name: member.text for shard in shards for member, _ in shard.payloads}


def rejected(shards: Sequence[StreamShard]) -> dict[str, str]:
    return {reject.member: reject.reason for shard in shards for reject in shard.shard.rejects}


def pairs(sounds: Sequence[bytes], **changed: bytes) -> Files:
    """WebDataset's order: 0.wav, 0.txt, 1.wav, ..."""
    said = {f"t{at}": b"text %d" % at for at in range(len(sounds))} | changed
    return [item for at, clip in enumerate(sounds) for item in ((f"{at}.wav", clip), (f"{at}.txt", said[f"t{at}"]))]


@pytest.mark.parametrize("max_members", [1, 2, 100])
def test_known_members_keep_their_sidecars(max_members: int, tmp_path: Path, shared_data: Path) -> None:
    """Sidecars after their recordings: those of members that are passed over are no files of another kind."""
    sounds, sharding = clips(shared_data, 6), Sharding(max_members=max_members)
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(tar_bytes(pairs(sounds[:4]))))
    published = ledger(path, *streamed(path, sharding))
    assert streamed(path, sharding, published) == ([], [])
    path.write_bytes(gzip.compress(tar_bytes(pairs(sounds))))
    shards, late = streamed(path, sharding, published)
    assert texts(shards) == {"4.wav": "text 4", "5.wav": "text 5"}
    assert (rejected(shards), late) == ({}, [])


@pytest.mark.parametrize("max_members", [1, 2, 100])
def test_a_text_that_is_corrected_later_in_the_stream_is_done_again(
    max_members: int, tmp_path: Path, shared_data: Path
) -> None:
    sounds, sharding = clips(shared_data, 5), Sharding(max_members=max_members)
    path = tmp_path / "a.tar.gz"
    twice = [("1.wav", b"a second one of this name")]
    path.write_bytes(gzip.compress(tar_bytes([*pairs(sounds[:4]), *twice])))
    shards, late = streamed(path, sharding)
    assert rejected(shards) == {"1.wav": Reason.DUPLICATE_MEMBER}
    published = ledger(path, shards, late)
    path.write_bytes(gzip.compress(tar_bytes([*pairs(sounds, t1=b"corrected", t2=b""), *twice])))
    shards, late = streamed(path, sharding, published)
    assert texts(shards) == {"4.wav": "text 4", "1.wav": "corrected", "2.wav": None}
    given = {member.name: data for shard in shards for member, data in shard.payloads}
    assert given == {f"{i}.wav": sounds[i] for i in (1, 2, 4)}
    assert (rejected(shards), late) == ({}, [])
    assert [shard.shard.index for shard in shards] == list(range(len(shards)))
    assert max(shard.shard.members_in for shard in shards) <= max_members
    assert (shards, late) == streamed(path, sharding, published)  # a run that goes on finds the same shards
    settled = Published(published.members | ledger(path, shards, late).members)
    assert streamed(path, sharding, settled) == ([], [])


@pytest.mark.parametrize("max_members", [2, 100])
def test_a_stream_that_was_cut_gets_its_table_when_it_is_whole(
    max_members: int, tmp_path: Path, shared_data: Path
) -> None:
    sounds, sharding = clips(shared_data, 4), Sharding(max_members=max_members)
    files = [(f"{i}.wav", clip) for i, clip in enumerate(sounds)]
    table = b"file_name,text\n" + b"".join(b"%d.wav,t%d\n" % (i, i) for i in range(4))
    whole = tar_bytes([*files, ("metadata.csv", table)])
    cut = whole[: len(tar_bytes(files[:3])) // 512 * 512 - 8192]
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(cut))
    shards, late = streamed(path, sharding)
    assert set(rejected(shards).values()) == {Reason.ARCHIVE_TRUNCATED}
    assert texts(shards) == {"0.wav": None, "1.wav": None}
    published = ledger(path, shards, late)
    path.write_bytes(gzip.compress(whole))
    shards, late = streamed(path, sharding, published)
    assert texts(shards) == {f"{i}.wav": f"t{i}" for i in (2, 3, 0, 1)}
    assert (rejected(shards), late) == ({}, [])
    path.write_bytes(gzip.compress(cut))  # and where a later copy is cut, nothing is done again without its text
    shards, _ = streamed(path, sharding, Published(published.members | ledger(path, shards).members))
    assert texts(shards) == {}


def test_known_members_with_part_of_their_references_beside(tmp_path: Path, shared_data: Path) -> None:
    """Speakers are known at once, texts at the end: only then it shows whether a member is as published."""
    files = [(f"{i}.wav", clip) for i, clip in enumerate(clips(shared_data, 4))]
    sharding, path = Sharding(max_members=2), tmp_path / "a.tar.gz"
    (tmp_path / "a.tsv").write_text("file\tspeaker\n" + "".join(f"{i}.wav\tann\n" for i in range(4)))
    table = b"file_name,text\n" + b"".join(b"%d.wav,t%d\n" % (i, i) for i in range(4))
    path.write_bytes(gzip.compress(tar_bytes([*files, ("metadata.csv", table)])))
    published = ledger(path, *streamed(path, sharding))
    assert streamed(path, sharding, published) == ([], [])
    (tmp_path / "a.tsv").write_text("file\tspeaker\n" + "".join(f"{i}.wav\tann\n" for i in (0, 1, 3)))
    shards, _ = streamed(path, sharding, published)
    assert [sides(shard.shard.members) for shard in shards] == [{"2.wav": ("t2", None, None)}]
    assert rejected(shards) == {}


@pytest.mark.parametrize("max_members", [1, 100])
def test_base_names_that_folders_share_are_believed_as_little_as_in_tars(
    max_members: int, tmp_path: Path, shared_data: Path
) -> None:
    first, second = clips(shared_data, 2)
    table = ("metadata.csv", b"file_name,text\ns2/001.wav,two\n")
    packed = tar_bytes([table, ("s1/001.wav", first), ("s2/001.wav", second)])
    (tmp_path / "a.tar").write_bytes(packed)
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(packed))
    shards, late = streamed(tmp_path / "a.tar.gz", Sharding(max_members=max_members))
    found = sides([member for shard in shards for member, _ in shard.payloads])
    found |= {name: side for part in late for name, side in part.sides.items()}
    assert found == sides(listed(tmp_path / "a.tar").members)
    assert found["s1/001.wav"] == (None, None, None)


@pytest.mark.parametrize("max_members", [1, 2, 100])
def test_a_manifest_after_its_recordings_cuts_those_not_given_out_yet(
    max_members: int, tmp_path: Path, shared_data: Path
) -> None:
    sounds, sharding, path = clips(shared_data, 3), Sharding(max_members=max_members), tmp_path / "a.tar.gz"
    rows = [{"audio_filepath": f"{at}.wav", "offset": start, "duration": 0.1, "text": f"{at} at {start}"}
            for at in (0, 2) for start in (0.0, 0.1, 0.2)]  # fmt: skip
    manifest = "".join(json.dumps(row) + "\n" for row in (*rows, rows[-1])).encode()
    files = [*((f"{at}.wav", clip) for at, clip in enumerate(sounds)), ("m.json", manifest)]
    path.write_bytes(gzip.compress(tar_bytes(files)))
    shards, late = streamed(path, sharding)
    given = texts(shards)
    cut = {"2.wav": "2 at 0.0", "2.wav@0.1": "2 at 0.1", "2.wav@0.2": "2 at 0.2", "1.wav": None}
    refused = {"2.wav@0.2": Reason.DUPLICATE_MEMBER}
    if max_members == 100:
        cut |= {"0.wav": "0 at 0.0", "0.wav@0.1": "0 at 0.1", "0.wav@0.2": "0 at 0.2"}
    else:
        cut |= {"0.wav": None}
        refused |= dict.fromkeys(("0.wav@0+0.1", "0.wav@0.1", "0.wav@0.2"), Reason.MANIFEST_LINE)
    assert (given, rejected(shards), late) == (cut, refused, [])
    assert max(shard.shard.members_in for shard in shards) <= max(max_members, 2)
    assert all(data == sounds[int(member.name[0])] for shard in shards for member, data in shard.payloads)
    assert (shards, late) == streamed(path, sharding)
    settled = ledger(path, shards)
    assert streamed(path, sharding, settled) == ([], [])


def test_a_stream_that_nothing_tells_from_another_is_read_again() -> None:
    """A store that gives neither time nor size, such as a web server that sends in chunks."""
    untold, sized = (Archive("/a.tar.gz", Layout.STREAM, size, "") for size in (None, 7))
    known = Published(archives=frozenset((untold.id, sized.id)))
    assert (is_unchanged(untold, known), is_unchanged(sized, known)) == (False, True)


def test_a_stream_that_is_gone_is_the_stores_failure(tmp_path: Path, shared_data: Path) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(tar_bytes([("a.wav", clips(shared_data, 1)[0])])))
    archive = one(path)
    path.unlink()
    with pytest.raises(StoreError, match="nothing is there"):
        list(read_stream(archive, Storage(), "f", SMALL, LIMITS, Published()))
