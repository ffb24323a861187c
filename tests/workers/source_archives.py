"""Archives made on the spot for the tests of sources."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import zstandard

from schemas.config import AudioSettings, Sharding, Storage
from schemas.records import Archive, Member, Published
from workers.sources.discover import discover
from workers.sources.listing import Listing, list_archive
from workers.sources.read import read_members
from workers.sources.shards import cut
from workers.sources.stream import LateReferences, StreamShard, read_stream

Files = Sequence[tuple[str, bytes]]
LIMITS = AudioSettings(max_member_mb=10)
MAX_BYTES = 10_000_000
COMPRESSORS = {
    ".tar.gz": gzip.compress, ".tar.bz2": bz2.compress, ".tar.xz": lzma.compress, ".tar.zst": zstandard.compress,
}  # fmt: skip


def clips(shared_data: Path, count: int) -> list[bytes]:
    """Real recordings, digits of the FSDD test set, as WAV files."""
    with tarfile.open(shared_data / "fsdd" / "fsdd_test.tar") as tar:
        return [tar.extractfile(member).read() for member in tar.getmembers()[:count]]  # type: ignore[union-attr]


def tar_bytes(files: Files, extra: Sequence[tarfile.TarInfo] = (), **options) -> bytes:  # type: ignore[no-untyped-def]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **options) as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for info in extra:
            tar.addfile(info)
    return buffer.getvalue()


def zip_bytes(files: Files, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return buffer.getvalue()


def write(folder: Path, files: Files) -> Path:
    for name, data in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def one(source: str | Path, storage: Storage | None = None) -> Archive:
    """The one archive that a source is."""
    discovery = discover([str(source)], storage or Storage())
    assert not discovery.rejects, discovery.rejects
    (archive,) = discovery.archives
    return archive


def listed(source: str | Path, storage: Storage | None = None) -> Listing:
    return list_archive(one(source, storage), storage or Storage(), MAX_BYTES)


def contents(source: str | Path, storage: Storage | None = None, sharding: Sharding | None = None) -> dict[str, bytes]:
    """Every member read through shards: name -> bytes (a MemberError fails the comparison that uses it)."""
    archive = one(source, storage)
    listing = list_archive(archive, storage or Storage(), MAX_BYTES)
    shards = cut(archive, listing.members, listing.rejects, "f", sharding or Sharding())
    return {m.name: data for shard in shards for m, data in read_members(shard, storage or Storage())}  # type: ignore[misc]


def streamed(
    source: str | Path, sharding: Sharding | None = None, skip: Published | None = None, storage: Storage | None = None
) -> tuple[list[StreamShard], list[LateReferences]]:
    archive = one(source, storage)
    found = list(read_stream(archive, storage or Storage(), "f", sharding or Sharding(), LIMITS, skip or Published()))
    shards = [item for item in found if isinstance(item, StreamShard)]
    return shards, [item for item in found if isinstance(item, LateReferences)]


def sides(members: Sequence[Member]) -> dict[str, tuple[str | None, str | None, str | None]]:
    return {member.name: (member.text, member.language, member.speaker) for member in members}
