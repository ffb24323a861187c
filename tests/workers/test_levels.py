"""Levels against known mixtures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from speech_clips import clips_of

from workers.levels import levels


@pytest.mark.parametrize("true_db", [0, 5, 10, 15])
def test_snr_of_read_speech_in_white_noise(true_db: int, shared_data: Path) -> None:
    rng = np.random.default_rng(0)
    errors = []
    for clip in clips_of(shared_data, "cmu-arctic", 3) + clips_of(shared_data, "ljspeech", 8):
        noise = rng.normal(0, np.sqrt(np.mean(clip**2) / 10 ** (true_db / 10)), len(clip))
        errors.append(levels((clip + noise).astype(np.float32), 16_000)["snr_db"] - true_db)
    assert abs(np.mean(errors)) < 2.5
    assert np.std(errors) < 3.5


def test_peak_level_and_clipping() -> None:
    sine = np.sin(2 * np.pi * np.arange(16_000) / 160).astype(np.float32)
    half = levels(sine / 2, 16_000)
    assert half["peak"] == pytest.approx(0.5)
    assert half["rms_dbfs"] == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.01)
    assert half["clipped_ratio"] == 0
    assert levels(np.clip(2 * sine, -1, 1), 16_000)["clipped_ratio"] == pytest.approx(2 / 3, abs=0.01)
    silence = levels(np.zeros(100, np.float32), 16_000)
    assert "snr_db" not in silence
    assert silence["rms_dbfs"] == -200
