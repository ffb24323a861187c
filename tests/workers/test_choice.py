"""``asr.chosen_input: auto`` goes by evidence, settles every row it can, and can be done again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.config import AsrSettings, Recipe, Storage
from schemas.records import Receipt
from workers.arrow import table_of
from workers.publishing import choose_input
from workers.receipts import Staging
from workers.scoring import score_rows

ENGINE, STORAGE = "whisper:x", Storage()
RECIPE = Recipe(asr=AsrSettings(transcribers=(ENGINE,), chosen_input="auto"))
WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "old", "dog"]


def stage(folder: Path, rates: dict[str, float], references: bool = True) -> tuple[Staging, list[Receipt]]:
    """A shard of twelve speakers, whose words are misheard at the rates of each input; one clip is not denoised."""
    staging, rng = Staging(str(folder), STORAGE), np.random.default_rng(3)
    utterances: list[dict[str, Any]] = []
    transcripts: list[dict[str, Any]] = []
    for at in range(120):
        keys = {"utterance_id": f"a{at}", "archive": "/a.tar", "member": f"a{at}.wav"}
        for heard, rate in rates.items():
            if (at, heard) != (5, "denoised"):
                words = [word if rng.random() > rate else "noise" for word in WORDS]
                transcripts.append(keys | {"engine": ENGINE, "input": heard, "text": " ".join(words)})
        utterances.append(keys | {
            "member_key": f"a{at}", "language": "en", "speaker": f"speaker-{at % 12}", "duration_s": 4.0,
            "reference": " ".join(WORDS) if references else None, "reference_scope": "utterance",
            "transcript": next(row["text"] for row in transcripts if row["utterance_id"] == keys["utterance_id"]),
            "transcript_engine": ENGINE, "transcript_input": "raw",
        })  # fmt: skip
    score_rows(utterances, transcripts, RECIPE)
    files = tuple(
        staging.put_table("a", name, table_of(name, some))
        for name, some in (("utterances", utterances), ("transcripts", transcripts))
    )
    receipt = Receipt("a", "/a.tar", 0, 120, 120, 0, 120, 480.0, files=files)
    staging.put_receipt(receipt)
    return staging, [receipt]


def rows(staging: Staging, receipts: list[Receipt], table: str) -> list[dict[str, Any]]:
    return [row for one in receipts for file in one.files if file.table == table
            for row in staging.read(file).to_pylist()]  # fmt: skip


def test_denoised_is_chosen_where_it_is_shown_to_help(tmp_path: Path) -> None:
    staging, receipts = stage(tmp_path, {"raw": 0.3, "denoised": 0.1})
    settled, why = choose_input(receipts, RECIPE, staging, STORAGE)
    assert why.startswith("denoised, as denoising changes whisper:x's WER on 119 utterances")
    assert why.endswith("lower")
    heard = {(row["utterance_id"], row["input"]): row for row in rows(staging, settled, "transcripts")}
    for row in rows(staging, settled, "utterances"):
        chosen = heard[row["utterance_id"], row["transcript_input"]]
        assert row["transcript_input"] == ("raw" if row["utterance_id"] == "a5" else "denoised")
        assert (row["transcript"], row["wer"], row["cer"]) == (chosen["text"], chosen["wer"], chosen["cer"])
    assert staging.receipts(["a"]) == [replace(one, resumed=True) for one in settled]
    assert choose_input(settled, RECIPE, staging, STORAGE) == (settled, why)


@pytest.mark.parametrize(
    ("rates", "references", "words"),
    [
        ({"raw": 0.1, "denoised": 0.3}, True, "higher"),
        ({"raw": 0.2, "denoised": 0.2}, True, "no difference shown"),
        ({"raw": 0.3, "denoised": 0.1}, False, "nothing with a reference"),
        ({"raw": 0.1}, True, "nothing with a reference"),
    ],
)
def test_raw_stays_where_it_is_not(tmp_path: Path, rates: dict[str, float], references: bool, words: str) -> None:
    staging, receipts = stage(tmp_path, rates, references)
    settled, why = choose_input(receipts, RECIPE, staging, STORAGE)
    assert why.startswith("raw, as ")
    assert words in why
    assert settled == receipts


def test_without_auto_nothing_is_touched(tmp_path: Path) -> None:
    staging = Staging(str(tmp_path), STORAGE)
    assert choose_input([], Recipe(), staging, STORAGE) == ([], "")
