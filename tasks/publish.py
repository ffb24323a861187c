"""Publish a run: check the counts, compact the staged shards, measure quality, judge it, write the manifest last."""

from __future__ import annotations

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from schemas.config import CorpusParameters, Layout
from schemas.errors import VoxmillError
from schemas.manifest import RunManifest
from schemas.records import Plan, Receipt, Run
from tasks.runs import after_published
from workers.again import Again, rejected_as_before
from workers.compact import parts_of
from workers.gate import judged
from workers.ledger import rejected_again, runs_in_force, superseded
from workers.publishing import (
    check_counts,
    choose_input,
    commit,
    in_plan_order,
    join_late,
    read_published,
    regenerated_hours,
    stage_source_rejects,
    write_ledger,
    write_parts,
    write_quality,
)
from workers.receipts import Staging
from workers.sources.store import StoreError
from workers.summing import manifest_of

WARNED_OF = 20  # rejects named one by one


@task(cache_policy=NO_CACHE)
def publish(plan: Plan, receipts: list[Receipt], parameters: CorpusParameters, run: Run) -> RunManifest | Again:
    """Publish what ``receipts`` have staged, and return the manifest.

    Every step before the manifest can be repeated; until it is there, no reader sees the run. Shards that failed are
    left out and named in it; a run that breaches its gate is published too, as ``failed_quality``. Where all that came
    out was rejected before in the same way, nothing is published: that is returned. Raises VoxmillError where nothing
    can be published, the counts do not add up or the destination cannot be written to.
    """
    try:
        return _publish(plan, receipts, parameters, run)
    except OSError as error:
        raise StoreError(error, parameters.destination) from error


def _publish(plan: Plan, receipts: list[Receipt], parameters: CorpusParameters, run: Run) -> RunManifest | Again:
    logger, storage, destination = get_run_logger(), parameters.storage, parameters.destination
    layout = Layout(destination=destination)
    staging = Staging(layout.staging(plan.fingerprint), storage)
    check_counts(plan, receipts)
    receipts = in_plan_order(plan, receipts)
    finished = join_late([one for one in receipts if not one.failed], parameters.recipe, staging, storage)
    finished, choice = choose_input(finished, parameters.recipe, staging, storage)
    finished += stage_source_rejects(plan, staging)
    failed = [receipt for receipt in receipts if receipt.failed]
    earlier = [] if parameters.reprocess else runs_in_force(destination, storage)
    again = rejected_as_before(plan, finished, earlier, staging, destination, storage)
    if again:
        staging.clear(finished)  # so that the next run tries them again
        for line in [*again.lines[:WARNED_OF], *(["..."] if again.lines[WARNED_OF:] else [])]:
            logger.warning("Rejected as before: %s", line)
        if not failed:
            return again
    if failed and (again or not any(receipt.members_in for receipt in finished)):
        raise VoxmillError(
            f"{'all ' * (not again)}{len(failed)} shards failed, the first with {failed[0].failed}",
            failed[0].archive_uri,
            "Nothing is published; mend the cause and run again",
        )
    started, run = run.id, after_published(run, destination, storage)
    if run.id != started:
        logger.info("Run %s is published as %s: it is to follow the runs that are published already", started, run.id)
    partition = f"run_date={run.date}/run_id={run.id}"
    parts = parts_of(finished, partition, parameters.max_file_mb << 20)
    logger.info("Run %s: %d staged files become %d", run.id, sum(len(part.files) for part in parts), len(parts))
    files = write_parts(parts, destination, staging, storage)
    quality, quality_files = write_quality(files, partition, destination, storage)
    earlier = [one for one in runs_in_force(destination, storage) if one.manifest.run_id < run.id]
    ledger = write_ledger(finished, layout.ledger(run.id), staging, storage)
    manifest = manifest_of(
        run, plan, parameters, finished, failed, [*files, *quality_files], quality, superseded(earlier, ledger)
    )
    heard = read_published(files, "utterances", ["archive", "member"], destination, storage)
    more = {"chosen_input": choice, "rejected_again": rejected_again(earlier, ledger, heard)}
    manifest = manifest.model_copy(update=more | regenerated_hours(files, destination, storage))
    manifest = judged(manifest, parameters.gate, destination, storage)
    if left := commit(manifest, finished, layout.manifest(run.id), staging, storage):
        logger.warning(left)
    for check in manifest.gate:
        (logger.warning if check.breached else logger.info)("%s: %s", check.name, check.reason)
    logger.info("Run %s is published: %s", run.id, layout.manifest(run.id))
    return manifest
