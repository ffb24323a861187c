"""References of a one-way stream that came after their audio: joined to rows that are staged already."""

from __future__ import annotations

import dataclasses
from typing import Any

import pyarrow as pa

from schemas.config import Recipe, Storage
from schemas.ids import stable_id
from schemas.records import Receipt, StagedFile
from schemas.tables import LEDGER
from workers.arrow import table_of
from workers.receipts import Staging
from workers.scoring import score_rows
from workers.write import LEDGER_TABLE, word_errors

Sides = dict[str, dict[str, str | None]]  # member -> text, language, speaker


def apply_late(receipt: Receipt, sides: Sides, recipe: Recipe, staging_url: str, storage: Storage) -> Receipt:
    """Score a staged shard again with the side data in ``sides``; the files are overwritten, so doing it twice is
    doing it once. Returns the receipt that now holds; the staged one is replaced."""
    staging = Staging(staging_url, storage)
    tables = {file.table: file for file in receipt.files}
    ledger = staging.read(tables[LEDGER_TABLE]).to_pylist()
    if not any(row["member"] in sides for row in ledger):
        return receipt
    utterances = staged_rows(staging, tables.get("utterances"))
    transcripts = staged_rows(staging, tables.get("transcripts"))
    for row in utterances:
        row.update(_given(sides.get(row["member"], {})))
    score_rows(utterances, transcripts, recipe)
    for row in ledger:
        if row["member"] in sides:
            side = sides[row["member"]]
            row["side"] = stable_id("side", side["text"], side["language"], side["speaker"])
    written = {LEDGER_TABLE: pa.Table.from_pylist(ledger, LEDGER)}
    if utterances:
        written |= {
            "utterances": table_of("utterances", utterances),
            "transcripts": table_of("transcripts", transcripts),
        }
    files = [staging.put_table(receipt.shard_id, name, table) for name, table in written.items()]
    kept = [file for file in receipt.files if file.table not in written]
    receipt = dataclasses.replace(receipt, files=(*kept, *files), words=word_errors(transcripts))
    staging.put_receipt(receipt)
    return receipt


def staged_rows(staging: Staging, file: StagedFile | None) -> list[dict[str, Any]]:
    """Rows of a staged file; none where there is no such file."""
    return staging.read(file).to_pylist() if file else []


def _given(side: dict[str, str | None]) -> dict[str, str | None]:
    columns = {"text": "reference", "language": "language", "speaker": "speaker"}
    return {columns[name]: value for name, value in side.items() if value is not None}
