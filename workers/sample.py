"""The raw audio that is published: of a shard's utterances that most need an ear, so that a report can play them."""

from __future__ import annotations

from typing import Any

from schemas.config import Recipe
from workers.rows import audio_struct
from workers.work import Work

Row = dict[str, Any]

KEPT = 12  # of each shard; a report shows as many of a run, so it has the raw audio of all that it shows
MIN_WORDS = 3  # one wrong word of one or two is 50 or 100% and teaches nothing


def keep_raw(work: Work, rows: dict[str, list[Row]], recipe: Recipe) -> None:
    """Add the raw audio of the worst utterances to their rows of ``audio``; ``rows`` are scored already.

    Nothing where nothing is denoised: ``audio`` is raw then.
    """
    if recipe.denoise.method == "none":
        return
    wanted = set(worst_ids(rows["utterances"], rows["transcripts"]))
    clips = {utterance.id(work.shard.archive.uri): utterance.raw for utterance in work.utterances}
    for row in rows["audio"]:
        if row["utterance_id"] in wanted:
            name = f"{row['utterance_id']}.raw"
            row["raw"] = audio_struct(clips[row["utterance_id"]], work.sample_rate, name)


def worst_ids(utterances: list[Row], transcripts: list[Row]) -> list[str]:
    """Ids of the utterances with the highest WER, or, where nothing has a reference, with the least agreement.

    At most KEPT, none without an error; those of under MIN_WORDS reference words come last, ties in the rows' order.
    """
    chosen = {(row["utterance_id"], row["transcript_engine"], row["transcript_input"]) for row in utterances}
    ranked = [
        (words < MIN_WORDS, -errors / max(words, 1), -errors, row["utterance_id"])
        for row in transcripts
        if (row["utterance_id"], row["engine"], row["input"]) in chosen and row.get("hits") is not None
        for errors in [row["substitutions"] + row["deletions"] + row["insertions"]]
        for words in [row["hits"] + row["substitutions"] + row["deletions"]]
    ]
    if not ranked:
        differing = [(-row["agreement_wer"], row["utterance_id"]) for row in utterances if row.get("agreement_wer")]
        return [one for _, one in sorted(differing, key=lambda pair: pair[0])[:KEPT]]
    return [key[-1] for key in sorted(ranked, key=lambda key: key[:-1]) if key[2] < 0][:KEPT]
