"""Process the planned shards on Ray, receipt by receipt; what a stopped run has left is taken over."""

from __future__ import annotations

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from schemas.config import CorpusParameters, Layout
from schemas.records import Plan, Published, Receipt, Run, Shard
from tasks.progress import Progress
from workers.ledger import PastRun, finished_shards
from workers.pipeline import Job, process_shards
from workers.receipts import Staging
from workers.sources.published import to_skip
from workers.sources.store import StoreError
from workers.storage import touch


def clear_finished(runs: list[PastRun], fingerprint: str, parameters: CorpusParameters) -> None:
    """Remove the staged shards that ``runs`` have published already, left by one that died before it could do so.

    They would be taken for those of a stopped run, so that ``reprocess`` would publish their rows once more. A store
    that refuses is a warning.
    """
    logger = get_run_logger()
    staging = Staging(Layout(destination=parameters.destination).staging(fingerprint), parameters.storage)
    try:
        if removed := staging.clear_finished(finished_shards(runs, fingerprint)):
            logger.info("Removed %d staged files of published shards, left by a run that died", removed)
    except Exception as error:  # whatever a store raises
        logger.warning("Staged files of published shards could not be removed: %s", StoreError(error, staging.url))


@task(cache_policy=NO_CACHE)
def process(plan: Plan, parameters: CorpusParameters, published: Published, run: Run) -> list[Receipt]:
    """Receipts of every shard of ``plan``: of an earlier, stopped run where there is one, else of this one.

    A shard that could not be finished has a receipt whose ``failed`` says why. Ray must be connected
    (:func:`workers.cluster.connect`). Raises VoxmillError where the destination cannot be written to.
    """
    logger = get_run_logger()
    layout = Layout(destination=parameters.destination)
    staging = Staging(layout.staging(plan.fingerprint), parameters.storage)
    try:
        touch(staging.url, parameters.storage)
        done = staging.done()
    except Exception as error:  # whatever a store raises: before any audio is read, not after
        raise StoreError(error, parameters.destination) from error
    kept, todo = _resume(plan, staging, done)
    if kept:
        logger.info("Run %s goes on from %d shards that a stopped run has left finished", run.id, len(kept))
    job = Job(parameters.recipe, parameters.storage, parameters.sharding, plan.fingerprint, staging.url)
    receipts = list(kept)
    known = {receipt.shard_id for receipt in kept}
    with Progress(plan, logger) as progress:
        for receipt in kept:
            progress.update(receipt, resumed=True)
        for receipt in process_shards(todo, job, parameters.cluster, to_skip(published, parameters), done):
            progress.update(receipt)
            receipts.append(receipt)
            known.add(receipt.shard_id)
            for earlier in staging.receipts(id for id in receipt.stream_shards if id in done and id not in known):
                progress.update(earlier, resumed=True)
                receipts.append(earlier)
                known.add(earlier.shard_id)
    return receipts


def _resume(plan: Plan, staging: Staging, done: frozenset[str]) -> tuple[list[Receipt], list[Shard]]:
    """Receipts that stand, and shards to do. A stream stands only if every shard it gave has a receipt too."""
    kept: list[Receipt] = []
    todo: list[Shard] = []
    receipts = {receipt.shard_id: receipt for receipt in staging.receipts(s.id for s in plan.shards if s.id in done)}
    for shard in plan.shards:
        receipt = receipts.get(shard.id)
        if receipt is None or not done.issuperset(receipt.stream_shards):
            todo.append(shard)
        else:
            kept += [receipt, *staging.receipts(receipt.stream_shards)]
    return kept, todo
