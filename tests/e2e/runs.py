"""The corpus flow run in this process, and its published files read by following the manifest, as readers should."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.config import Cluster, Recipe, Storage
from schemas.manifest import RunManifest
from workers.storage import open_filesystem


@dataclass(frozen=True)
class Mill:
    """Runs the flow with fixed engines, on the Ray and the Prefect of the test session.

    Whisper hears fitted windows, for time: what it hears in whole ones is tested with the engine. Each engine is loaded
    once, as loading takes longer than all the work there is.
    """

    transcribers: tuple[str, ...]

    def run(self, sources: Sequence[str | Path], destination: str | Path, **form: Any) -> RunManifest | None:
        """The manifest of a run; None where there was nothing new. Raises what the flow raised."""
        from flows.corpus import corpus

        recipe: Recipe = form.pop("recipe", Recipe())
        recipe = recipe.model_copy(update={"asr": recipe.asr.model_copy(update={"whisper_window": "fitted"})})
        trusted = [spec.partition(":")[2] for spec in self.transcribers]
        form = {"transcribers": self.transcribers, "trusted": trusted, "language": "en", "recipe": recipe, **form}
        form.setdefault("cluster", Cluster(actors=dict.fromkeys(self.transcribers, 1)))
        state = corpus(sources=[str(one) for one in sources], destination=str(destination), return_state=True, **form)
        outcome = state.result(raise_on_failure=False)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome if isinstance(outcome, RunManifest) else None


@dataclass(frozen=True)
class Lake:
    """A destination, read through nothing but its files."""

    url: str
    storage: Storage = field(default_factory=Storage)

    def manifests(self) -> list[dict[str, Any]]:
        """Manifests of the published runs, oldest first, as JSON."""
        fs, folder = open_filesystem(f"{self.url}/_runs", self.storage)
        fs.invalidate_cache()
        return [json.loads(fs.cat_file(name)) for name in sorted(fs.glob(f"{folder}/*.json"))]

    def files(self, table: str, run: int = -1) -> list[str]:
        """URLs of a table's files in one run, the latest by default."""
        return [f"{self.url}/{file['path']}" for file in self.manifests()[run]["files"] if file["table"] == table]

    def rows(self, table: str, run: int = -1) -> list[dict[str, Any]]:
        """Rows of a table in one run, in published order."""
        tables = []
        for url in self.files(table, run):
            fs, path = open_filesystem(url, self.storage)
            tables.append(pq.read_table(pa.BufferReader(fs.cat_file(path))))
        return [row for table_ in tables for row in table_.to_pylist()]

    def digests(self, run: int = -1) -> dict[str, str]:
        """Digest of every published file of a run, by table and file name: run partitions aside."""
        digests = {}
        for file in self.manifests()[run]["files"]:
            fs, path = open_filesystem(f"{self.url}/{file['path']}", self.storage)
            name = file["path"].rpartition("/")[2]
            digests[f"{file['table']}/{name}"] = hashlib.sha256(fs.cat_file(path)).hexdigest()
        return digests
