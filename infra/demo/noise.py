"""Noise made from numbers, and its mixing with speech at a stated signal-to-noise ratio."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

KINDS = ("white", "pink", "hum", "babble")


def white(n: int, rng: np.random.Generator) -> np.ndarray:
    """(n,) samples of equal power at all frequencies."""
    return rng.standard_normal(n)


def pink(n: int, rng: np.random.Generator) -> np.ndarray:
    """(n,) samples whose power falls with 1/f, as of wind and traffic; flat below the 8th bin to stay finite."""
    spectrum = np.fft.rfft(rng.standard_normal(n))
    return np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 8)), n)


def hum(n: int, rate: int, rng: np.random.Generator) -> np.ndarray:
    """(n,) samples of 50 Hz mains hum at ``rate`` Hz: harmonics that fall with their number, and a little hiss."""
    t = np.arange(n) / rate
    tones = sum(np.sin(2 * np.pi * (50 * k * t + rng.random())) / k for k in range(1, 12))
    return np.asarray(tones + 0.05 * rng.standard_normal(n))


def babble(n: int, voices: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """(n,) samples of many people at once: twelve ``voices``, played backwards so that no word can be heard."""
    mixed = np.zeros(n)
    for _ in range(12):
        voice = voices[int(rng.integers(len(voices)))][::-1]
        start = int(rng.integers(len(voice)))
        mixed += np.resize(np.roll(voice, start), n)
    return mixed


def mix(speech: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """Add ``noise`` to ``speech``, both (n,), so that their powers stand at ``snr_db``.

    The power of speech is taken where it is louder than a hundredth of its peak, so pauses do not count: with pauses
    the ratio over the whole recording is lower.
    """
    active = speech[np.abs(speech) > 0.01 * np.abs(speech).max()]
    gain = np.sqrt((active**2).mean() / ((noise**2).mean() * 10 ** (snr_db / 10)))
    return speech + gain * noise
