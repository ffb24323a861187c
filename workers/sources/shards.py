"""Cutting archives into shards: greedy, in archive order, so that a grown archive keeps its earlier shards."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from heapq import merge

from schemas.config import Sharding
from schemas.ids import stable_id
from schemas.records import Archive, Member, Reject, Shard


class Cutter:
    """Fills one shard after another. A shard is full once it holds the seconds or the members asked for.

    Where a cut falls depends on what came before it alone: appending to an archive changes none but its last shard.
    """

    def __init__(self, archive: Archive, fingerprint: str, sharding: Sharding) -> None:
        self._archive, self._fingerprint, self._sharding = archive, fingerprint, sharding
        self._index = 0
        self.start()

    def start(self) -> None:
        """An empty shard, whatever the one so far holds."""
        self._members: list[Member] = []
        self._rejects: list[Reject] = []
        self._seconds = 0.0

    def is_full(self, item: Member | Reject) -> bool:
        """Whether ``item`` has to open the next shard. Rejects weigh nothing but their number.

        A duplicate stays with its first: both are known by one identity, so they must be done or undone together.
        """
        if isinstance(item, Reject) and self._members and item.ordinal == self._members[-1].ordinal:
            return False
        count = len(self._members) + len(self._rejects)
        long = self._seconds >= self._sharding.minutes * 60 and isinstance(item, Member)
        return count > 0 and (long or count >= self._sharding.max_members)

    def add(self, item: Member | Reject) -> None:
        if isinstance(item, Reject):
            self._rejects.append(item)
        else:
            self._members.append(item)
            self._seconds += item.estimated_s

    def close(self) -> Shard | None:
        """The shard so far, None where it is empty."""
        members = self._members
        if not members and not self._rejects:
            return None
        shard = Shard(
            id=shard_id(self._archive.uri, self._fingerprint, members, self._rejects),
            archive=self._archive,
            fingerprint=self._fingerprint,
            members=tuple(members),
            rejects=tuple(self._rejects),
            index=self._index,
        )
        self._index += 1
        self.start()
        return shard


def shard_id(uri: str, fingerprint: str, members: Sequence[Member], rejects: Sequence[Reject]) -> str:
    """Identity of a shard: the archive's URI, what the shard holds and the settings.

    The archive's own version is no part of it: a grown archive keeps the ids of shards it has not changed.
    """
    held = [[member.key(uri), member.side] for member in members]
    refused = [[reject.member, reject.member_key, reject.reason] for reject in rejects]
    return stable_id("shard", uri, fingerprint, held, refused)


def cut(
    archive: Archive, members: Sequence[Member], rejects: Sequence[Reject], fingerprint: str, sharding: Sharding
) -> tuple[Shard, ...]:
    """Cut what is to be done of one archive into shards; each member and each reject is in exactly one.

    Both must be in archive order. A reject goes where its ordinal falls, a duplicate beside its first.
    """
    cutter, shards = Cutter(archive, fingerprint, sharding), []
    for item in _in_order(members, rejects):
        if cutter.is_full(item) and (shard := cutter.close()):
            shards.append(shard)
        cutter.add(item)
    if last := cutter.close():
        shards.append(last)
    return tuple(shards)


def _in_order(members: Sequence[Member], rejects: Sequence[Reject]) -> Iterator[Member | Reject]:
    """Both merged by ordinal; rejects after the members they share it with (heapq.merge is stable), but duplicates
    right after the one of these that came first."""
    duplicates: dict[tuple[int, str], list[Reject]] = defaultdict(list)
    others: list[Member | Reject] = []
    names = {(_ordinal(member), member.name) for member in members} if rejects else set()
    for reject in sorted(rejects, key=_ordinal):
        place = (_ordinal(reject), reject.member)
        if place in names:
            duplicates[place].append(reject)
        else:
            others.append(reject)
    in_order: list[Sequence[Member | Reject]] = [members, others]
    for item in merge(*in_order, key=_ordinal):
        yield item
        if isinstance(item, Member):
            yield from duplicates.get((_ordinal(item), item.name), ())


def _ordinal(item: Member | Reject) -> int:
    return item.ordinal or 0
