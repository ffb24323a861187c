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
