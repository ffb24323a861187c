"""How a shard's rows are scored, beyond what :mod:`workers.quality` does."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.config import Recipe
from workers.scoring import score_rows


@pytest.mark.parametrize(("task", "text"), [("transcribe", "i can t"), ("translate", "i can not")])
def test_a_translation_is_scored_as_english(task: str, text: str) -> None:
    engine = "whisper:tiny"
    utterance: dict[str, Any] = {
        "utterance_id": "u",
        "language": "de",
        "reference": None,
        "transcript_engine": engine,
        "transcript_input": "raw",
        "duration_s": 1.0,
    }
    transcript = {"utterance_id": "u", "engine": engine, "input": "raw", "text": "I can't"}
    score_rows([utterance], [transcript], Recipe.model_validate({"asr": {"transcribers": [engine], "task": task}}))
    assert transcript["normalized_text"] == text


@pytest.mark.parametrize(
    ("scope", "heard", "deletions"), [("recording", 2, 0), ("recording", 1, None), ("partial", 2, None)]
)
def test_a_lost_piece_is_no_error_of_the_others(scope: str, heard: int, deletions: int | None) -> None:
    engine = "whisper:tiny"
    utterances: list[dict[str, Any]] = [
        {
            "utterance_id": name, "member_key": "m", "channel": 0, "start_s": start, "duration_s": 1.0,
            "language": "en", "reference": "a b c d", "reference_scope": scope,
            "transcript_engine": engine, "transcript_input": "raw",
        }
        for name, start in (("u", 0.0), ("v", 1.0))
    ]  # fmt: skip
    texts = {"u": "a b", "v": "c d"}
    transcripts: list[dict[str, Any]] = [
        {"utterance_id": one["utterance_id"], "engine": engine, "input": "raw", "text": texts[one["utterance_id"]]}
        for one in utterances[:heard]
    ]
    score_rows(utterances, transcripts, Recipe.model_validate({"asr": {"transcribers": [engine]}}))
    assert [row.get("deletions") for row in transcripts] == [deletions] * heard
    assert all(row["normalized_text"] for row in transcripts)


@pytest.mark.parametrize(
    ("asr", "flags"),
    [
        ({}, ["low_confidence"]),
        ({"logprob_threshold": None}, ["low_confidence"]),
        ({"logprob_threshold": -1.5}, []),
        ({"no_speech_threshold": 0.2}, ["music_or_noise", "low_confidence", "probable_hallucination"]),
        ({"compression_ratio_threshold": 1.1}, ["repetition", "low_confidence"]),
    ],
)
def test_flags_follow_the_guards_of_the_settings(asr: dict[str, float | None], flags: list[str]) -> None:
    engine = "whisper:tiny"
    utterance: dict[str, Any] = {
        "utterance_id": "u", "language": "en", "reference": None, "transcript_engine": engine,
        "transcript_input": "raw", "duration_s": 3.0, "speech_ratio": 0.9,
    }  # fmt: skip
    transcript = {
        "utterance_id": "u", "engine": engine, "input": "raw", "text": "a quick fox jumps over a lazy dog",
        "avg_logprob": -1.2, "no_speech_prob": 0.4, "compression_ratio": 1.2,
    }  # fmt: skip
    score_rows([utterance], [transcript], Recipe.model_validate({"asr": {"transcribers": [engine], **asr}}))
    assert utterance["flags"] == flags
