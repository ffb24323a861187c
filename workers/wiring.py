"""Stages on Ray Data: one block per shard from end to end, task stages on CPUs and engines in actor pools."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from schemas.config import Cluster, Recipe, Storage
from schemas.errors import VoxmillError
from schemas.records import Receipt
from workers.block import unpack_all
from workers.cluster import Share, shares
from workers.stage import OnBlock

ROUND_TRIP = "round trip"
# Ray Data looks for finished tasks every 0.1 s, which takes a seventh of a core all the time; shards take seconds.
_LOOKS_EVERY_S = 0.25


def start(pools: list[str], shards: int | None, cluster: Cluster) -> dict[str, Share]:
    """Set Ray Data up for shards as blocks, and share the connected Ray's resources among ``pools`` and the tasks.

    ``shards`` None: their number is not known. Raises VoxmillError as :func:`workers.cluster.shares` does.
    """
    import ray
    import ray.data
    from ray.data._internal.execution import streaming_executor_state

    from workers import queue

    streaming_executor_state.WAIT_FOR_TASK_COMPLETION_TIMEOUT_S = _LOOKS_EVERY_S
    # What fails is raised; Ray Data would tell of it with its traceback, and ask for a report to its makers, before.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    # One byte, not None: a row cannot be split, so every shard becomes a block of its own at once. With None, Ray 2.60
    # glues all that one task yields (every shard of a one-way stream) into a single block.
    context.target_max_block_size = 1
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.preserve_order = False
    context.raise_original_map_exception = True
    context.max_errored_blocks = 0
    queue.bound(context)
    resources = ray.cluster_resources()
    cpus = resources.get("CPU", 1.0) if cluster.cpus is None else cluster.cpus
    gpus = resources.get("GPU", 0.0) if cluster.gpu_count is None else float(cluster.gpu_count)
    return shares(cpus, gpus, pools, shards, cluster)


def on_tasks(dataset: Any, function: Callable[..., Any], share: Share, **arguments: Any) -> Any:
    """``function(block, **arguments)`` over every block, in tasks."""
    import ray.data

    return dataset.map_batches(
        function,
        batch_size=None,
        batch_format="pyarrow",
        fn_kwargs=arguments,
        num_cpus=share.cpus,
        compute=ray.data.TaskPoolStrategy(size=share.workers),
    )


@dataclass(frozen=True)
class EngineStage:
    """A stage that holds a loaded model: what it does, with which engine, and under which settings."""

    role: Literal["transcribe", "synthesize", "round trip"]
    spec: str
    recipe: Recipe
    storage: Storage
    voice_key: bytes | None = field(default=None, repr=False)  # secret: kept out of what is logged of a stage

    @property
    def name(self) -> str:
        return f"{self.role} {self.spec}"

    @property
    def pool(self) -> str:
        """Whose share of the cluster it has: an engine's, but a round trip after the voice is one more."""
        return ROUND_TRIP if self.role == "round trip" else self.spec

    def build(self, device: str) -> Callable[..., Any]:
        """Load the engine onto ``device``. Raises VoxmillError where it cannot be loaded."""
        from workers.engines.registry import load_synthesizer, load_transcriber
        from workers.synthesize import RoundTrip, Synthesize
        from workers.transcribe import Transcribe

        if self.role == "synthesize":
            voice = load_synthesizer(self.spec, device, self.recipe.tts, self.storage)
            return Synthesize(voice, self.recipe, self.voice_key)
        engine = load_transcriber(self.spec, device, self.recipe.asr, self.storage)
        return RoundTrip(engine) if self.role == "round trip" else Transcribe(engine, self.recipe)


def on_actors(dataset: Any, stage: EngineStage, share: Share) -> Any:
    """``stage`` over every block, in a pool of actors that each load the engine once."""
    import ray.data

    return dataset.map_batches(
        OnBlock,
        batch_size=None,
        batch_format="pyarrow",
        fn_constructor_args=(stage.name, stage.build, share.gpus),
        num_cpus=share.cpus,
        num_gpus=share.gpus,
        compute=ray.data.ActorPoolStrategy(size=share.workers),
    )


def receipts(dataset: Any) -> Iterator[Receipt]:
    """Run the stages, and yield the receipts that the last of them writes, as they come.

    Raises VoxmillError where a stage cannot start or workers keep dying.
    """
    import ray

    try:
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            yield from unpack_all(batch)
    except ray.exceptions.RayError as error:
        raise _explained(error) from error


def _explained(error: BaseException) -> VoxmillError:
    """Ray's error as one line: the cause that a stage gave, where there is one.

    The innermost counts: Ray's own is of the same class as what it wraps, and its text the whole traceback.
    """
    cause: BaseException | None = error
    given: VoxmillError | None = None
    while cause is not None:
        given = cause if isinstance(cause, VoxmillError) else given
        cause = getattr(cause, "cause", None) or cause.__cause__
    if given is not None:
        return given
    line = next((line for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
    return VoxmillError(
        f"the data plane stopped ({type(error).__name__}: {line.strip()[:300]})",
        do="What is finished is kept: start the same run again to go on from there",
    )
