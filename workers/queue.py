"""How many finished shards may wait between two stages: no more than the later one has workers.

Ray Data itself lets them wait until half of the object store is full, which a small corpus never does and a large one
always: memory would grow with the corpus, for nothing. What a stage has in work and next is not counted.
"""

from __future__ import annotations

from typing import Any

from ray.data._internal.execution.backpressure_policy import (
    ENABLED_BACKPRESSURE_POLICIES,
    ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY,
    BackpressurePolicy,
)


class ShardQueue(BackpressurePolicy):  # type: ignore[misc]
    """A stage begins no shard while the next one is at work and has enough waiting; one that still loads is no reason
    to stop."""

    def can_add_input(self, op: Any) -> bool:
        return not any(self._is_full(after) for after in op.output_dependencies)

    def _is_full(self, op: Any) -> bool:
        workers = op.get_max_concurrency_limit()
        if not workers or not op.num_active_tasks():
            return False
        return bool(self._topology[op].total_enqueued_input_blocks() >= workers)


def bound(context: Any) -> None:
    """Have datasets of ``context``, a ``DataContext``, wait so."""
    context.set_config(ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY, [*ENABLED_BACKPRESSURE_POLICIES, ShardQueue])
