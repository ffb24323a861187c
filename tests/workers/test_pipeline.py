"""In what order shards begin, and how many wait between two stages. CPU: 15 s, most of it Ray's start."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from schemas.config import Cluster
from schemas.records import Archive, Layout, Member, Shard
from workers.block import pack, unpack
from workers.cluster import Share
from workers.pipeline import in_order
from workers.wiring import on_tasks, receipts, start

ARCHIVE = Archive("speech.tar", Layout.TAR)
SHARDS = 24


def shard(number: int, seconds: float, is_stream: bool) -> Shard:
    members = () if is_stream else (Member("a.wav", 1, "a.wav", estimated_s=seconds),)
    return Shard(f"{number:02d}", ARCHIVE, "f", members=members, is_stream=is_stream)


@given(st.lists(st.tuples(st.integers(0, 900), st.booleans()), max_size=30))
def test_the_lightest_quarter_is_last_and_all_else_as_planned(kinds: list[tuple[int, bool]]) -> None:
    shards = [shard(number, *kind) for number, kind in enumerate(kinds)]
    ordered = in_order(shards)
    assert sorted(one.id for one in ordered) == [one.id for one in shards]
    streams, planned = ([one for one in shards if one.is_stream is kind] for kind in (True, False))
    kept = len(ordered) - len(planned) // 4
    first, last = ordered[:kept], ordered[kept:]
    assert first == [*streams, *(one for one in planned if one in first)]
    seconds = [one.estimated_s for one in last]
    assert seconds == sorted(seconds, reverse=True)
    assert all(one.estimated_s >= max(seconds, default=0.0) for one in first if not one.is_stream)


def test_few_shards_wait_for_a_slow_stage(ray_session: None, tmp_path: Path) -> None:
    import ray.data

    def quick(block: pa.Table) -> pa.Table:
        (tmp_path / f"{unpack(block).id}.done").touch()
        return block

    def slow(block: pa.Table) -> pa.Table:
        (tmp_path / f"{unpack(block).id}.taken").touch()
        waiting = len(list(tmp_path.glob("*.done"))) - len(list(tmp_path.glob("*.taken")))
        time.sleep(0.4)
        return pack(waiting)

    start([], SHARDS, Cluster())
    dataset: Any = ray.data.from_blocks([pack(shard(number, 1.0, False)) for number in range(SHARDS)])
    dataset = on_tasks(on_tasks(dataset, quick, Share(1, 0.3)), slow, Share(1, 0.2))
    waiting = list(receipts(dataset))
    assert len(waiting) == SHARDS
    assert max(waiting) <= 4  # one per worker, what either stage has in work, and what is on its way between them
