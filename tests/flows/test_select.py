"""Choosing published utterances: what a condition can say, and how a wrong one is told."""

from __future__ import annotations

import pytest

from schemas.config import Storage
from schemas.errors import VoxmillError
from schemas.manifest import RunManifest
from tasks.select import select
from workers.arrow import table_of
from workers.compact import write_table


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunManifest, str]:
    lake = tmp_path_factory.mktemp("lake")
    utterances = [
        {"utterance_id": f"u{n}", "archive": "a.tar", "member": f"{9 - n}.wav", "start_s": 0.0, "wer": n / 10}
        for n in range(10)
    ]
    transcripts = [
        {"utterance_id": f"u{n}", "archive": "a.tar", "member": "", "engine": "whisper:x", "avg_logprob": -n / 5}
        for n in range(10)
    ]
    files = [
        write_table(name, iter([table_of(name, rows)]), f"{name}/run_id=r/part-0.parquet", str(lake), Storage())
        for name, rows in (("utterances", utterances), ("transcripts", transcripts))
    ]
    manifest = RunManifest(
        run_id="r", run_date="2026-01-02", status="published", fingerprint="f", parameters={}, started_at="",
        finished_at="", members_in=10, members_published=10, members_rejected=0, utterances=10, hours=0, wall_s=1,
        real_time_factor=0, archives=[], reject_reasons={}, word_errors=[], stages={}, files=files, digests={},
        versions={},
    )  # fmt: skip
    return manifest, str(lake)


@pytest.mark.parametrize(
    ("where", "chosen"),
    [
        (None, [f"u{n}" for n in reversed(range(10))]),
        ("wer < 0.25", ["u2", "u1", "u0"]),
        ("wer < 0.25 -- the good ones", ["u2", "u1", "u0"]),
        ("utterance_id IN (SELECT utterance_id FROM transcripts WHERE avg_logprob < -1.7)", ["u9"]),
        ("false", []),
    ],
)
def test_a_condition_chooses(run: tuple[RunManifest, str], where: str | None, chosen: list[str]) -> None:
    assert select(*run, where, Storage()).column("utterance_id").to_pylist() == chosen


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("loudness > 3", "loudness"),
        ("wer <", "syntax error"),
        ("true); DROP VIEW utterances; SELECT (1", "one condition"),
        ("EXISTS (SELECT * FROM read_csv('/etc/passwd'))", "disabled"),
        ("(SELECT count(*) FROM 'https://example.org/x.parquet') > 0", "disabled"),
    ],
)
def test_a_wrong_condition_is_told_in_one_line(run: tuple[RunManifest, str], where: str, words: str) -> None:
    with pytest.raises(VoxmillError, match=words) as caught:
        select(*run, where, Storage())
    assert str(caught.value).startswith("where: ")
    assert "\n" not in str(caught.value)
