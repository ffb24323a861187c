"""The data plane wired up: shards stream through Ray Data from read to receipt.

read+decode -> denoise -> features -> transcribe (first engine) -> synthesize -> transcribe (the others, and the round
trip) -> write. One shard is one block from end to end.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.config import Cluster, Recipe, Sharding, Storage
from schemas.errors import VoxmillError
from schemas.records import Published, Receipt, Shard
from workers.block import pack, unpack_all
from workers.cluster import Share, shares
from workers.front import front, write
from workers.stage import OnBlock


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

    if not shards:
        return
    _prepare_context()
    pools = shares(
        ray.cluster_resources().get("CPU", 1.0) if cluster.cpus is None else cluster.cpus,
        ray.cluster_resources().get("GPU", 0.0),
        pool_names(job.recipe),
        None if any(shard.is_stream for shard in shards) else len(shards),
        cluster,
    )
    dataset = _wire(shards, job, pools, ray.put(published), ray.put(done))
    try:
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            yield from unpack_all(batch)
    except ray.exceptions.RayError as error:
        raise _explained(error) from error


def pool_names(recipe: Recipe) -> list[str]:
    """The actor pools of a run: an engine each."""
    names = list(dict.fromkeys(recipe.asr.transcribers))
    if recipe.tts.synthesizer:
        names.append(recipe.tts.synthesizer)
        if len(recipe.asr.transcribers) == 1:
            names.append(_ROUND_TRIP)
    return names


_ROUND_TRIP = "round trip"


def _prepare_context() -> None:
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    # One byte, not None: a row cannot be split, so every shard becomes a block of its own at once. With None, Ray 2.60
    # glues all that one task yields (every shard of a one-way stream) into a single block.
    context.target_max_block_size = 1
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.preserve_order = False
    context.raise_original_map_exception = True
    context.max_errored_blocks = 0


def _wire(shards: Sequence[Shard], job: Job, pools: dict[str, Share], published: Any, done: Any) -> Any:
    import ray.data

    def tasks(dataset: Any, function: Callable[..., Any], share: Share, arguments: dict[str, Any]) -> Any:
        return dataset.map_batches(
            function,
            batch_size=None,
            batch_format="pyarrow",
            fn_kwargs=arguments,
            num_cpus=share.cpus,
            compute=ray.data.TaskPoolStrategy(size=share.workers),
        )

    def actors(dataset: Any, name: str, build: Callable[[], Any], share: Share) -> Any:
        return dataset.map_batches(
            OnBlock,
            batch_size=None,
            batch_format="pyarrow",
            fn_constructor_args=(name, build),
            num_cpus=share.cpus,
            num_gpus=share.gpus,
            compute=ray.data.ActorPoolStrategy(size=share.workers),
        )

    dataset = ray.data.from_blocks([pack(shard) for shard in shards])
    dataset = tasks(dataset, front, pools["front"], {"job": job, "published": published, "done": done})
    for name, engine, build in _engine_stages(job.recipe):
        share = pools[engine]
        dataset = actors(dataset, name, build(share), share)
    return tasks(dataset, write, pools["write"], {"job": job})


def _engine_stages(recipe: Recipe) -> list[tuple[str, str, Callable[[Share], Callable[[], Any]]]]:
    """(stage name, pool name, how to build it on its share), in pipeline order."""

    def transcriber(spec: str) -> Callable[[Share], Callable[[], Any]]:
        def on(share: Share) -> Callable[[], Any]:
            def build() -> Any:
                from workers.transcribe import Transcribe

                return Transcribe(spec, recipe, _device(share))

            return build

        return on

    def synthesizer(share: Share) -> Callable[[], Any]:
        def build() -> Any:
            from workers.synthesize import Synthesize

            return Synthesize(recipe, _device(share))

        return build

    def round_trip(share: Share) -> Callable[[], Any]:
        def build() -> Any:
            from workers.synthesize import RoundTrip

            return RoundTrip(recipe, _device(share))

        return build

    first, *others = dict.fromkeys(recipe.asr.transcribers)
    stages = [(f"transcribe {first}", first, transcriber(first))]
    if recipe.tts.synthesizer:
        stages.append((f"synthesize {recipe.tts.synthesizer}", recipe.tts.synthesizer, synthesizer))
        if not others:
            stages.append((f"round trip {first}", _ROUND_TRIP, round_trip))
    return stages + [(f"transcribe {spec}", spec, transcriber(spec)) for spec in others]


def _device(share: Share) -> str:
    return "cuda" if share.gpus else "cpu"


def _explained(error: BaseException) -> VoxmillError:
    """Ray's error as one line: the cause that a stage gave, where there is one."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, VoxmillError):
            return cause
        cause = getattr(cause, "cause", None) or cause.__cause__
    line = next((line for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
    return VoxmillError(
        f"the data plane stopped ({type(error).__name__}: {line.strip()[:300]})",
        do="What is finished is kept: start the same run again to go on from there",
    )
