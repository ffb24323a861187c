"""Speak the texts of a published run afresh: clean speech, heard again and compared with its text."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import Field

from flows.corpus import CLUSTER, NOTHING_NEW, STORAGE, fingerprint_of, finished, untouched
from flows.credentials import access, voice_secret
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
    Trusted,
    TtsSettings,
    Voice,
    Voices,
    Where,
)
from schemas.ids import stable_id
from schemas.manifest import RunManifest
from tasks.regenerate import publish_regenerated, recipe_for, speak, speaking
from tasks.runs import find_manifest
from tasks.select import select
from tasks.wording import count, yield_of
from workers.cluster import connect
from workers.storage import absolute_url

SPEECH = TtsSettings()


def _settled(speech: TtsSettings, **short: Any) -> TtsSettings:
    """``speech`` with the form's short fields in it; one left unset leaves it as it is."""
    return TtsSettings(**{**speech.model_dump(), **{name: value for name, value in short.items() if value is not None}})


@flow(name="regenerate", flow_run_name=run_name)
@described
def regenerate(
    destination: Destination,
    tts: Voice,
    run_id: RunId = None,
    where: Where = None,
    text: SpokenText = "either",
    voices: Annotated[Voices | None, Field(description="short for speech.voices")] = None,
    round_trip: Annotated[RoundTrip, Field(description="short for speech.round_trip")] = None,
    max_wer: Annotated[MaxRoundTripWer | None, Field(description="short for speech.max_wer")] = None,
    speech: TtsSettings = SPEECH,
    storage: Storage = STORAGE,
    cluster: Cluster = CLUSTER,
    trusted: Trusted = (),
    max_file_mb: MaxFileMb = 256,
) -> State[RunManifest | None]:
    """Regenerate clean speech for the utterances of a published run, into the same destination's ``regenerated``."""
    parameters = RegenerateParameters(
        destination=absolute_url(destination),
        run_id=run_id,
        where=where,
        text=text,
        tts=_settled(speech, synthesizer=tts, voices=voices, round_trip=round_trip, max_wer=max_wer),
        storage=storage,
        cluster=cluster,
        trusted=trusted,
        max_file_mb=max_file_mb,
    )
    run = new_run()
    with access(storage), voice_secret(parameters.tts):
        source = find_manifest(parameters.destination, run_id, storage)
        parameters = parameters.model_copy(update={"run_id": source.run_id})  # the manifest names what was spoken
        recipe = recipe_for(source, parameters)
        settings = fingerprint_of(recipe, (tts, recipe.round_trip), storage, trusted)
        fingerprint = stable_id("regenerate", source.run_id, settings, length=16)
        rows = select(source, parameters.destination, where, storage)
        get_run_logger().info("Run %s speaks %s of run %s", run.id, count(rows.num_rows, "utterance"), source.run_id)
        if not rows.num_rows:
            return Completed(name=NOTHING_NEW, message=f"No utterance of run {source.run_id} is chosen.")
        todo = speaking(rows, source, recipe, fingerprint, parameters)
        with connect(cluster, storage):
            receipts = speak(untouched(todo), parameters, run)
            manifest = publish_regenerated(untouched(todo), untouched(receipts), parameters, run)
    return finished(manifest, f"; {yield_of(manifest.kept_hours, manifest.regenerated_hours)}")
