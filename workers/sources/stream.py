"""Compressed tars: read in order from the start, giving shards as they fill."""

from __future__ import annotations

import posixpath
from collections.abc import Container, Iterator
from dataclasses import dataclass, replace

from schemas.config import AudioSettings, Sharding, Storage
from schemas.reasons import Reason
from schemas.records import Archive, Member, Published, Reject, Shard
from workers.sources import tar
from workers.sources.beside import Beside
from workers.sources.entries import MB, Entry, Screen, archive_reject, decode_name, is_wanted
from workers.sources.kinds import Kind, kind_of
from workers.sources.listing import refuse_sidecar, with_references, with_side
from workers.sources.manifest import PieceNames
from workers.sources.published import is_done, is_known, is_refused
from workers.sources.shards import Cutter
from workers.sources.sniff import compression_of, decompressor
from workers.sources.store import ArchiveError, StoreError, StoreFile
from workers.sources.tables import Row, Side, stem_key


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
    recording comes out last, as one LateReferences, and is refused where it would cut the recording up. Members that
    ``skip`` knows are passed over; those whose side data turn out to be others at the end come after all that is new,
    from a second reading. A stream that ends too early gives all that came before, and a reject that says so.
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
        self._items: list[tuple[Member | Reject, bytes]] = []  # of the shard being filled, with their content
        self._folders: dict[str, str] = {}  # base names of recordings -> the first folder they were met in
        self._given: dict[str, Side] = {}  # side data of recordings as their shards had it
        self._cut: dict[str, list[Row]] = {}  # recordings given out as pieces: the rows that cut them
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
        for item, _ in self._items:  # still to be given out: their sidecars are used
            self._references.of(item.member if isinstance(item, Reject) else item.name)
        for reject in list(self._late_pieces(changed)):
            yield from self._add(reject)
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
        key, folder = stem_key(member.name), posixpath.dirname(member.name)
        if self._folders.setdefault(key, folder) != folder:
            self._references.crowded.add(key)
        for item in self._joined(member):
            if isinstance(item, Member) and item.clip_start_s is None and self._is_known(item):
                self._passed[item.name] = item
            else:
                yield from self._add(item, data)

    def _joined(self, member: Member) -> list[Member | Reject]:
        """The member with what is known of it by now, or its pieces, without those that are published."""
        items = with_references(member, self._references, self._screen)
        if rows := self._references.of(member.name).pieces:
            self._cut[member.name] = list(rows)
        uri, skip = self._archive.uri, self._skip
        return [item for item in items if isinstance(item, Reject) or not rows or not is_done(item, uri, skip)]

    def _is_known(self, member: Member) -> bool:
        return is_known(member, self._archive.uri, self._skip)

    def _add(self, item: Member | Reject, data: bytes = b"") -> Iterator[StreamShard]:
        """Put ``item`` into the shard being filled. A full one is given out only now, when the next item is there:
        sidecars between the two still count for it."""
        if isinstance(item, Reject) and is_refused(item, self._skip):
            return
        if self._cutter.is_full(item):
            yield from self._emit()
        self._cutter.add(item)
        self._items.append((item, data))

    def _emit(self) -> Iterator[StreamShard]:
        """The shard so far with what its sidecars say by now: several where they cut its recordings up."""
        items, self._items = self._items, []
        self._cutter.start()
        held: list[tuple[Member, bytes]] = []
        for item, data in ((final, data) for one, data in items for final in self._final(one)):
            if isinstance(item, Reject) and is_refused(item, self._skip):
                continue
            if self._cutter.is_full(item) and (shard := self._cutter.close()):
                yield StreamShard(shard, held)
                held = []
            self._cutter.add(item)
            if isinstance(item, Member):
                held.append((item, data))
        if shard := self._cutter.close():
            yield StreamShard(shard, held)

    def _final(self, item: Member | Reject) -> list[Member | Reject]:
        """The item with what its sidecars say by now. Pieces have theirs from the manifest that cut them."""
        if isinstance(item, Reject) or item.clip_start_s is not None:
            return [item]
        if self._references.of(item.name).pieces:
            return self._joined(item)
        side = self._side(item.name)
        self._given[item.name] = side
        return [with_side(item, side)]

    def _side(self, name: str) -> Side:
        """What is known of a recording as a whole; the text of a piece that starts it is not its own."""
        known = self._references.of(name)
        return known.side._replace(text=None) if known.pieces else known.side

    def _late_pieces(self, changed: Container[str]) -> Iterator[Reject]:
        """A reject for each piece whose line came after its recording was given out whole, or in other pieces."""
        message = "its manifest stands after the shard of its recording, which was processed without it; put it first"
        for name in (*self._given, *self._passed, *self._cut):
            pieces = () if name in changed else self._references.of(name).pieces
            names = PieceNames()
            cuts = [(row.offset, row.duration) for row in self._cut.get(name, ())] or [(None, None)]
            known = {names(name, *cut) for cut in cuts}
            for row in pieces:
                if (piece := names(name, row.offset, row.duration)) not in known:
                    known.add(piece)
                    member = Member(piece, 0, self._archive.uri, "", ordinal=self._count,
                                    clip_start_s=row.offset, clip_duration_s=row.duration)  # fmt: skip
                    yield self._screen.reject(member, Reason.MANIFEST_LINE, message)

    def _late(self) -> LateReferences:
        sides = {}
        for name, given in self._given.items():
            side = self._side(name)
            if side != given:
                sides[name] = tuple(side)
        return LateReferences(self._archive.uri, sides)  # type: ignore[arg-type]

    def _changed(self, is_whole: bool) -> dict[str, Member]:
        """Members passed over that are not published with what their sidecars say by now. Where the stream was cut,
        what is not there may have been in the rest: it takes nothing from a member that has it."""
        now = {name: with_side(member, self._side(name)) for name, member in self._passed.items()}
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
