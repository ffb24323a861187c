"""The CPU stages as Ray Data tasks: read, decode, listen for speech, denoise and extract features at one end, write at
the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from schemas.config import Recipe
from schemas.errors import MemberError
from schemas.records import Member, Published, Shard
from workers.block import pack, unpack
from workers.heap import give_back
from workers.stage import failed, timed
from workers.work import Work

if TYPE_CHECKING:
    from workers.decode import Decode
    from workers.denoise import Denoise
    from workers.features import Features
    from workers.pipeline import Job
    from workers.silence import SilenceGuard

Payload = tuple[Member, bytes | MemberError]


def front(block: pa.Table, job: Job, published: Any, done: Any) -> Iterator[pa.Table]:
    """Read, decode, listen for speech, denoise and extract features: a planned shard in, its :class:`Work` out.

    A one-way stream gives one block per shard as it is read, then a last one that names them all. ``published`` and
    ``done`` are object references, fetched only for streams.
    """
    shard = unpack(block)
    if shard.is_stream:
        import ray

        works = _stream(shard, job, ray.get(published), ray.get(done))
    else:
        works = (_planned(one, job) for one in (shard,))  # which holds on to none of them
    for work in works:
        packed = pack(work)
        del work
        give_back()
        yield packed


def write(block: pa.Table, job: Job) -> pa.Table:
    """Stage a shard's rows; its receipt out."""
    from workers.write import Write, failed_receipt

    work = unpack(block)
    try:
        return pack(Write(job.recipe, job.staging_url, job.storage)(work))
    except Exception as error:  # the boundary between a shard and the run, as in workers.stage
        return pack(failed_receipt(failed(work, "write", error)))
    finally:
        del work
        give_back()


def _planned(shard: Shard, job: Job) -> Work:
    from workers.sources.read import read_members

    return _process(shard, job, lambda: read_members(shard, job.storage))


def _stream(shard: Shard, job: Job, published: Published, done: frozenset[str]) -> Iterator[Work]:
    from workers.sources.stream import LateReferences, read_stream

    last = Work(shard=shard, sample_rate=job.recipe.audio.sample_rate)
    given: list[str] = []
    try:
        for part in read_stream(shard.archive, job.storage, job.fingerprint, job.sharding, job.recipe.audio, published):
            if isinstance(part, LateReferences):
                last.late = {
                    member: dict(zip(("text", "language", "speaker"), side, strict=True))
                    for member, side in part.sides.items()
                }
                continue
            given.append(part.shard.id)
            if part.shard.id not in done:
                yield _process(part.shard, job, part.payloads.__iter__)
    except Exception as error:  # a store that breaks off in the middle: what came is kept, the stream is tried again
        last = failed(last, "read", error)
    last.stream_shards = tuple(given)
    yield last


def _process(shard: Shard, job: Job, read: Callable[[], Iterable[Payload]]) -> Work:
    """Every front stage over one shard. A worker process keeps its stages: the decoder's child starts once."""
    decode, guard, denoise, features = _stages(job.recipe.model_dump_json())
    work = Work(shard=shard, sample_rate=job.recipe.audio.sample_rate)
    work = timed("decode", work, lambda work: decode.process(work, read()))
    work = timed("silence", work, guard.measure)
    work = timed("denoise", work, denoise)
    return timed("features", work, features)


@cache
def _stages(recipe: str) -> tuple[Decode, SilenceGuard, Denoise, Features]:
    from workers.decode import Decode
    from workers.denoise import Denoise
    from workers.features import Features
    from workers.silence import SilenceGuard

    parsed = Recipe.model_validate_json(recipe)
    return Decode(parsed), SilenceGuard(parsed), Denoise(parsed), Features(parsed)
