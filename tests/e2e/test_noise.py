"""Nothing is heard in noise: what is published of recordings without speech has no words."""

from __future__ import annotations

import json
from pathlib import Path

from tests.e2e.runs import Lake, Mill


def test_noise_and_silence_yield_no_words(full_mill: Mill, shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "noise"
    lines = (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    kinds = {row["audio"]: row["kind"] for row in map(json.loads, lines)}
    full_mill.run([folder], tmp_path / "lake")
    lake = Lake(str(tmp_path / "lake"))
    member = {row["utterance_id"]: row["member"] for row in lake.rows("utterances")}
    heard: dict[str, list[str]] = {}
    for row in lake.rows("transcripts"):
        heard.setdefault(member[row["utterance_id"]], []).append(row["text"])
    told = {row["member"] for row in lake.rows("rejects")}
    assert set(heard) | told >= set(kinds)
    for name, texts in heard.items():
        assert any(texts) == (kinds[name] == "noisy speech"), (name, kinds[name], texts)
