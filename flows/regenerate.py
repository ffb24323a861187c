"""Speak the texts of a published run afresh: clean speech, heard again and compared with its text."""

from __future__ import annotations

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.corpus import CLUSTER, NOTHING_NEW, STORAGE, fingerprint_of, finished, untouched
from flows.credentials import access
from flows.form import described
from flows.identity import new_run, run_name
from schemas.config import (
    Cluster,
    Destination,
    MaxFileMb,
    MaxRoundTripWer,
    RegenerateParameters,
    RoundTrip,
    RunId,
    SpokenText,
    Storage,
    TtsSettings,
    Voice,
    Voices,
    Where,
)
from schemas.ids import stable_id
from schemas.manifest import RunManifest
from tasks.regenerate import kept_hours, publish_regenerated, recipe_for, speak, speaking
from tasks.runs import find_manifest
from tasks.select import select
from tasks.wording import count
from workers.cluster import connect
from workers.storage import absolute_url


@flow(name="regenerate", flow_run_name=run_name)
@described
def regenerate(
    destination: Destination,
    tts: Voice,
    run_id: RunId = None,
    where: Where = None,
    text: SpokenText = "either",
    voices: Voices = (),
    round_trip: RoundTrip = None,
    max_wer: MaxRoundTripWer = 0.2,
    storage: Storage = STORAGE,
    cluster: Cluster = CLUSTER,
    max_file_mb: MaxFileMb = 256,
) -> State[RunManifest | None]:
    """Regenerate clean speech for the utterances of a published run, into the same destination's ``regenerated``."""
    parameters = RegenerateParameters(
        destination=absolute_url(destination),
        run_id=run_id,
        where=where,
        text=text,
        tts=TtsSettings(synthesizer=tts, voices=voices, max_wer=max_wer),
        round_trip=round_trip,
        storage=storage,
        cluster=cluster,
        max_file_mb=max_file_mb,
    )
    run = new_run()
    with access(storage):
        source = find_manifest(parameters.destination, run_id, storage)
        recipe = recipe_for(source, parameters)
        fingerprint = stable_id("regenerate", source.run_id, fingerprint_of(recipe, storage), length=16)
        rows = select(source, parameters.destination, where, storage)
        get_run_logger().info("Run %s speaks %s of run %s", run.id, count(rows.num_rows, "utterance"), source.run_id)
        if not rows.num_rows:
            return Completed(name=NOTHING_NEW, message=f"No utterance of run {source.run_id} is chosen.")
        todo = speaking(rows, source, recipe, fingerprint, parameters)
        with connect(cluster, storage):
            receipts = speak(untouched(todo), parameters, run)
            manifest = publish_regenerated(untouched(todo), untouched(receipts), parameters, run)
        kept, made = kept_hours(manifest, parameters.destination, storage)
    return finished(manifest, f"; {kept:.2f} of {made:.2f} h made are kept after the round trip")
