"""Log-mel features, as ``librosa.feature.melspectrogram`` gives them, then the natural logarithm.

librosa itself is not imported: with numba it costs every worker seconds and 60 MB for one matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import scipy.fft
from numpy.lib.stride_tricks import sliding_window_view

from schemas.config import FeatureSettings, Recipe
from workers.work import Work

FLOOR = 1e-10  # smallest mel power before the logarithm, librosa.power_to_db's amin

_BLOCK_FRAMES = 64  # frames transformed at once, of as many clips as it takes

# M. Slaney, Auditory Toolbox (1998): linear below 1 kHz, 66 2/3 Hz per mel; above, 27 mels per factor of 6.4
_HZ_PER_MEL = 200 / 3
_LOG_HZ = 1000.0
_LOG_MEL = _LOG_HZ / _HZ_PER_MEL
_LOG_STEP = np.log(6.4) / 27


def _hz_to_mel(hz: float) -> float:
    return hz / _HZ_PER_MEL if hz < _LOG_HZ else float(_LOG_MEL + np.log(hz / _LOG_HZ) / _LOG_STEP)


def _mel_to_hz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < _LOG_MEL, mel * _HZ_PER_MEL, _LOG_HZ * np.exp(_LOG_STEP * (mel - _LOG_MEL)))


@lru_cache(maxsize=8)
def mel_filters(sample_rate: int, n_fft: int, n_mels: int, f_min: float, f_max: float | None) -> np.ndarray:
    """Slaney's triangular filters of equal area, float32 (n_fft // 2 + 1, n_mels): ``librosa.filters.mel``, transposed.

    Frequencies in Hz; ``f_max`` None is half the sample rate.
    """
    top = sample_rate / 2 if f_max is None else f_max
    edges = _mel_to_hz(np.linspace(_hz_to_mel(f_min), _hz_to_mel(top), n_mels + 2))
    bins = np.arange(n_fft // 2 + 1)[:, None] * (sample_rate / n_fft)
    rising = (bins - edges[:-2]) / np.diff(edges)[:-1]
    falling = (edges[2:] - bins) / np.diff(edges)[1:]
    triangles = np.maximum(0, np.minimum(rising, falling))
    return (triangles * (2 / (edges[2:] - edges[:-2]))).astype(np.float32)


def log_mel(clips: Sequence[np.ndarray], sample_rate: int, settings: FeatureSettings) -> list[np.ndarray]:
    """Log-mel of float32 mono ``clips``, each (n,): float32 (1 + n // hop_length, n_mels), natural log of power
    (one frame fewer where ``n_fft`` is odd and the hop divides n).

    Frames are centred, the clip being padded with zeros; Hann window; power below :data:`FLOOR` counts as that.
    """
    n_fft, hop = settings.n_fft, settings.hop_length
    filters = mel_filters(sample_rate, n_fft, settings.n_mels, settings.f_min, settings.f_max)
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)).astype(np.float32)
    pad = n_fft // 2
    counts = [1 + (len(clip) + 2 * pad - n_fft) // hop for clip in clips]
    mel = np.empty((sum(counts), settings.n_mels), np.float32)
    frames = np.empty((_BLOCK_FRAMES, n_fft), np.float32)
    done = filled = 0

    def flush() -> None:
        nonlocal done, filled
        spectra = scipy.fft.rfft(frames[:filled])
        power = np.square(spectra.real)
        power += np.square(spectra.imag)
        np.matmul(power, filters, out=mel[done : done + filled])
        done, filled = done + filled, 0

    for clip, count in zip(clips, counts, strict=True):
        padded = np.zeros(max(len(clip) + 2 * pad, n_fft), np.float32)
        padded[pad : pad + len(clip)] = clip
        view = sliding_window_view(padded, n_fft)[::hop]
        at = 0
        while at < count:
            take = min(count - at, _BLOCK_FRAMES - filled)
            np.multiply(view[at : at + take], window, out=frames[filled : filled + take])
            at, filled = at + take, filled + take
            if filled == _BLOCK_FRAMES:
                flush()
    if filled:
        flush()
    np.maximum(mel, np.float32(FLOOR), out=mel)
    np.log(mel, out=mel)
    return np.split(mel, np.cumsum(counts)[:-1]) if counts else []


class Features:
    """The stage: fills ``mel`` of every utterance, from its denoised or raw audio as the settings say."""

    def __init__(self, recipe: Recipe) -> None:
        self._settings = recipe.features

    def __call__(self, work: Work) -> Work:
        """Add features to a shard. Raises ValueError when they are wanted from audio that is not denoised yet."""
        if work.failed:
            return work
        clips = []
        for utterance in work.utterances:
            samples = utterance.raw if self._settings.source == "raw" else utterance.denoised
            if samples is None:
                raise ValueError("features are taken from denoised audio; the denoise stage has to run before")
            clips.append(samples)
        for utterance, mel in zip(work.utterances, log_mel(clips, work.sample_rate, self._settings), strict=True):
            utterance.mel = mel
        return work
