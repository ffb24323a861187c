"""Spectral gating against noisereduce itself."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import soxr
from noisereduce import reduce_noise
from speech_clips import clips_of

from schemas.config import DenoiseSettings, Recipe
from schemas.records import Archive, Layout, Member, Shard
from workers.denoise import Denoise, denoise
from workers.work import Recording, Utterance, Work

TOLERANCE = 1e-5  # of the clip's peak


def digits(shared_data: Path, count: int) -> list[np.ndarray]:
    with tarfile.open(shared_data / "fsdd/fsdd_test.tar") as archive:
        files = [member for member in archive if member.isfile()][:: max(1, 250 // count)][:count]
        return [sf.read(archive.extractfile(member), dtype="float32")[0] for member in files]


def check(clips: list[np.ndarray], rate: int, settings: DenoiseSettings) -> None:
    found = denoise(clips, rate, settings)
    for clip, ours in zip(clips, found, strict=True):
        theirs = reduce_noise(y=clip, sr=rate, stationary=settings.stationary, prop_decrease=settings.prop_decrease)
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE * np.abs(clip).max())


@pytest.mark.parametrize(
    "settings",
    [
        DenoiseSettings(),
        DenoiseSettings(prop_decrease=0.7),
        DenoiseSettings(stationary=True),
        DenoiseSettings(stationary=True, prop_decrease=0.6),
    ],
    ids=["running", "running-0.7", "stationary", "stationary-0.6"],
)
def test_results_are_noisereduces(settings: DenoiseSettings, shared_data: Path) -> None:
    check(clips_of(shared_data, "librispeech-test-other", 4), 16_000, settings)
    check([clip for clip in digits(shared_data, 12) if len(clip) > 1024], 8_000, settings)


@pytest.mark.parametrize("rate", [11_025, 22_050, 48_000])
def test_other_rates(rate: int, shared_data: Path) -> None:
    clips = [soxr.resample(clip, 16_000, rate) for clip in clips_of(shared_data, "cmu-arctic", 2)]
    check(clips, rate, DenoiseSettings())


def test_long_recordings_and_odd_ones(shared_data: Path) -> None:
    speech = np.concatenate(clips_of(shared_data, "librispeech-test-other", 30))
    assert len(speech) > 1_300_000
    click = np.zeros(20_000, np.float32)
    click[9_000:9_100] = 0.1
    sizes = (599_999, 600_000, 600_001, 1_230_000, 1_300_123)
    check([speech[:size] for size in sizes], 16_000, DenoiseSettings())
    check([click, np.ones(1, np.float32), speech[:700], speech[:1300]], 16_000, DenoiseSettings())
    check([speech[:700_000]], 16_000, DenoiseSettings(stationary=True))


def test_zeros_stay_zeros_and_neighbours_change_nothing(shared_data: Path) -> None:
    clips = [*digits(shared_data, 20), *clips_of(shared_data, "cmu-arctic", 2)]
    silence = np.zeros(5_000, np.float32)
    together = denoise([*clips[:10], silence, *clips[10:], np.zeros(0, np.float32)], 16_000, DenoiseSettings())
    assert not together.pop(10).any()
    assert together.pop().shape == (0,)
    for clip, batched in zip(clips, together, strict=True):
        (alone,) = denoise([clip], 16_000, DenoiseSettings())
        np.testing.assert_allclose(batched, alone, rtol=0, atol=TOLERANCE * np.abs(clip).max())


def test_stage_fills_utterances(shared_data: Path) -> None:
    member, recording = Member("a.wav", 1, "a.wav"), Recording("WAV/PCM_16", 16_000, 1, 1.0)
    clips = clips_of(shared_data, "cmu-arctic", 2)
    for settings in (DenoiseSettings(), DenoiseSettings(method="none")):
        work = Work(Shard("shard", Archive("folder", Layout.FOLDER), "print"), 16_000)
        work.utterances = [Utterance(member, recording, None, 0.0, 1.0, clip) for clip in clips]
        Denoise(Recipe(denoise=settings))(work)
        for utterance, clip in zip(work.utterances, clips, strict=True):
            assert utterance.denoised is not None
            assert np.array_equal(utterance.denoised, clip) == (settings.method == "none")
            assert "snr_denoised_db" in utterance.levels
