"""The demo corpus: the same bytes every time, readable as its truth says, with noise at the SNR it states."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.demo import noise
from infra.demo.corpus import SOURCES, build


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def members(folder: Path, archive: str) -> dict[str, bytes]:
    path = folder / archive
    if archive.endswith(".zip"):
        with zipfile.ZipFile(path) as opened:
            return {name: opened.read(name) for name in opened.namelist()}
    if path.is_dir():
        return {name: data for name, (data, _) in contents(path).items()}
    with tarfile.open(path) as opened_tar:
        return {member.name: opened_tar.extractfile(member).read() for member in opened_tar}  # type: ignore[union-attr]


def test_built_twice_the_same(demo_corpus: Path, tmp_path: Path) -> None:
    again = build(tmp_path / "again", minutes=1.0)
    first = contents(demo_corpus)
    assert contents(again) == first
    assert set(SOURCES) <= set(first)
    stamp = (again / "read.tar").stat().st_ino
    assert (build(again, minutes=1.0) / "read.tar").stat().st_ino == stamp
    with pytest.raises(ValueError, match=r"no room for its archives"):
        build(tmp_path / "small", minutes=0.1)


def test_truth_holds(demo_corpus: Path) -> None:
    truth = [json.loads(line) for line in (demo_corpus / ".truth.jsonl").read_text().splitlines()][1:]
    archives = {name: members(demo_corpus, name) for name in {line["archive"] for line in truth}}
    for line in truth:
        with soundfile.SoundFile(io.BytesIO(archives[line["archive"]][line["member"]])) as sound:
            assert sound.frames / sound.samplerate == pytest.approx(line["duration_s"], abs=0.1)
        assert line["said"][-1]["end_s"] <= line["duration_s"]
    assert len({line["speaker"] for line in truth}) == 8
    assert 40 < sum(line["duration_s"] for line in truth) < 80
    assert archives["broadcast.zip"]["jingle.wav"] == b""
    with pytest.raises(soundfile.LibsndfileError):
        soundfile.read(io.BytesIO(archives["hotline.tar.gz"]["calls/corrupt.wav"]))


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(noise.KINDS), st.floats(-5, 40), st.integers(0, 2**32 - 1))
def test_noise_stands_at_its_snr(kind: str, snr_db: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, rate = 16_000, 16_000
    voice = np.sin(np.arange(n) / 9)
    speech = np.concatenate([voice, np.zeros(n)])  # half of it is a pause, which must not count
    made = {
        "white": lambda: noise.white(2 * n, rng),
        "pink": lambda: noise.pink(2 * n, rng),
        "hum": lambda: noise.hum(2 * n, rate, rng),
        "babble": lambda: noise.babble(2 * n, [rng.standard_normal(500), rng.standard_normal(700)], rng),
    }[kind]()
    added = noise.mix(speech, made, snr_db) - speech
    assert 10 * np.log10((voice**2).mean() / (added**2).mean()) == pytest.approx(snr_db, abs=0.1)
