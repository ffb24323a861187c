"""Compressed tars: read in order from the start, giving shards as they fill."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from schemas.config import AudioSettings, Sharding, Storage
from schemas.reasons import Reason
from schemas.records import Archive, Member, Published, Reject, Shard
from workers.sources import tar
from workers.sources.beside import Beside
from workers.sources.entries import MB, Entry, Screen, archive_reject, decode_name, is_wanted
from workers.sources.kinds import Kind, kind_of
from workers.sources.listing import refuse_sidecar, with_references, with_side
from workers.sources.published import is_done, is_known, is_refused
from workers.sources.shards import Cutter
from workers.sources.sniff import compression_of, decompressor
from workers.sources.store import ArchiveError, StoreError, StoreFile
from workers.sources.tables import Side


@dataclass(frozen=True)
class StreamShard:
    """A shard of a stream with its members' bytes, in the order of ``shard.members``."""

    shard: Shard
    payloads: list[tuple[Member, bytes]]


@dataclass(frozen=True)
class LateReferences:
    """Side data that came after its members' shards: member name -> (text, language, speaker)."""

    archive_uri: str
    sides: dict[str, tuple[str | None, str | None, str | None]]


def read_stream(
    archive: Archive, storage: Storage, fingerprint: str, sharding: Sharding, limits: AudioSettings, skip: Published
) -> Iterator[StreamShard | LateReferences]:
    """Read a compressed tar from its start to its end.

    Shards are cut as those of other archives are; memory holds one shard's members (those larger than ``limits``
    allow are passed over unread). Sidecars count from where they stand; what comes later than the shard of its
    recording comes out last, as one LateReferences. Members that ``skip`` knows are passed over; those whose side data
    turn out to be others at the end come after all that is new, from a second reading. A stream that ends too early
    gives all that came before, and a reject that says so.
    Raises StoreError where the store fails: what has been given stays good, the stream can be read again.
    """
    yield from _Reading(archive, storage, fingerprint, sharding, limits, skip).run()


class _Reading:
    """One reading of one stream, and the start of a second one where what is known of published members has changed."""

    def __init__(
        self,
        archive: Archive,
        storage: Storage,
        fingerprint: str,
        sharding: Sharding,
        limits: AudioSettings,
        skip: Published,
    ) -> None:
        self._archive, self._storage, self._skip = archive, storage, skip
        self._screen = Screen(archive.uri, limits.max_member_mb * MB)
        self._references = Beside(storage).references(archive)
        self._cutter = Cutter(archive, fingerprint, sharding)
        self._payloads: list[tuple[Member, bytes]] = []
        self._given: dict[str, Side] = {}  # side data of recordings as their shards had it
        self._passed: dict[str, Member] = {}  # recordings passed over: published as they are, their sidecars aside
        self._sidecars: dict[str, Member] = {}
        self._count = 0  # files met
        self._found = False  # whether there was more than sidecars of nothing

    def run(self) -> Iterator[StreamShard | LateReferences]:
        problem: Reject | None = None
        try:
            for entry, headers in self._entries():
                self._count += 1
                yield from self._take(entry, headers)
        except ArchiveError as error:
            problem = self._problem(error.reason, error.message)
        late = self._late()
        changed = self._changed(is_whole=problem is None)
        for member, _ in self._payloads:  # still to be given out: their sidecars are used
            self._references.of(member.name)
        for name in self._references.unused():
            if name in self._sidecars:
                self._found = True
                yield from self._add(refuse_sidecar(self._sidecars[name], self._screen))
        if problem is None and not self._found:
            problem = self._problem(Reason.ARCHIVE_EMPTY, "no recordings and no other files in it")
        if problem is not None:
            yield from self._add(problem)
        yield from self._again(changed)
        yield from self._emit()
        if late.sides:
            yield late

    def _entries(self) -> Iterator[tuple[Entry, tar.Headers]]:
        uri = self._archive.uri
        with StoreFile(uri, self._storage) as file:
            kind = compression_of(file.read(16))
        with StoreFile(uri, self._storage) as file:
            yield from tar.entries(decompressor(file, kind) if kind else file, uri, None, stream=True)

    def _take(self, entry: Entry, headers: tar.Headers) -> Iterator[StreamShard]:
        judged = self._screen(entry)
        if isinstance(judged, Reject):
            self._found = True
            yield from self._add(judged)
            return
        member = replace(judged.member, ordinal=self._count - 1, offset=None)
        is_sidecar = kind_of(member.name) is Kind.SIDECAR
        data = self._content(headers) if not is_sidecar or is_wanted(member.name, member.size) else b""
        member = replace(member, version=_version(member, data))
        self._screen.identify(member)
        if is_sidecar:
            self._references.offer(member.name, data)
            self._sidecars[member.name] = member
            return
        self._found = True
        for piece in with_references(member, self._references, self._screen):
            if isinstance(piece, Reject):
                yield from self._add(piece, data)
            elif piece.clip_start_s is None and is_known(piece, self._archive.uri, self._skip):
                self._passed[piece.name] = piece
            elif not is_done(piece, self._archive.uri, self._skip):
                yield from self._add(piece, data)

    def _add(self, item: Member | Reject, data: bytes = b"") -> Iterator[StreamShard]:
        """Put ``item`` into the shard being filled. A full one is given out only now, when the next item is there:
        sidecars between the two still count for it."""
        if isinstance(item, Reject) and is_refused(item, self._skip):
            return
        if self._cutter.is_full(item):
            yield from self._emit()
        self._cutter.add(item)
        if isinstance(item, Member):
            self._payloads.append((item, data))

    def _emit(self) -> Iterator[StreamShard]:
        payloads = [(self._final(member), data) for member, data in self._payloads]
        self._payloads = []
        if shard := self._cutter.close([member for member, _ in payloads]):
            yield StreamShard(shard, payloads)

    def _final(self, member: Member) -> Member:
        """The member with what its sidecars say by now. Pieces have theirs from the manifest that cut them."""
        if member.clip_start_s is not None:
            return member
        side = self._references.of(member.name).side
        self._given[member.name] = side
        return with_side(member, side)

    def _late(self) -> LateReferences:
        sides = {}
        for name, given in self._given.items():
            side = self._references.of(name).side
            if side != given:
                sides[name] = tuple(side)
        return LateReferences(self._archive.uri, sides)  # type: ignore[arg-type]

    def _changed(self, is_whole: bool) -> dict[str, Member]:
        """Members passed over that are not published with what their sidecars say by now. Where the stream was cut,
        what is not there may have been in the rest: it takes nothing from a member that has it."""
        now = {name: with_side(member, self._references.of(name).side) for name, member in self._passed.items()}
        uri, skip = self._archive.uri, self._skip
        return {name: one for name, one in now.items() if not is_done(one, uri, skip, is_side_final=is_whole)}

    def _again(self, changed: dict[str, Member]) -> Iterator[StreamShard]:
        """Read the stream from its start once more, up to the last of the ``changed`` members.

        A member that is another one by now, or gone, is left out: the next run finds a new version of the archive.
        """
        left = dict(changed)
        entries = self._entries() if left else iter(())
        try:
            for entry, headers in entries:
                if member := left.pop(entry.member.name, None):
                    data = self._content(headers)
                    if _version(entry.member, data) == member.version:
                        yield from self._add(member, data)
                    if not left:
                        return
        except ArchiveError:
            return

    def _problem(self, reason: str, message: str) -> Reject:
        reject = archive_reject(self._archive.uri, reason, message, self._archive.version)
        return replace(reject, ordinal=self._count)

    def _content(self, headers: tar.Headers) -> bytes:
        """The data of the header just read. Raises ArchiveError where the stream ends in it or is damaged."""
        name, size = decode_name(headers.current.name), headers.current.size
        try:
            source = headers.extractfile(headers.current)
            data = b"" if source is None else source.read()
        except StoreError:
            raise
        except Exception as error:  # tarfile's and each decompressor's own errors for data that end or are damaged
            raise tar.cut_off(self._count - 1, f"ends or is damaged inside {name} ({error})") from error
        if len(data) < size:
            raise tar.cut_off(self._count - 1, f"ends inside {name}")
        return data


def _version(member: Member, data: bytes) -> str:
    """The version of a member as listed, whose own is its time alone."""
    return tar.sample_version(float(member.version), data[: tar.SAMPLE], data[-tar.SAMPLE :])
