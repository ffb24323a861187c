"""The raw audio that is published: of a shard's utterances that most need an ear, so that a report can play them."""

from __future__ import annotations

from typing import Any

import numpy as np

from schemas.config import Recipe
from workers.quality.worst import by_agreement, by_errors
from workers.rows import audio_struct
from workers.work import Work

Row = dict[str, Any]


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
    """Ids of the utterances that :mod:`workers.quality.worst` puts first: by WER, or by agreement where nothing has a
    reference."""
    heard = {(row["utterance_id"], row["engine"], row["input"]): row for row in transcripts}
    chosen = [heard.get((row["utterance_id"], row["transcript_engine"], row["transcript_input"])) for row in utterances]
    scored = [row for row in chosen if row and row.get("hits") is not None]
    if not scored:
        agreement = np.array([row.get("agreement_wer") for row in utterances], dtype=np.float64)
        return [utterances[at]["utterance_id"] for at in by_agreement(agreement)]
    hits, substitutions, deletions, insertions = (
        np.array([row[name] for row in scored], dtype=np.int64)
        for name in ("hits", "substitutions", "deletions", "insertions")
    )
    worst = by_errors(substitutions + deletions + insertions, hits + substitutions + deletions)
    return [scored[at]["utterance_id"] for at in worst]
