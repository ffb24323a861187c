"""Which raw audio is kept: whatever the cut into shards, that of the worst utterances of the whole run."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from schemas.config import AsrSettings, DenoiseSettings, Recipe
from schemas.records import Archive, Layout, Member, Shard
from workers.quality.worst import KEPT
from workers.sample import keep_raw, worst_ids
from workers.work import Recording, Utterance, Work

Row = dict[str, Any]


def rows(errors: list[tuple[int, int]]) -> tuple[list[Row], list[Row]]:
    """Utterances and their chosen transcripts with (words, substitutions) each, at most all of them wrong."""
    utterances, transcripts = [], []
    for at, (words, wrong) in enumerate(errors):
        wrong = min(words, wrong)
        utterances.append({"utterance_id": f"{at:03}", "transcript_engine": "e", "transcript_input": "raw"})
        counts = {"hits": words - wrong, "substitutions": wrong, "deletions": 0, "insertions": 0}
        transcripts.append({"utterance_id": f"{at:03}", "engine": "e", "input": "raw"} | counts)
        transcripts.append({"utterance_id": f"{at:03}", "engine": "e", "input": "denoised"} | counts | {"hits": 99})
    return utterances, transcripts


@given(st.lists(st.tuples(st.integers(1, 8), st.integers(0, 8)), max_size=60), st.integers(1, 60))
def test_the_worst_of_a_run_are_among_the_worst_of_its_shards(errors: list[tuple[int, int]], size: int) -> None:
    utterances, transcripts = rows(errors)
    kept: list[str] = []
    for start in range(0, len(utterances), size):
        kept += worst_ids(utterances[start : start + size], transcripts[2 * start : 2 * (start + size)])
    whole = worst_ids(utterances, transcripts)
    assert set(whole) <= set(kept)
    assert len(whole) == min(KEPT, sum(wrong > 0 for _, wrong in errors))


def test_without_references_those_the_engines_differ_on_are_kept() -> None:
    utterances, transcripts = rows([(5, 1)] * 3)
    for row, agreement in zip(utterances, (0.2, 0.0, 0.9), strict=True):
        row["agreement_wer"] = agreement
    unscored = [{**row, "hits": None} for row in transcripts]
    assert worst_ids(utterances, unscored) == ["002", "000"]


def test_what_is_kept_is_what_was_there_before_denoising() -> None:
    clip = np.random.default_rng(0).uniform(-0.5, 0.5, 8000).astype(np.float32)
    archive, member = Archive("/a.tar", Layout.TAR), Member("a.wav", 1, "/a.tar", text="x")
    utterance = Utterance(member, Recording("WAV", 16_000, 1, 0.5), None, 0.0, 0.5, clip, denoised=0 * clip)
    work = Work(Shard("s", archive, "f", members=(member,)), 16_000, [utterance])
    found = rows([(4, 2)])
    key = {"utterance_id": utterance.id(archive.uri)}
    for table in found:
        for row in table:
            row.update(key)
    tables = {"utterances": found[0], "transcripts": found[1], "audio": [dict(key)]}
    keep_raw(work, tables, Recipe(asr=AsrSettings(), denoise=DenoiseSettings(method="none")))
    assert "raw" not in tables["audio"][0]
    keep_raw(work, tables, Recipe())
    samples, rate = soundfile.read(io.BytesIO(tables["audio"][0]["raw"]["bytes"]), dtype="float32")
    assert rate == 16_000
    assert np.abs(samples - clip).max() < 1e-4
