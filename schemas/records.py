"""The records that pass between the planes: archives, members, shards, rejects, receipts.

All are frozen; a change is a copy (:func:`dataclasses.replace`). Times are in seconds, sizes in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from schemas.ids import stable_id

Seconds = float
ID_TIME = (
    "%Y%m%dT%H%M%SZ"  # what the id of a run begins with, UTC; the first digits of its flow run's id follow a hyphen
)


class Layout(StrEnum):
    """How the bytes of a source's members are reached."""

    TAR = "tar"  # seekable: members by byte range
    ZIP = "zip"  # seekable: members by byte range, inflated where compressed
    STREAM = "stream"  # a compressed tar: one way, read once, in order
    FOLDER = "folder"  # a prefix: every member is an object of its own
    FILE = "file"  # a single recording
    MANIFEST = "manifest"  # JSONL lines that name recordings


@dataclass(frozen=True)
class Archive:
    """One source as found: ``version`` is its ETag, or its modification time where the store gives no ETag."""

    uri: str
    layout: Layout
    size: int | None = None
    version: str = ""

    @property
    def id(self) -> str:
        return stable_id("archive", self.uri, self.size, self.version)


UNTOLD = -1  # size of a member that its store does not tell before it is read


@dataclass(frozen=True)
class Member:
    """One recording (or one manifest line's piece of a recording) inside an archive.

    ``uri`` is the object to read: the archive itself for tar and zip, the member's own object elsewhere.
    ``offset`` is where its bytes start in ``uri`` (tar: the data; zip: the local header), None for whole objects.
    ``size`` is in bytes, :data:`UNTOLD` where the store does not say it, as a web server may.
    ``version`` changes whenever the content may have changed (zip: CRC-32; tar: header fields; object: ETag or mtime).
    ``clip_start_s``/``clip_duration_s`` cut a piece out of the recording (NeMo manifests' offset and duration).
    ``text``, ``language`` and ``speaker`` come from sidecars or manifests; None where not given.
    """

    name: str
    size: int
    uri: str
    version: str = ""
    offset: int | None = None
    stored_size: int | None = None  # compressed size in a zip, where it differs
    compression: str = ""  # zip: "" (stored), "deflate", "bzip2", "lzma", "zstd"
    ordinal: int = 0  # position in the archive's own order
    estimated_s: Seconds = 0.0  # from the manifest, or estimated from size and format
    clip_start_s: Seconds | None = None
    clip_duration_s: Seconds | None = None
    text: str | None = None
    language: str | None = None
    speaker: str | None = None

    def key(self, archive_uri: str) -> str:
        """Identity of the content: archive, name, version and the piece that is cut out of it."""
        return stable_id(
            "member", archive_uri, self.name, self.size, self.version, self.clip_start_s, self.clip_duration_s
        )

    @property
    def side(self) -> str:
        """Identity of the side data, which scores depend on but audio does not."""
        return stable_id("side", self.text, self.language, self.speaker)


@dataclass(frozen=True)
class Reject:
    """One member (``start_s`` None) or one of its segments that was not published; a row of ``rejects``."""

    archive: str
    member: str
    stage: str
    reason: str
    message: str
    member_key: str = ""
    start_s: Seconds | None = None
    end_s: Seconds | None = None
    utterance_id: str | None = None
    ordinal: int | None = None  # position in the archive's own order, of members refused at sight


@dataclass(frozen=True)
class Shard:
    """The unit of everything: members of one archive, processed, staged and resumed as a whole.

    A shard of a one-way stream is planned without ``members`` and with ``is_stream``: reading it yields its shards.
    ``rejects`` are members refused at sight; they belong to the shard, so its counts add up.
    """

    id: str
    archive: Archive
    fingerprint: str
    members: tuple[Member, ...] = ()
    rejects: tuple[Reject, ...] = ()
    index: int = 0  # position among the archive's shards
    is_stream: bool = False

    @property
    def members_in(self) -> int:
        return len(self.members) + len(self.rejects)

    @property
    def estimated_s(self) -> Seconds:
        return sum(member.estimated_s for member in self.members)


@dataclass(frozen=True)
class StageTime:
    """Seconds one stage spent on one shard. ``gpu_s``: wall seconds times the share of a GPU that was held;
    ``started_at``: seconds since 1970, UTC."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    gpu_s: float = 0.0
    started_at: float = 0.0


@dataclass(frozen=True)
class ErrorCounts:
    """Word and character alignment counts, pooled over utterances that have a reference."""

    hits: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    @property
    def words(self) -> int:
        """Words in the reference."""
        return self.hits + self.substitutions + self.deletions

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    def __add__(self, other: ErrorCounts) -> ErrorCounts:
        return ErrorCounts(
            self.hits + other.hits, self.substitutions + other.substitutions,
            self.deletions + other.deletions, self.insertions + other.insertions,
        )  # fmt: skip


@dataclass(frozen=True)
class StagedFile:
    """One Parquet file in the staging area."""

    table: str
    path: str
    rows: int
    bytes: int


@dataclass(frozen=True)
class Receipt:
    """What is left of a shard once its rows are staged; its presence means that the shard is done."""

    shard_id: str
    archive_uri: str
    index: int
    members_in: int
    members_published: int
    members_rejected: int
    utterances: int
    audio_s: Seconds  # of published utterances
    files: tuple[StagedFile, ...] = ()
    words: dict[str, ErrorCounts] = field(default_factory=dict)  # "engine|input" -> counts
    stages: dict[str, StageTime] = field(default_factory=dict)
    reject_reasons: dict[str, int] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)  # engine spec -> model digest
    padding: dict[str, tuple[Seconds, Seconds]] = field(default_factory=dict)  # transcriber spec -> own audio, padded
    failed: str = ""  # a shard that could not be finished: why; nothing of it is staged
    stream_shards: tuple[str, ...] = ()  # a one-way stream's last receipt: every shard it gave
    resumed: bool = False  # taken over from a stopped run: says nothing of the pace of this one


@dataclass(frozen=True)
class Discovery:
    """The archives that the sources name; a source that cannot be read at all is a reject."""

    archives: tuple[Archive, ...]
    rejects: tuple[Reject, ...] = ()


@dataclass(frozen=True)
class Published:
    """What is in force at a destination for one fingerprint: (archive URI, member name) -> (key, side)."""

    members: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    archives: frozenset[str] = frozenset()  # ids of archives that are done to the last member: not opened again


@dataclass(frozen=True)
class Plan:
    """What a run will do. Shards are in archive order, then by index."""

    fingerprint: str
    shards: tuple[Shard, ...]
    archives: tuple[Archive, ...]
    skipped: dict[str, int] = field(default_factory=dict)  # archive URI -> members already published
    rejects: tuple[Reject, ...] = ()  # whole sources and archives that cannot be read
    unopened: frozenset[str] = frozenset()  # URIs of archives that are done and unchanged

    @property
    def members(self) -> int:
        """Members to do, refused at sight included; those of one-way streams are not known before they are read."""
        return sum(shard.members_in for shard in self.shards)

    @property
    def estimated_s(self) -> Seconds:
        return sum(member.estimated_s for shard in self.shards for member in shard.members)


@dataclass(frozen=True)
class Run:
    """One run of a flow: ``id`` sorts by time, those of published runs in the order of their publication; ``date`` is
    the partition (YYYY-MM-DD), ``started_at`` ISO 8601 UTC."""

    id: str
    date: str
    started_at: str
