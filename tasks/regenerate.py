"""Speak published texts afresh and publish the result as a run of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from pydantic import ValidationError

from schemas.config import Layout, Recipe, RegenerateParameters
from schemas.errors import VoxmillError
from schemas.manifest import RunManifest
from schemas.records import Archive, Plan, Receipt, Run
from schemas.records import Layout as ArchiveLayout
from schemas.tables import schema_of
from tasks.progress import Progress
from tasks.runs import after_published
from workers.compact import parts_of
from workers.publishing import check_counts, commit, in_plan_order, regenerated_hours, write_parts
from workers.receipts import Staging
from workers.regeneration import regenerate_shards, works_of
from workers.summing import manifest_of
from workers.work import Work


@dataclass(frozen=True)
class Speaking:
    """What a regenerate run has to do: its shards as works, and the plan that counts them."""

    plan: Plan
    works: tuple[Work, ...]
    recipe: Recipe


def recipe_for(source: RunManifest, parameters: RegenerateParameters) -> Recipe:
    """The published run's recipe with this run's voice; of its transcribers only the first, whose transcript may be
    spoken, and the one that hears the result."""
    try:
        recipe = Recipe.model_validate(source.parameters["recipe"])
    except (KeyError, ValidationError) as error:
        what = f"the recipe of run {source.run_id} cannot be read ({' '.join(str(error).split())})"
        raise VoxmillError(what, parameters.destination, "Choose a corpus run of this version of voxmill") from None
    hears = parameters.tts.round_trip or recipe.asr.transcribers[-1]
    return recipe.model_copy(
        update={
            "tts": parameters.tts.model_copy(update={"round_trip": hears}),
            "asr": recipe.asr.model_copy(update={"transcribers": recipe.asr.transcribers[:1]}),
        }
    )


def speaking(
    rows: pa.Table, source: RunManifest, recipe: Recipe, fingerprint: str, parameters: RegenerateParameters
) -> Speaking:
    """Shards of the selected ``rows`` of ``utterances``."""
    archives = tuple(Archive(one.uri, ArchiveLayout(one.layout)) for one in source.archives if one.layout)
    works = tuple(works_of(rows, archives, source.run_id, fingerprint, recipe, parameters.text))
    used = {work.shard.archive.uri for work in works}
    plan = Plan(
        fingerprint, tuple(work.shard for work in works), tuple(archive for archive in archives if archive.uri in used)
    )
    return Speaking(plan, works, recipe)


@task(name="regenerate", cache_policy=NO_CACHE)
def speak(todo: Speaking, parameters: RegenerateParameters, run: Run) -> list[Receipt]:
    """Receipts of every shard; of an earlier, stopped run where there is one. Ray must be connected."""
    logger = get_run_logger()
    staging = _staging(todo, parameters)
    done = staging.done()
    kept = staging.receipts(work.shard.id for work in todo.works if work.shard.id in done)
    if kept:
        logger.info("Run %s goes on from %d shards that a stopped run has left finished", run.id, len(kept))
    left = [work for work in todo.works if work.shard.id not in done]
    receipts = list(kept)
    with Progress(todo.plan, logger) as progress:
        for receipt in kept:
            progress.update(receipt, resumed=True)
        for receipt in regenerate_shards(left, todo.recipe, staging.url, parameters.storage, parameters.cluster):
            progress.update(receipt)
            receipts.append(receipt)
    return receipts


@task(name="publish regenerated", cache_policy=NO_CACHE)
def publish_regenerated(
    todo: Speaking, receipts: Sequence[Receipt], parameters: RegenerateParameters, run: Run
) -> RunManifest:
    """Publish ``regenerated`` and ``rejects`` under the run's own partition, its manifest last; returns the manifest.

    Its members are the utterances selected. Raises VoxmillError where the counts do not add up or all shards failed.
    """
    destination, storage = parameters.destination, parameters.storage
    staging = _staging(todo, parameters)
    check_counts(todo.plan, receipts)
    ordered = in_plan_order(todo.plan, receipts)
    finished = [receipt for receipt in ordered if not receipt.failed]
    failed = [receipt for receipt in ordered if receipt.failed]
    if failed and not finished:
        raise VoxmillError(f"all {len(failed)} shards failed, the first with {failed[0].failed}", failed[0].archive_uri)
    run = after_published(run, destination, storage)
    parts = parts_of(finished, f"run_date={run.date}/run_id={run.id}", parameters.max_file_mb << 20)
    files = write_parts(parts, destination, staging, storage)
    quality = schema_of("quality").empty_table()
    manifest = manifest_of(run, todo.plan, parameters, finished, failed, files, quality, [])  # type: ignore[arg-type]
    manifest = manifest.model_copy(update={"kind": "regenerate", **regenerated_hours(files, destination, storage)})
    url = Layout(destination=destination).manifest(run.id)
    logger = get_run_logger()
    if left := commit(manifest, finished, url, staging, storage):
        logger.warning(left)
    logger.info("Run %s is published: %s", run.id, url)
    return manifest


def _staging(todo: Speaking, parameters: RegenerateParameters) -> Staging:
    layout = Layout(destination=parameters.destination)
    return Staging(layout.staging(todo.plan.fingerprint), parameters.storage)
