"""Two nights over the same speech: by its own evidence the first chooses what to hear, the second breaches its gate."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from prefect.client.orchestration import get_client

from infra.demo import noise
from tests.e2e.conftest import Spoken
from tests.e2e.runs import Lake, Mill
from tests.events import breach_of

CLIPS = 48
RAISED = {"denoise": {"stationary": True}, "asr": {"chosen_input": "auto", "whisper_window": "fitted"}}


@dataclass(frozen=True)
class Night:
    """A run's final state, and the markdown, links and tables it left in Prefect, by key."""

    state: Any
    artifacts: dict[str, Any]


def noisy(clips: list[Spoken]) -> list[tuple[Spoken, bytes]]:
    """Clips in white noise, which a stationary gate takes well, as WAV files."""
    rng, found = np.random.default_rng(7), []
    for clip in clips:
        samples, rate = soundfile.read(io.BytesIO(clip.data))
        mixed, sink = noise.mix(samples, noise.white(len(samples), rng), 0.0), io.BytesIO()
        soundfile.write(sink, 0.9 * mixed / np.abs(mixed).max(), rate, format="WAV", subtype="PCM_16")
        found.append((clip, sink.getvalue()))
    return found


def pack(path: Path, clips: list[tuple[Spoken, bytes]], wrong: bool = False) -> None:
    """A tar of clips with their references and speakers; ``wrong``: every reference is another clip's word."""
    words = sorted({clip.text for clip, _ in clips})
    rows = [("file", "text", "speaker")]
    with tarfile.open(path, "w") as archive:
        for clip, data in clips:
            member = tarfile.TarInfo(clip.name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
            text = words[words.index(clip.text) - 1] if wrong else clip.text
            rows.append((clip.name, text, clip.speaker))
    with open(path.with_suffix(".transcripts.tsv"), "w", newline="", encoding="utf-8") as table:
        csv.writer(table, delimiter="\t").writerows(rows)


@pytest.fixture(scope="module")
def nights(mill: Mill, digits: list[Spoken], tmp_path_factory: pytest.TempPathFactory) -> tuple[Lake, list[Night]]:
    """A night within its gate; then one whose references are wrong, under a gate that has an eye on them."""
    from flows.corpus import corpus

    tar, lake = tmp_path_factory.mktemp("speech") / "digits.tar", str(tmp_path_factory.mktemp("lake"))
    clips, found = noisy(digits[:: len(digits) // CLIPS][:CLIPS]), []
    for wrong, gate in (
        (False, {"max_wer": 1.0, "max_regression": 0.1}),
        (True, {"max_wer": 0.5, "max_regression": 0.1, "max_reject_rate": 0.5, "min_kept_hours": 1.0}),
    ):
        pack(tar, clips, wrong)
        state = corpus(
            sources=[str(tar)], destination=lake, transcribers=mill.transcribers, language="en", recipe=RAISED,
            gate=gate, prices={"cpu_hour": 0.05}, return_state=True,
        )  # fmt: skip
        found.append(Night(state, artifacts(state.state_details.flow_run_id)))
    return Lake(lake), found


def artifacts(flow_run_id: Any) -> dict[str, Any]:
    with get_client(sync_client=True) as client:
        answer = client._client.post(
            "/artifacts/filter", json={"artifacts": {"flow_run_id": {"any_": [str(flow_run_id)]}}}
        )
    return {one["key"]: one["data"] for one in answer.json()}


def test_the_input_is_chosen_by_the_run_s_own_evidence(nights: tuple[Lake, list[Night]]) -> None:
    lake, (first, _) = nights
    assert (first.state.type.value, first.state.name) == ("COMPLETED", "Published")
    manifest = lake.manifests()[0]
    heard = {(row["utterance_id"], row["input"]): row for row in lake.rows("transcripts", 0)}
    utterances = lake.rows("utterances", 0)
    assert {heard for _, heard in heard} == {"raw", "denoised"}
    wrong = {
        kind: sum(row["wer"] > 0 for (_, one), row in heard.items() if one == kind) for kind in ("raw", "denoised")
    }
    assert wrong["denoised"] < wrong["raw"]
    assert manifest["chosen_input"].startswith("denoised, as denoising changes")
    assert manifest["chosen_input"].endswith(": lower")
    for row in utterances:
        chosen = heard[row["utterance_id"], "denoised"]
        assert row["transcript_input"] == "denoised"
        assert (row["transcript"], row["wer"]) == (chosen["text"], chosen["wer"])
    page = Path(f"{lake.url}/reports/{manifest['run_id']}/index.html").read_text()
    assert f"The run chose by itself: {manifest['chosen_input'].split(',')[0]}" in page
    assert "per hour of speech" in page


def test_a_breached_gate_publishes_and_fails(nights: tuple[Lake, list[Night]]) -> None:
    lake, (_, second) = nights
    before, manifest = lake.manifests()
    assert before["status"] == "published"
    assert manifest["status"] == "failed_quality"
    outcome = {one["name"]: one for one in manifest["gate"]}
    assert [name for name, one in outcome.items() if one["breached"]] == ["max_wer", "max_regression", "min_kept_hours"]
    for table in ("utterances", "transcripts", "audio", "features", "quality"):
        assert lake.rows(table, 1), table
    assert len(lake.rows("utterances", 1)) == CLIPS
    assert manifest["supersedes"] == [{"run_id": before["run_id"], "members": CLIPS, "whole": True}]

    assert (second.state.type.value, second.state.name) == ("FAILED", "Failed quality")
    message = second.state.message
    assert "\n" not in message
    for name in ("max_wer", "max_regression", "min_kept_hours"):
        assert outcome[name]["reason"] in message
    assert outcome["max_reject_rate"]["reason"] not in message
    page = Path(f"{lake.url}/reports/{manifest['run_id']}/index.html").read_text()
    assert "Not to be used before someone has looked" in page
    assert "WER rose since the last run" in page

    event = breach_of(manifest["run_id"])
    assert [one["name"] for one in event["payload"]["breached"]] == ["max_wer", "max_regression", "min_kept_hours"]
    assert event["payload"]["reason"] in message
    related = {one["prefect.resource.role"]: one["prefect.resource.id"] for one in event["related"]}
    assert related["flow-run"] == f"prefect.flow-run.{second.state.state_details.flow_run_id}"


def test_artifacts_tell_the_run_and_the_trend(nights: tuple[Lake, list[Night]]) -> None:
    lake, (first, second) = nights
    before, manifest = lake.manifests()
    assert {"archives", "summary", "report", "wer", "trend"} <= set(second.artifacts)
    assert f"{manifest['run_id']}: failed_quality" in second.artifacts["summary"].replace("\\", "")
    assert f"file://{lake.url}/reports/{manifest['run_id']}/index.html" in second.artifacts["report"]
    assert len(json.loads(first.artifacts["trend"])) == 1
    trend = json.loads(second.artifacts["trend"])
    assert [(row["run"], row["status"]) for row in trend] == [
        (before["run_id"], "published"),
        (manifest["run_id"], "failed_quality"),
    ]
    rates = [next(one["wer"] for one in run["word_errors"] if one["engine"] == "chosen") for run in (before, manifest)]
    for row, rate in zip(trend, rates, strict=True):
        assert row["WER (95% interval)"].startswith(f"{rate:.1%}")
    assert {row["engine"] for row in json.loads(second.artifacts["wer"])} >= {"chosen"}
