"""The main job, nightly and ad hoc: archives of recorded speech in, published Parquet and a quality report out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, TypeVar, cast

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from prefect.utilities.annotations import quote
from pydantic import Field

from flows.credentials import access, voice_secret
from flows.form import SHORT, described
from flows.identity import new_run, run_name
from schemas.config import (
    Cluster,
    CorpusParameters,
    Destination,
    Gate,
    Language,
    MaxFileMb,
    Prices,
    Recipe,
    Reprocess,
    Sharding,
    Sources,
    Storage,
    Synthesizer,
    Transcribers,
    Trusted,
)
from schemas.errors import VoxmillError
from schemas.families import translators
from schemas.manifest import RunManifest
from schemas.records import Discovery, Plan, Run
from tasks.artifacts import publish_artifacts, tolerated
from tasks.discover import discover
from tasks.gate import emit_breach, failure
from tasks.plan import plan
from tasks.process import clear_finished, process
from tasks.publish import publish
from tasks.report import report
from tasks.runs import published_before
from tasks.summary import headline
from tasks.wording import count
from workers.again import Again, sources_again
from workers.cluster import connect
from workers.engines.checkpoints import check_trusted, checkpoint_digest
from workers.engines.registry import check_ready
from workers.ledger import published, runs_in_force
from workers.sources.discover import check_apart
from workers.storage import absolute_url
from workers.voices import key_digest, voice_key

T = TypeVar("T")

RECIPE, STORAGE, CLUSTER, SHARDING, GATE, PRICES = Recipe(), Storage(), Cluster(), Sharding(), Gate(), Prices()

NOTHING_NEW = "Nothing new"  # names of final states, which Prefect's automations can wait for
PUBLISHED = "Published"
PARTIAL = "Partly published"
FAILED_QUALITY = "Failed quality"


@flow(name="corpus", flow_run_name=run_name)
@described
def corpus(
    sources: Sources,
    destination: Destination,
    transcribers: Annotated[Transcribers | None, Field(description="short for recipe.asr.transcribers")] = None,
    tts: Annotated[Synthesizer, Field(description="short for recipe.tts.synthesizer")] = None,
    language: Annotated[Language, Field(description="short for recipe.asr.language")] = None,
    reprocess: Reprocess = False,
    recipe: Recipe = RECIPE,
    storage: Storage = STORAGE,
    cluster: Cluster = CLUSTER,
    sharding: Sharding = SHARDING,
    gate: Gate = GATE,
    prices: Prices = PRICES,
    trusted: Trusted = (),
    max_file_mb: MaxFileMb = 256,
) -> State[RunManifest | None]:
    """Refine archives of recorded speech into published Parquet tables and a quality report.

    What is published already for the same input and settings is skipped; a stopped run is resumed where it was. A run
    that breaches its gate is published as failed_quality, and fails.
    """
    parameters = parameters_of(
        sources=sources,
        destination=destination,
        transcribers=transcribers,
        tts=tts,
        language=language,
        reprocess=reprocess,
        recipe=recipe,
        storage=storage,
        cluster=cluster,
        sharding=sharding,
        gate=gate,
        prices=prices,
        trusted=trusted,
        max_file_mb=max_file_mb,
    )
    run = new_run()
    with access(storage), voice_secret(parameters.recipe.tts):
        fingerprint = fingerprint_of(parameters.recipe, parameters.recipe.engines, storage, trusted)
        discovery = readable(discover(parameters.sources, storage))
        past = runs_in_force(parameters.destination, storage)
        clear_finished(past, fingerprint, parameters)
        known = published(past, fingerprint)
        planned = plan(untouched(discovery), fingerprint, parameters, untouched(known))
        announce(planned, run)
        again = sources_again(planned.rejects, past)
        if not planned.shards and (again or not planned.rejects):
            return nothing_new(again, run, parameters)
        with connect(cluster, storage):
            receipts = process(untouched(planned), parameters, untouched(known), run)
            manifest = publish(untouched(planned), untouched(receipts), parameters, run)
        if isinstance(manifest, Again):
            return nothing_new(manifest, run, parameters)
        page = ""
        with tolerated("writing its report (voxmill report does it again)"):
            page = report(manifest, parameters.destination, storage)
    publish_artifacts(manifest, parameters.destination, page)
    emit_breach(manifest, parameters.destination, page)
    return finished(manifest)


def untouched(value: T) -> T:
    """``value`` for a task, as it is: Prefect would otherwise visit every member of a plan, in search of futures."""
    return cast(T, quote(value))


def parameters_of(
    recipe: Recipe,
    destination: str,
    transcribers: tuple[str, ...] | None,
    tts: str | None,
    language: str | None,
    **others: Any,
) -> CorpusParameters:
    """The run's parameters from the form: its short fields go into the recipe; one left unset leaves the recipe's.

    Raises VoxmillError where a transcriber cannot do its task, or the destination lies in a source.
    """
    settled = recipe
    for short, value in {"transcribers": transcribers, "tts": tts, "language": language}.items():
        if value is not None:
            group, name = SHORT[short]
            changed = getattr(settled, group).model_copy(update={name: value})
            settled = settled.model_copy(update={group: changed})
    if cannot := settled.asr.cannot_translate:
        can = " and ".join(translators())
        raise VoxmillError(
            f"{', '.join(cannot)} cannot translate; {can} can", "asr.task", "Leave it out of transcribers"
        )
    parameters = CorpusParameters(recipe=settled, destination=absolute_url(destination), **others)
    check_apart(parameters.sources, parameters.destination, parameters.storage)
    return parameters


def fingerprint_of(recipe: Recipe, engines: Sequence[str], storage: Storage, trusted: Sequence[str]) -> str:
    """The recipe's fingerprint with the digests of the local checkpoints of ``engines``, those that are to be loaded.

    Raises VoxmillError at once, before any audio is read, where a checkpoint cannot be had or, being able to run code,
    is not ``trusted``.
    """
    for spec in engines:
        check_trusted(spec, trusted)
        check_ready(spec, storage)
    digests = {spec: checkpoint_digest(spec, storage) for spec in engines}
    if key := voice_key(recipe.tts):
        digests["voice key"] = key_digest(key)
    return recipe.fingerprint({spec: digest for spec, digest in digests.items() if digest is not None})


def readable(discovery: Discovery) -> Discovery:
    """``discovery``, if at least one source can be read; raises VoxmillError that says why none can."""
    if discovery.archives or not discovery.rejects:
        return discovery
    first, others = discovery.rejects[0], len(discovery.rejects) - 1
    more = f" (and {count(others, 'other source')} likewise unreadable)" if others else ""
    raise VoxmillError(
        f"{first.message} [{first.reason}]{more}", first.archive, "No source can be read: nothing was done"
    )


def announce(planned: Plan, run: Run) -> None:
    """Log what this run is going to do, archive by archive."""
    logger = get_run_logger()
    shards: dict[str, list[int]] = {}
    for shard in planned.shards:
        shards.setdefault(shard.archive.uri, []).append(shard.members_in)
    if planned.unopened:
        logger.info("%s done already and unchanged", count(len(planned.unopened), "archive"))
    for archive in planned.archives:
        if archive.uri in planned.unopened:
            continue
        mine, skipped = shards.get(archive.uri, []), planned.skipped.get(archive.uri, 0)
        logger.info(
            "%s: %s in %s, %d published already",
            archive.uri,
            count(sum(mine), "member"),
            count(len(mine), "shard"),
            skipped,
        )
    for reject in planned.rejects:
        logger.warning("%s: %s [%s]", reject.archive, reject.message, reject.reason)
    logger.info("Run %s: %s in %s", run.id, count(planned.members, "member"), count(len(planned.shards), "shard"))


def nothing_new(again: Again | None, run: Run, parameters: CorpusParameters) -> State[RunManifest | None]:
    """The final state of a flow run that publishes nothing: all is published, or rejected ``again`` as before.

    Where a flow run is retried, all may have been published by its first attempt. Then it ends as that one did: a retry
    mends no breached gate.
    """
    if manifest := published_before(run, parameters.destination, parameters.storage):
        return finished(manifest)
    message = str(again) if again else "Everything found is published already for these settings."
    return Completed(name=NOTHING_NEW, message=message)


def finished(manifest: RunManifest, more: str = "") -> State[RunManifest | None]:
    """The flow run's final state, with counts; failed where the gate is breached or shards are left to do, so that
    somebody looks."""
    counts = headline(manifest) + more
    if reason := failure(manifest):
        return Failed(name=FAILED_QUALITY, message=f"{reason} {counts}.", data=manifest)
    if manifest.failed_shards:
        shard, why = next(iter(manifest.failed_shards.items()))
        message = f"{counts}. Run again to finish what failed. Shard {shard}: {why}"
        return Failed(name=PARTIAL, message=message, data=manifest)
    return Completed(name=PUBLISHED, message=counts, data=manifest)
