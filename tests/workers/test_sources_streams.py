"""One-way streams: the same members as the plain tar holds, read once, in order."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import pytest
from source_archives import COMPRESSORS, LIMITS, MAX_BYTES, clips, listed, one, sides, streamed, tar_bytes

from schemas.config import Sharding, Storage
from schemas.reasons import Reason
from schemas.records import Layout, Published
from workers.sources.store import StoreError
from workers.sources.stream import read_stream

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


def test_damaged_empty_and_huge(tmp_path: Path, shared_data: Path) -> None:
    (clip,) = clips(shared_data, 1)
    data = bytearray(gzip.compress(tar_bytes([("a.wav", clip), ("b.wav", random.Random(1).randbytes(100_000))])))
    data[-50_000] ^= 0xFF
    (tmp_path / "flipped.tar.gz").write_bytes(data)
    shards, _ = streamed(tmp_path / "flipped.tar.gz")
    assert {m.name for shard in shards for m, _ in shard.payloads} >= {"a.wav"}  # what came before the damage
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


def test_a_stream_that_is_gone_is_the_stores_failure(tmp_path: Path, shared_data: Path) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(tar_bytes([("a.wav", clips(shared_data, 1)[0])])))
    archive = one(path)
    path.unlink()
    with pytest.raises(StoreError, match="nothing is there"):
        list(read_stream(archive, Storage(), "f", SMALL, LIMITS, Published()))
