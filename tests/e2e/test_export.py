"""Clips of a run written out and loaded by the libraries that train from them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from flows.export import export
from flows.regenerate import regenerate
from infra.ffmpeg import link_libraries
from schemas.errors import VoxmillError
from tasks.export import Exported
from tests.e2e.conftest import Spoken
from tests.e2e.runs import Lake, Mill

# Runs apart from the tests: torchcodec finds FFmpeg by LD_LIBRARY_PATH, which is read only when a process starts.
AUDIOFOLDER = """
import json, sys
from datasets import load_dataset
rows = load_dataset("audiofolder", data_dir=sys.argv[1], split="train", cache_dir=sys.argv[1] + "/../cache")
assert all(row["audio"].get_all_samples().data.abs().max() > 0 for row in rows)
print(json.dumps(list(rows["text"])))
"""


@pytest.fixture(scope="module")
def lake(mill: Mill, digits: list[Spoken], tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Four digits with texts, and all of them spoken afresh by two voices each."""
    folder = tmp_path_factory.mktemp("speech")
    for clip in digits[::60][:4]:
        (folder / clip.name).write_bytes(clip.data)
        (folder / clip.name).with_suffix(".txt").write_text(clip.text)
    destination = str(tmp_path_factory.mktemp("lake"))
    assert mill.run([folder], destination) is not None
    speech = {"voices_per_clip": 2, "codec": "opus", "loudness_lufs": -23, "speaker_labels": False, "max_wer": 9}
    state = regenerate(
        destination=destination, tts="espeak:en-us", voices=["en-us", "en-gb"], speech=speech, return_state=True
    )
    outcome = state.result(raise_on_failure=False)
    if isinstance(outcome, BaseException):
        raise outcome
    return Lake(destination)


def exported(lake: Lake, folder: Path, **form: object) -> Exported:
    state = export(destination=lake.url, folder=str(folder), return_state=True, **form)
    outcome = state.result(raise_on_failure=False)
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


def test_regenerated_clips_lead_back_and_are_counted(lake: Lake) -> None:
    source, made = lake.manifests()
    rows, utterances = lake.rows("regenerated"), {row["utterance_id"]: row for row in lake.rows("utterances", run=0)}
    assert len(rows) == 8
    for row in rows:
        origin = utterances[row["utterance_id"]]
        assert row["source_run_id"] == source["run_id"] == made["parameters"]["run_id"]
        for name in ("archive", "member", "member_key", "channel", "start_s", "end_s"):
            assert row[name] == origin[name]
        assert (row["speaker"], row["sample_rate"], row["unsayable"]) == (None, 24_000, "")
        assert row["audio"]["bytes"][:4] == b"OggS"
    assert {row["voice"] for row in rows} == {"en-us", "en-gb"}
    assert made["regenerated_hours"] == pytest.approx(sum(row["duration_s"] for row in rows) / 3600)
    assert made["kept_hours"] == pytest.approx(sum(row["duration_s"] for row in rows if row["kept"]) / 3600)


@pytest.mark.parametrize("clips", ["original", "denoised", "regenerated"])
def test_trainers_load_what_is_exported(lake: Lake, clips: str, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    from lhotse import CutSet
    from nemo.collections.common.parts.preprocessing.manifest import item_iter

    done = exported(lake, tmp_path, clips=clips, where="true" if clips == "regenerated" else None)
    rows = lake.rows("regenerated") if clips == "regenerated" else lake.rows("utterances", run=0)
    texts = sorted(row["text"] if clips == "regenerated" else row["reference"] for row in rows)
    assert (done.clips, done.without_text, done.lost) == (len(rows), 0, 0)

    items = list(item_iter(str(tmp_path / "manifest.json")))
    assert sorted(item["text"] for item in items) == texts
    for item in items:
        assert soundfile.info(item["audio_file"]).duration == pytest.approx(item["duration"], abs=0.01)

    cuts = CutSet.from_file(tmp_path / "cuts.jsonl.gz")
    assert sorted(cut.supervisions[0].text for cut in cuts) == texts
    for cut in cuts:
        audio = cut.load_audio()
        assert audio.shape == (1, cut.num_samples)
        assert np.abs(audio).max() > 0

    environment = {**os.environ, "LD_LIBRARY_PATH": link_libraries(tmp_path.parent / "ffmpeg")}
    loaded = subprocess.run(
        [sys.executable, "-c", AUDIOFOLDER, str(tmp_path)], env=environment, capture_output=True, text=True
    )
    assert loaded.returncode == 0, loaded.stderr
    assert sorted(json.loads(loaded.stdout.splitlines()[-1])) == texts


def test_nothing_chosen_and_wrong_conditions_are_told(lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(VoxmillError, match="is chosen"):
        exported(lake, tmp_path, where="duration_s > 1000")
    with pytest.raises(VoxmillError, match="volume"):
        exported(lake, tmp_path, clips="regenerated", where="volume > 3")
