"""The data plane wired up: shards stream through Ray Data from read to receipt.

read+decode -> denoise -> features -> transcribe (first engine) -> synthesize -> transcribe (the others, and the round
trip) -> write. One shard is one block from end to end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from schemas.config import Cluster, Recipe, Sharding, Storage
from schemas.records import Published, Receipt, Shard
from workers.block import pack
from workers.front import front, write
from workers.voices import voice_key
from workers.wiring import EngineStage, on_actors, on_tasks, receipts, start


@dataclass(frozen=True)
class Job:
    """What every stage of one run needs to know; small, and the same for all shards."""

    recipe: Recipe
    storage: Storage
    sharding: Sharding
    fingerprint: str
    staging_url: str


def process_shards(
    shards: Sequence[Shard], job: Job, cluster: Cluster, published: Published, done: frozenset[str]
) -> Iterator[Receipt]:
    """Process ``shards`` on the Ray that is connected and yield a receipt for each as it finishes, in any order.

    ``done``: shards of one-way streams to leave out, for they have a receipt. A one-way stream yields a receipt per
    shard it gives and a last one of its own. Raises VoxmillError where a stage cannot start or workers keep dying.
    """
    import ray
    import ray.data

    if not shards:
        return
    stages = engine_stages(job.recipe, job.storage)
    unknown = any(shard.is_stream for shard in shards)
    share = start([stage.pool for stage in stages], None if unknown else len(shards), cluster)
    dataset = ray.data.from_blocks([pack(shard) for shard in in_order(shards)])
    dataset = on_tasks(dataset, front, share["front"], job=job, published=ray.put(published), done=ray.put(done))
    for stage in stages:
        dataset = on_actors(dataset, stage, share[stage.pool])
    yield from receipts(on_tasks(dataset, write, share["write"], job=job))


def in_order(shards: Sequence[Shard]) -> list[Shard]:
    """The order in which ``shards`` begin: one-way streams, then the plan's, but the lightest quarter last.

    The last ones are short then, and no actor waits long for another at the end. What is heavy is not put together:
    as much memory would be needed at once as the corpus holds heavy shards. Engines spend time on each recording as
    well as on each second.
    """
    streams, planned = ([shard for shard in shards if shard.is_stream is kind] for kind in (True, False))

    def weight(shard: Shard) -> float:
        return shard.estimated_s + len(shard.members)

    lightest = sorted(planned, key=weight, reverse=True)[len(planned) - len(planned) // 4 :]
    last = {shard.id for shard in lightest}
    return [*streams, *(shard for shard in planned if shard.id not in last), *lightest]


def engine_stages(recipe: Recipe, storage: Storage) -> list[EngineStage]:
    """The engines of a run in pipeline order: the first transcriber gives the text that a voice may speak, the others
    come after the voice, so that one of them can hear it; any other engine hears it in a stage of its own."""
    first, *others = (
        EngineStage("transcribe", spec, recipe, storage) for spec in dict.fromkeys(recipe.asr.transcribers)
    )
    stages = [first]
    if recipe.tts.synthesizer:
        stages.append(EngineStage("synthesize", recipe.tts.synthesizer, recipe, storage, voice_key(recipe.tts)))
        if recipe.round_trip not in [stage.spec for stage in others]:
            stages.append(EngineStage("round trip", recipe.round_trip, recipe, storage))
    return stages + others
