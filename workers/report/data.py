"""A published run as tables: the files its manifest names, the columns a report needs."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyarrow.fs import FSSpecHandler, PyFileSystem
from pydantic import ValidationError

from schemas.config import Storage
from schemas.manifest import RunManifest
from schemas.tables import schema_of
from workers.quality.scored import TRANSCRIPT_COLUMNS, UTTERANCE_COLUMNS
from workers.storage import open_filesystem

UTTERANCES = (
    *UTTERANCE_COLUMNS, "start_s", "end_s", "wer", "agreement_wer", "snr_denoised_db", "speech_ratio", "flags",
)  # fmt: skip
TRANSCRIPTS = (
    *TRANSCRIPT_COLUMNS, "avg_logprob", "no_speech_prob", "compression_ratio",
)  # fmt: skip
TEXTS = ("utterance_id", "engine", "input", "text", "normalized_text", "normalized_reference", "wer")
REGENERATED = ("voice", "engine", "text_source", "duration_s", "round_trip_engine", "round_trip_wer", "kept")


@dataclass(frozen=True)
class Reader:
    """Reads the tables of one run under ``destination``."""

    manifest: RunManifest
    destination: str
    storage: Storage

    def dataset(self, table: str) -> ds.Dataset:
        """All published files of ``table``; of none, an empty dataset of its schema."""
        fs, root = open_filesystem(self.destination, self.storage)
        paths = [f"{root}/{file.path}" for file in self.manifest.files if file.table == table]
        schema = schema_of(table)
        if not paths:
            return ds.dataset(schema.empty_table())
        return ds.dataset(paths, schema=schema, format="parquet", filesystem=PyFileSystem(FSSpecHandler(fs)))

    def read(self, table: str, columns: Sequence[str], where: pc.Expression | None = None) -> pa.Table:
        """``columns`` of ``table``, the rows for which ``where`` holds."""
        return self.dataset(table).to_table(columns=list(columns), filter=where).replace_schema_metadata(None)

    def utterances(self) -> pa.Table:
        return self.read("utterances", UTTERANCES)

    def transcripts(self) -> pa.Table:
        return self.read("transcripts", TRANSCRIPTS)

    def tables(self) -> tuple[pa.Table, pa.Table]:
        """:meth:`utterances` and :meth:`transcripts`."""
        return self.utterances(), self.transcripts()

    def texts(self, ids: pa.Array) -> pa.Table:
        """The texts of some utterances, all engines and inputs."""
        return self.read("transcripts", TEXTS, pc.field("utterance_id").isin(ids))

    def audio(self, ids: Sequence[str]) -> dict[str, dict[str, bytes]]:
        """FLAC bytes of a few utterances by id, then by input (``raw`` is published of few utterances only).

        Reads the blobs of the row groups that hold them only.
        """
        columns = {"raw": "raw", "audio": "denoised"}
        found = self.read("audio", ("utterance_id", *columns), pc.field("utterance_id").isin(list(ids)))
        return {
            row["utterance_id"]: {heard: row[name]["bytes"] for name, heard in columns.items() if row[name]}
            for row in found.to_pylist()
        }


def last_comparable(manifest: RunManifest, destination: str, storage: Storage) -> RunManifest | None:
    """The last run before this one that it can be compared with; None where there is none.

    Manifests that this version cannot read are passed over.
    """
    fs, root = open_filesystem(destination, storage)
    try:
        names = [path for path in fs.ls(f"{root}/_runs", detail=False) if path.endswith(".json")]
    except FileNotFoundError:
        return None
    for path in sorted(names, reverse=True):  # run ids begin with the time a run started
        if posixpath.basename(path).removesuffix(".json") >= manifest.run_id:
            continue
        try:
            found = RunManifest.model_validate_json(fs.cat_file(path))
        except ValidationError:
            continue
        if comparable(manifest, found):
            return found
    return None


def comparable(now: RunManifest, before: RunManifest) -> bool:
    """Whether ``before`` is a yardstick for ``now``: it published something of the same kind, from at least one of the
    same sources, scored by the same normaliser, passed its gate, and has references if ``now`` has."""

    def normalizer(run: RunManifest) -> Any:
        return ((run.parameters.get("recipe") or {}).get("asr") or {}).get("normalizer")

    return (
        before.kind == now.kind
        and before.utterances > 0
        and before.status != "failed_quality"
        and bool(set(before.parameters.get("sources") or ()) & set(now.parameters.get("sources") or ()))
        and normalizer(before) == normalizer(now)
        and bool(before.word_errors) >= bool(now.word_errors)
    )
