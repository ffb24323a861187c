"""Write a selection of a run's clips out for training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from pydantic import ValidationError

from schemas.config import ExportParameters, Recipe
from schemas.errors import VoxmillError
from schemas.manifest import RunManifest
from schemas.records import Archive, Layout
from tasks.runs import find_manifest, latest_manifest
from tasks.select import select
from workers.export.clip import Clip, name_of
from workers.export.manifests import Manifests
from workers.export.originals import originals
from workers.export.published import blobs
from workers.sound import encoded
from workers.storage import open_filesystem, put_bytes

Row = dict[str, Any]


@dataclass(frozen=True)
class Exported:
    """What an export has written: clips, their hours, and those of the selection that it left out, by reason."""

    folder: str
    clips: int
    hours: float
    without_text: int
    lost: int


@task(name="export", cache_policy=NO_CACHE)
def export(parameters: ExportParameters) -> Exported:
    """Write the selected clips and the manifests over them, the manifests last.

    A clip without a text is left out and counted; so is an original whose recording is gone. Raises VoxmillError where
    the condition is refused, the run has no such clips, or nothing is left to write.
    """
    storage, folder = parameters.storage, parameters.folder
    manifest = _manifest(parameters)
    fs, root = open_filesystem(folder, storage)
    manifests = Manifests(parameters.formats, folder)
    clips, seconds, without_text, lost = 0, 0.0, 0, 0
    for clip in _clips(manifest, parameters):
        if clip is None:
            lost += 1
        elif not clip.text.strip():
            without_text += 1
        else:
            put_bytes(fs, f"{root}/{clip.name}", clip.data)
            manifests.add(clip)
            clips, seconds = clips + 1, seconds + clip.duration_s
    if not clips:
        left_out = f"; {without_text} have no text, {lost} no recording any more" if without_text + lost else ""
        what = f"no {parameters.clips} clip of run {manifest.run_id} is chosen{left_out}"
        raise VoxmillError(what, parameters.destination, "Look at the condition (--where) and the text asked for")
    for name, data in manifests.files().items():
        put_bytes(fs, f"{root}/{name}", data)
    return Exported(folder, clips, seconds / 3600, without_text, lost)


def _manifest(parameters: ExportParameters) -> RunManifest:
    """The run asked for; by default the latest that has clips of this kind."""
    if parameters.run_id or parameters.clips != "regenerated":
        kind = None if parameters.clips == "regenerated" else "corpus"
        return find_manifest(parameters.destination, parameters.run_id, parameters.storage, kind)
    if manifest := latest_manifest(
        parameters.destination, parameters.storage, lambda run: any(file.table == "regenerated" for file in run.files)
    ):
        return manifest
    raise VoxmillError("nothing has been regenerated here yet", parameters.destination, "Start: voxmill regenerate")


def _clips(manifest: RunManifest, parameters: ExportParameters) -> Iterator[Clip | None]:
    destination, storage, where = parameters.destination, parameters.storage, parameters.where
    if parameters.clips == "regenerated":
        source = manifest
        if manifest.kind == "regenerate":
            source = find_manifest(destination, manifest.parameters.get("run_id"), storage)
        rows = select(manifest, destination, where or "kept", storage, "regenerated", source).to_pylist()
        spoken = {(row["utterance_id"], row["voice"]): row for row in rows}
        for row, blob in blobs(manifest.files, "regenerated", ("utterance_id", "voice"), spoken, destination, storage):
            yield _regenerated(row, blob)
        return
    rows = select(manifest, destination, where, storage).to_pylist()
    if parameters.clips == "denoised":
        chosen = {(row["utterance_id"],): row for row in rows}
        for row, blob in blobs(manifest.files, "audio", ("utterance_id",), chosen, destination, storage):
            yield _recorded(row, blob["audio"]["bytes"], blob["sample_rate"], blob["duration_s"], parameters.text)
        return
    recipe = _recipe(manifest, destination)
    archives = [Archive(one.uri, Layout(one.layout)) for one in manifest.archives if one.layout]
    rate = recipe.audio.sample_rate
    for row, samples in originals(rows, archives, recipe, storage):
        if isinstance(samples, str):
            get_run_logger().warning("%s, %s: %s", row["archive"], row["member"], samples)
            yield None
        else:
            yield _recorded(row, encoded(samples, rate), rate, len(samples) / rate, parameters.text)


def _regenerated(row: Row, blob: Row) -> Clip:
    clip_id = f"{row['utterance_id']}-{row['voice']}"
    return Clip(
        id=clip_id,
        name=name_of(clip_id, blob["audio"]["path"].rpartition(".")[2]),
        data=blob["audio"]["bytes"],
        text=row["text"],
        spoken_text=row["spoken_text"],
        duration_s=blob["duration_s"],
        sample_rate=blob["sample_rate"],
        language=row["language"],
        speaker=row["voice"],  # whose voice it is now
        **_keys(row),
    )


def _recorded(
    row: Row, data: bytes, rate: int, duration_s: float, text: Literal["reference", "transcript", "either"]
) -> Clip:
    reference = row["reference"] if row["reference_scope"] == "utterance" and text != "transcript" else None
    return Clip(
        id=row["utterance_id"],
        name=name_of(row["utterance_id"], "flac"),
        data=data,
        text=reference or (row["transcript"] if text != "reference" else None) or "",
        duration_s=duration_s,
        sample_rate=rate,
        language=row["language"],
        speaker=row["speaker"],
        **_keys(row),
    )


def _keys(row: Row) -> dict[str, str]:
    return {name: row[name] for name in ("utterance_id", "archive", "member")}


def _recipe(manifest: RunManifest, destination: str) -> Recipe:
    try:
        return Recipe.model_validate(manifest.parameters["recipe"])
    except (KeyError, ValidationError) as error:
        what = f"the recipe of run {manifest.run_id} cannot be read ({' '.join(str(error).split())})"
        raise VoxmillError(what, destination, "Choose a corpus run of this version of voxmill") from None
