"""How much audio a plan holds, from the headers of a sample of its recordings."""

from __future__ import annotations

import io
import zlib
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from schemas.config import Storage
from schemas.errors import MemberError
from schemas.records import Archive, Layout, Member, Plan, Seconds
from workers.sources import tar, zip
from workers.sources.kinds import estimate_s, is_archive_name
from workers.sources.sniff import compression_of, decompressor
from workers.sources.store import ArchiveError, StoreError
from workers.storage import open_filesystem

HEAD = 64 * 1024  # bytes of a recording looked at: a header, or seconds of a bit rate
STREAM_HEAD = 4 * 1024 * 1024  # compressed bytes of a one-way stream looked at,
STREAM_DATA = 128 * 1024 * 1024  # and bytes they may inflate to: a bomb is no estimate's business
THREADS = 8


@dataclass(frozen=True)
class Estimate:
    """Audio of one archive's members to do; ``how`` says what the figure rests on, ``probed`` on how many headers."""

    archive: str
    members: int
    seconds: Seconds
    probed: int
    how: str


def estimate_plan(plan: Plan, storage: Storage, sample: int = 16) -> list[Estimate]:
    """One estimate per archive of ``plan``, in its order, from at most ``sample`` headers of each.

    Durations given by manifests count as they are; others are guessed from sizes, and the guess is scaled by what the
    sampled headers say. Raises nothing for recordings or archives that cannot be read: they are left out of the sample.
    """
    members: dict[str, list[Member]] = defaultdict(list)
    streams = {shard.archive.uri: shard.archive for shard in plan.shards if shard.is_stream}
    for shard in plan.shards:
        members[shard.archive.uri] += shard.members

    def one(archive: Archive) -> Estimate:
        if archive.uri in streams:
            return _stream(archive, storage)
        return probe_seconds(archive, members[archive.uri], storage, sample)

    with ThreadPoolExecutor(THREADS, thread_name_prefix="estimate") as pool:
        return list(pool.map(one, plan.archives))


def probe_seconds(archive: Archive, members: Sequence[Member], storage: Storage, sample: int = 16) -> Estimate:
    """Audio of ``members`` of one archive, from at most ``sample`` of their headers, spread evenly."""
    guessed = [member for member in members if member.estimated_s == estimate_s(member.name, member.size)]
    total = sum(member.estimated_s for member in members)
    if not guessed:
        return Estimate(archive.uri, len(members), total, 0, "durations as given" if members else "nothing to do")
    step = max(1, -(-len(guessed) // sample))
    probes = []
    for member in guessed[::step]:
        seconds = seconds_of(_head(member, archive.layout, storage), member.size)
        if seconds is not None:
            probes.append((member.estimated_s, seconds))
    if not probes:
        return Estimate(archive.uri, len(members), total, 0, "from sizes, by format")
    by_size = sum(member.estimated_s for member in guessed)
    scaled = by_size * sum(true for _, true in probes) / sum(guess for guess, _ in probes)
    how = f"from {len(probes)} headers of {len(guessed):,}" + (
        ", others as given" if len(guessed) < len(members) else ""
    )
    return Estimate(archive.uri, len(members), total - by_size + scaled, len(probes), how)


def seconds_of(head: bytes, size: int) -> Seconds | None:
    """Duration of a recording of ``size`` bytes from its first ones; None where libsndfile cannot tell.

    FLAC says how long it is. Of other formats libsndfile measures what is there, which is scaled to the whole: exact
    for PCM, as good as the bit rate is constant for mp3 and Ogg.
    """
    import soundfile

    for tag in (b"Xing", b"Info"):  # mp3: the length of the whole file, which would not be scaled
        if len(head) < size and tag in head[:8192]:
            head = head.replace(tag, b"\0\0\0\0", 1)
    try:
        info = soundfile.info(io.BytesIO(head))
    except (soundfile.SoundFileError, RuntimeError, TypeError):
        return None
    if info.samplerate <= 0 or info.frames <= 0 or info.frames > 2**40:
        return None
    scale = 1.0 if info.format == "FLAC" or len(head) >= size else size / len(head)
    return float(info.frames / info.samplerate * scale)


def _head(member: Member, layout: Layout, storage: Storage) -> bytes:
    """The first bytes of a member; empty where they cannot be had."""
    start = member.offset or 0
    length = min(HEAD, member.size) if layout is not Layout.ZIP else HEAD + 1024
    try:
        fs, path = open_filesystem(member.uri, storage)
        data: bytes = fs.cat_file(path, start=start, end=start + length)
        if layout is not Layout.ZIP:
            return data
        stored = data[zip.data_start(data) :][: member.stored_size]
    except (OSError, MemberError, ValueError):
        return b""
    if member.compression == "deflate":
        try:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(stored, HEAD)
        except zlib.error:
            return b""
    return b"" if member.compression else stored


def _stream(archive: Archive, storage: Storage) -> Estimate:
    """A one-way stream, from the audio that its first megabytes hold."""
    unknown = Estimate(archive.uri, 0, (archive.size or 0) / 32_000, 0, "one-way stream, from its size alone")
    seconds, probed, kind = 0.0, 0, ""
    try:
        fs, path = open_filesystem(archive.uri, storage)
        file = io.BytesIO(fs.cat_file(path, start=0, end=STREAM_HEAD))
        kind = compression_of(file.getvalue())
        source = decompressor(file, kind) if kind else file
        for entry, headers in tar.entries(source, archive.uri, None, stream=True):
            content = headers.extractfile(headers.current) if not entry.reason else None
            if content is None or is_archive_name(entry.member.name):
                continue
            if found := seconds_of(content.read(HEAD), entry.member.size):
                seconds, probed = seconds + found, probed + 1
            if headers.offset > STREAM_DATA:
                break
    except (ArchiveError, StoreError, OSError, EOFError, ValueError):
        pass  # the head ends somewhere: what came before counts
    read = file.tell() if probed else 0
    if not read or not archive.size:
        return unknown
    how = f"one-way stream, from {probed} headers in its first {read:,} bytes"
    return Estimate(archive.uri, 0, seconds * archive.size / read, probed, how)
