"""Clips of a published run, written out with the manifests that trainers read."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.corpus import STORAGE
from flows.credentials import access
from flows.form import described
from flows.identity import run_name
from schemas.config import (
    Clips,
    Destination,
    ExportParameters,
    Folder,
    Formats,
    RunId,
    SpokenText,
    Storage,
    Where,
)
from tasks.export import Exported
from tasks.export import export as write_out
from tasks.wording import count
from workers.storage import absolute_url


@flow(name="export", flow_run_name=run_name)
@described
def export(
    destination: Destination,
    folder: Folder,
    clips: Clips = "original",
    run_id: RunId = None,
    where: Where = None,
    text: SpokenText = "either",
    formats: Formats = ("nemo", "huggingface", "lhotse"),
    storage: Storage = STORAGE,
) -> State[Exported]:
    """Write original, denoised or regenerated clips out, with manifests for NeMo, Hugging Face and Lhotse."""
    parameters = ExportParameters(
        destination=absolute_url(destination), folder=absolute_url(folder), clips=clips, run_id=run_id, where=where,
        text=text, formats=formats, storage=storage,
    )  # fmt: skip
    with access(storage):
        done = write_out(parameters)
    left_out = [f"{done.without_text:,} without text"] if done.without_text else []
    left_out += [f"{done.lost:,} whose recording is gone"] if done.lost else []
    rest = f"; left out: {', '.join(left_out)}" if left_out else ""
    return Completed(
        name="Exported", message=f"{done.folder}: {count(done.clips, 'clip')}, {done.hours:.2f} h{rest}", data=done
    )
