"""Log-mel against librosa."""

from __future__ import annotations

from pathlib import Path

import librosa
import numpy as np
import pytest
from speech_clips import clips_of

from schemas.config import FeatureSettings
from workers.features import FLOOR, log_mel, mel_filters


@pytest.mark.parametrize(
    ("rate", "settings"),
    [
        (16_000, FeatureSettings()),
        (8_000, FeatureSettings(n_fft=512, hop_length=80, n_mels=40, f_min=50, f_max=3_800)),
        (48_000, FeatureSettings(n_fft=1_001, hop_length=100, n_mels=128)),
    ],
)
def test_features_are_librosas(rate: int, settings: FeatureSettings, shared_data: Path) -> None:
    bank = librosa.filters.mel(
        sr=rate, n_fft=settings.n_fft, n_mels=settings.n_mels, fmin=settings.f_min, fmax=settings.f_max
    )
    ours = mel_filters(rate, settings.n_fft, settings.n_mels, settings.f_min, settings.f_max)
    np.testing.assert_allclose(ours, bank.T, rtol=1e-5, atol=1e-9)
    clips = clips_of(shared_data, "librispeech-test-other", 3)
    clips += [clips[0][:5_000], clips[0][:1], np.zeros(0, np.float32)]
    for clip, mel in zip(clips, log_mel(clips, rate, settings), strict=True):
        odd = settings.n_fft % 2
        assert mel.shape == (1 + (len(clip) - odd) // settings.hop_length, settings.n_mels)
        assert mel.dtype == np.float32
        if not len(clip):
            assert (mel == np.float32(np.log(FLOOR))).all()
            continue
        power = librosa.feature.melspectrogram(
            y=clip,
            sr=rate,
            n_fft=settings.n_fft,
            hop_length=settings.hop_length,
            n_mels=settings.n_mels,
            fmin=settings.f_min,
            fmax=settings.f_max,
        )
        theirs = np.log(np.maximum(power, FLOOR)).T
        loud = theirs > theirs.max() + np.log(1e-6)  # below 60 dB under the peak, float32 has its own noise
        assert np.abs(mel - theirs)[loud].max() < 1e-3
        assert np.abs(mel - theirs).mean() < 1e-3
