"""Cutting: every member in exactly one shard, whatever the archive, and a grown one keeps its earlier shards."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from schemas.config import Sharding
from schemas.records import Archive, Layout, Member, Reject
from workers.sources.shards import cut

ARCHIVE = Archive("s3://b/a.tar", Layout.TAR, 1, "v1")


def _items(kinds: list[tuple[bool, float]]) -> tuple[list[Member], list[Reject]]:
    members, rejects = [], []
    for ordinal, (is_member, seconds) in enumerate(kinds):
        if is_member:
            members.append(Member(f"{ordinal}.wav", 1, ARCHIVE.uri, ordinal=ordinal, estimated_s=seconds))
        else:
            rejects.append(
                Reject(ARCHIVE.uri, f"{ordinal}.md", "list", "not_audio", "", f"k{ordinal}", ordinal=ordinal)
            )
    return members, rejects


kinds = st.lists(st.tuples(st.booleans(), st.floats(0, 400)), max_size=60)
shardings = st.builds(Sharding, minutes=st.floats(0.5, 20), max_members=st.integers(1, 9))


@given(kinds, kinds, shardings)
def test_cuts_are_partitions_that_growth_leaves_alone(
    before: list[tuple[bool, float]], more: list[tuple[bool, float]], sharding: Sharding
) -> None:
    shards = cut(ARCHIVE, *_items(before), "f", sharding)
    assert shards == cut(ARCHIVE, *_items(before), "f", sharding)
    members, rejects = _items(before)
    assert [m for shard in shards for m in shard.members] == members
    assert sorted(r.member for shard in shards for r in shard.rejects) == sorted(r.member for r in rejects)
    assert [shard.index for shard in shards] == list(range(len(shards)))
    assert len({shard.id for shard in shards}) == len(shards)
    for shard in shards:
        assert 0 < shard.members_in <= sharding.max_members
        assert sum(m.estimated_s for m in shard.members[:-1]) < sharding.minutes * 60
    grown = cut(dataclasses.replace(ARCHIVE, size=2, version="v2"), *_items(before + more), "f", sharding)
    assert [shard.id for shard in grown[: max(0, len(shards) - 1)]] == [shard.id for shard in shards[:-1]]


def test_ids_depend_on_content_sides_and_settings() -> None:
    members, rejects = _items([(True, 1.0), (False, 0.0), (True, 2.0)])
    sharding = Sharding()

    def identity(members: list[Member], rejects: list[Reject], fingerprint: str = "f") -> str:
        (shard,) = cut(ARCHIVE, members, rejects, fingerprint, sharding)
        return shard.id

    known = identity(members, rejects)
    changed = [
        identity(members, rejects, "g"), identity(members, []), identity(members[:1], rejects),
        identity([dataclasses.replace(members[0], text="x"), members[1]], rejects),
        identity([dataclasses.replace(members[0], version="x"), members[1]], rejects),
    ]  # fmt: skip
    assert known not in changed
    assert len(set(changed)) == len(changed)
