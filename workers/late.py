"""References of a one-way stream that came after their audio: joined to rows that are staged already."""

from __future__ import annotations

import pyarrow as pa

from schemas.config import Recipe, Storage
from schemas.ids import stable_id
from schemas.records import Receipt
from schemas.tables import LEDGER
from workers.arrow import table_of
from workers.receipts import Staging
from workers.scoring import SCORED, score_rows
from workers.write import LEDGER_TABLE, word_errors

Sides = dict[str, dict[str, str | None]]  # member -> text, language, speaker


def apply_late(receipt: Receipt, sides: Sides, recipe: Recipe, staging_url: str, storage: Storage) -> Receipt:
    """Score a staged shard again with the side data in ``sides``; returns the receipt that now holds."""
    staging = Staging(staging_url, storage)
    ledger = staging.rows(receipt, LEDGER_TABLE)
    if not any(row["member"] in sides for row in ledger):
        return receipt
    utterances = staging.rows(receipt, "utterances")
    transcripts = staging.rows(receipt, "transcripts")
    for row in utterances:
        row.update(_given(sides.get(row["member"], {})))
    for transcript in transcripts:  # a text may turn out to be another recording's
        transcript.update(dict.fromkeys(SCORED))
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
    return staging.replace(receipt, written, words=word_errors(transcripts))


def _given(side: dict[str, str | None]) -> dict[str, str | None]:
    """Columns of an utterance. The language may be one that was heard: only another one takes its place."""
    columns = {"text": "reference", "language": "language", "speaker": "speaker"}
    return {columns[name]: value for name, value in side.items() if value is not None or name != "language"}
