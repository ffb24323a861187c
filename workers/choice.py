"""``asr.chosen_input: auto``: the chosen transcripts are heard from what the run itself has shown to be better."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from schemas.config import Recipe, Storage
from schemas.records import Receipt
from schemas.spec import short_names
from workers.arrow import table_of
from workers.quality.scored import TRANSCRIPT_COLUMNS, UTTERANCE_COLUMNS, scored
from workers.receipts import Staging
from workers.report.compare import denoising
from workers.report.wording import count, judged
from workers.scoring import score_rows


def choose(receipts: Sequence[Receipt], recipe: Recipe, staging: Staging) -> tuple[str, str]:
    """``raw`` or ``denoised``, and why in a sentence.

    Judged on the first engine's transcripts of every utterance with a reference, by the paired interval. Denoising has
    to show that it helps: where no difference is shown, the raw audio is what the recording really holds.
    """
    engine = recipe.asr.transcribers[0]
    utterances = _columns(receipts, "utterances", UTTERANCE_COLUMNS, staging)
    transcripts = _columns(receipts, "transcripts", TRANSCRIPT_COLUMNS, staging).filter(pc.field("engine") == engine)
    measured = denoising(scored(utterances, transcripts)).get(engine)
    if not measured:
        return "raw", "raw, as nothing with a reference was heard both raw and denoised"
    overall = measured[0][1]
    chosen = "denoised" if overall.shown == "lower" else "raw"
    called = short_names(recipe.asr.transcribers)[engine]
    heard = f"{called}'s WER on {count(overall.utterances, 'utterance')} with a reference"
    return chosen, f"{chosen}, as denoising changes {heard} by {judged(overall)}"


def apply_choice(receipt: Receipt, chosen: str, recipe: Recipe, staging_url: str, storage: Storage) -> Receipt:
    """Choose a staged shard's transcripts heard from ``chosen``, where there are such, and score its utterances again;
    returns the receipt that now holds."""
    staging = Staging(staging_url, storage)
    utterances = staging.rows(receipt, "utterances")
    transcripts = staging.rows(receipt, "transcripts")
    heard = {(row["utterance_id"], row["engine"]): row["text"] for row in transcripts if row["input"] == chosen}
    changed = [
        row
        for row in utterances
        if row["transcript_input"] != chosen and (row["utterance_id"], row["transcript_engine"]) in heard
    ]
    if not changed:
        return receipt
    for row in changed:
        text = heard[row["utterance_id"], row["transcript_engine"]]
        row.update(transcript=text, transcript_input=chosen)
    score_rows(utterances, transcripts, recipe)
    return staging.replace(receipt, {"utterances": table_of("utterances", utterances)})


def _columns(receipts: Sequence[Receipt], table: str, columns: Sequence[str], staging: Staging) -> pa.Table:
    """``columns`` of all staged rows of ``table``."""
    files = [file for receipt in receipts for file in receipt.files if file.table == table]
    pieces = [table_of(table, []), *(staging.read(file) for file in files)]
    return pa.concat_tables([piece.select(list(columns)).replace_schema_metadata(None) for piece in pieces])
