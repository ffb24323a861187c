"""Build a published run's quality report again, from its Parquet alone."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.credentials import access
from flows.form import described
from flows.identity import run_name
from schemas.config import Compare, Destination, RunId, Storage
from schemas.errors import VoxmillError
from tasks.report import report as write_page
from tasks.runs import find_manifest
from tasks.summary import headline
from workers.storage import absolute_url

STORAGE = Storage()


@flow(name="report", flow_run_name=run_name)
@described
def report(
    destination: Destination, run_id: RunId = None, compare: Compare = None, storage: Storage = STORAGE
) -> State[str]:
    """Build the quality report of a published run again; the path of the page is the result.

    Given two runs to compare, the page is the second's report against the first.
    """
    root = absolute_url(destination)
    first, second = compare or (None, run_id)
    if compare and run_id:
        raise VoxmillError("a run id beside the two to compare", "compare", "Give two runs, and nothing beside them")
    with access(storage):
        manifest = find_manifest(root, second, storage)
        page = write_page(manifest, root, storage, find_manifest(root, first, storage) if first else None)
    return Completed(name="Reported", message=f"{page}: {headline(manifest)}", data=page)
