"""Scores of utterances and transcripts, added to their rows; run again where references arrive after their audio."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from schemas.config import AsrSettings, Recipe
from workers.quality.flags import Evidence, Limits, flags
from workers.quality.normalize import normalize, scoring_language
from workers.quality.pieces import score_pieces
from workers.quality.score import Score, score_many

Row = dict[str, Any]

SCORED = ("normalized_reference", "hits", "substitutions", "deletions", "insertions", "wer", "cer", "reference_chars",
          "char_errors")  # fmt: skip
"""Columns of a transcript that only one with a reference has."""


def score_rows(utterances: list[Row], transcripts: list[Row], recipe: Recipe) -> None:
    """Fill, in place, the scored columns of both tables' rows from their texts.

    A transcript whose utterance has a reference gets counts and rates; the utterance gets those of its chosen
    transcript, the agreement of the first two engines on raw audio, and its flags.
    """
    owners = {row["utterance_id"]: row for row in utterances}
    translated = "en" if recipe.asr.task == "translate" else None
    languages = {
        key: scoring_language(translated or row["language"], recipe.asr.normalizer) for key, row in owners.items()
    }
    _score_transcripts(transcripts, owners, languages)
    heard = {(row["utterance_id"], row["engine"], row["input"]): row for row in transcripts}
    _agreement(utterances, heard, recipe.asr.transcribers, languages)
    limits = _limits(recipe.asr)
    for row in utterances:
        chosen = heard.get((row["utterance_id"], row["transcript_engine"], row["transcript_input"]), {})
        row["wer"], row["cer"] = chosen.get("wer"), chosen.get("cer")
        others = [heard.get((row["utterance_id"], engine, "raw")) for engine in recipe.asr.transcribers[1:2]]
        row["flags"] = flags(_evidence(row, chosen, next((other for other in others if other), {})), limits)


def _limits(asr: AsrSettings) -> Limits:
    """The guards of the settings; Whisper's own where one is left out, for what was let through is odd all the same."""
    given = {
        "compression_ratio": asr.compression_ratio_threshold,
        "avg_logprob": asr.logprob_threshold,
        "no_speech_prob": asr.no_speech_threshold,
    }
    return Limits(**{name: value for name, value in given.items() if value is not None})


def _evidence(utterance: Row, chosen: Row, second: Row) -> Evidence:
    """What is known of one utterance; ``second`` is the second engine's transcript of it, empty where there is none."""
    return Evidence(
        duration_s=utterance["duration_s"],
        transcript=chosen.get("normalized_text") or "",
        reference=chosen.get("normalized_reference"),
        second_transcript=second.get("normalized_text"),
        given_language=utterance["language"],
        heard_language=chosen.get("language"),
        detected_language=chosen.get("detected_language"),
        detected_probability=chosen.get("detected_probability"),
        snr_db=utterance.get("snr_db"),
        clipped_ratio=utterance.get("clipped_ratio"),
        speech_ratio=utterance.get("speech_ratio"),
        avg_logprob=chosen.get("avg_logprob"),
        no_speech_prob=chosen.get("no_speech_prob"),
        compression_ratio=chosen.get("compression_ratio"),
        wer=chosen.get("wer"),
        second_wer=second.get("wer"),
        agreement_wer=utterance.get("agreement_wer"),
    )


def _score_transcripts(transcripts: list[Row], owners: dict[str, Row], languages: dict[str, str | None]) -> None:
    """Texts as scored; counts where there is a reference, of the utterance or of the recording it is a piece of."""
    for row in transcripts:
        row["normalized_text"] = normalize(row["text"], languages[row["utterance_id"]])
    scored = [row for row in transcripts if owners[row["utterance_id"]]["reference"] is not None]
    whole = [row for row in scored if owners[row["utterance_id"]]["reference_scope"] == "utterance"]
    results = score_many(
        [owners[row["utterance_id"]]["reference"] for row in whole],
        [row["text"] for row in whole],
        [languages[row["utterance_id"]] for row in whole],
    )
    for row, result in zip(whole, results, strict=True):
        row.update(_columns(result))
    for pieces in _recordings(scored, owners):
        owner = owners[pieces[0]["utterance_id"]]
        parts = score_pieces(owner["reference"], [row["text"] for row in pieces], languages[owner["utterance_id"]])
        for row, result in zip(pieces, parts, strict=True):
            row.update(_columns(result))


def _recordings(scored: list[Row], owners: dict[str, Row]) -> Iterable[list[Row]]:
    """Transcripts of the pieces of each cut recording, in time order, per channel, engine and input.

    Only recordings of which every piece was heard: the words of one that was lost, or that this engine has refused,
    would count as errors of the others.
    """
    recordings: dict[tuple[Any, ...], list[Row]] = {}
    pieces_of = [one for one in owners.values() if one.get("reference_scope") == "recording"]
    cut = Counter((one["member_key"], one["channel"]) for one in pieces_of)
    for row in scored:
        owner = owners[row["utterance_id"]]
        if owner["reference_scope"] == "recording":
            key = (owner["member_key"], owner["channel"], row["engine"], row["input"])
            recordings.setdefault(key, []).append(row)
    for key, pieces in recordings.items():
        if len(pieces) < cut[key[:2]]:
            continue
        yield sorted(pieces, key=lambda row: owners[row["utterance_id"]]["start_s"])


def _columns(result: Score) -> Row:
    return {
        "normalized_text": result.normalized_hypothesis,
        "normalized_reference": result.normalized_reference,
        "hits": result.hits,
        "substitutions": result.substitutions,
        "deletions": result.deletions,
        "insertions": result.insertions,
        "wer": result.wer,
        "cer": result.cer,
        "reference_chars": result.reference_chars,
        "char_errors": result.char_errors,
    }


def _agreement(
    utterances: list[Row],
    heard: dict[tuple[str, str, str], Row],
    engines: tuple[str, ...],
    languages: dict[str, str | None],
) -> None:
    if len(engines) < 2:
        return
    pairs = [
        (row, heard[row["utterance_id"], engines[0], "raw"], heard[row["utterance_id"], engines[1], "raw"])
        for row in utterances
        if all((row["utterance_id"], engine, "raw") in heard for engine in engines[:2])
    ]
    results = score_many(
        [first["text"] for _, first, _ in pairs],
        [second["text"] for _, _, second in pairs],
        [languages[row["utterance_id"]] for row, _, _ in pairs],
    )
    for (row, _, _), result in zip(pairs, results, strict=True):
        row["agreement_wer"] = result.wer if result.words else float(result.errors > 0)
