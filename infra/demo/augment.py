"""What happens to speech on its way to a recording: rooms, channels, noise and levels, drawn at random."""

from __future__ import annotations

import numpy as np
import scipy.fft

from infra.demo.clips import SAMPLE_RATE


def _curve(rng: np.random.Generator, bins: int, spread_db: float) -> np.ndarray:
    """A smooth random gain over ``bins`` linear frequencies up to 8 kHz, of about ``spread_db`` decibels."""
    knots_hz = np.array([0, 200, 400, 800, 1600, 3200, 5000, 8000])
    gains_db = rng.normal(0, spread_db, len(knots_hz))
    hz = np.linspace(0, SAMPLE_RATE / 2, bins)
    return (10 ** (np.interp(hz, knots_hz, gains_db) / 20)).astype(np.float32)


def _band(rng: np.random.Generator, bins: int) -> np.ndarray:
    """A pass band with soft edges: narrow as a telephone, or only low-passed."""
    hz = np.linspace(0, SAMPLE_RATE / 2, bins)
    low = rng.uniform(50, 350) if rng.random() < 0.5 else 0.0
    high = rng.uniform(3000, 4000) if rng.random() < 0.8 else rng.uniform(4000, 8000)
    passed = np.clip((high - hz) / 150, 0, 1)
    if low:
        passed *= np.clip((hz - low / 2) / (low / 2), 0, 1)
    return passed.astype(np.float32)


def _room(rng: np.random.Generator) -> np.ndarray:
    """An impulse response: the direct sound, then noise that decays by 60 dB in 0.1 to 0.6 seconds."""
    decay_s = rng.uniform(0.1, 0.6)
    n = int(decay_s * SAMPLE_RATE)
    tail = rng.standard_normal(n, dtype=np.float32) * np.exp(-6.9 * np.arange(n) / n).astype(np.float32)
    tail *= rng.uniform(0.1, 0.8) / np.sqrt((tail**2).sum())
    tail[0] = 1
    return tail


def through_channel(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Colour (n,) samples by a microphone, often a telephone band, and sometimes a room; the length stays."""
    n = scipy.fft.next_fast_len(len(samples) + SAMPLE_RATE // 2, real=True)
    spectrum = scipy.fft.rfft(samples, n)
    spectrum *= _curve(rng, len(spectrum), rng.choice([1.0, 4.0, 7.0]))
    if rng.random() < 0.6:
        spectrum *= _band(rng, len(spectrum))
    if rng.random() < 0.3:
        spectrum *= scipy.fft.rfft(_room(rng), n)
    return scipy.fft.irfft(spectrum, n)[: len(samples)].astype(np.float32)


def coloured_noise(n: int, rng: np.random.Generator) -> np.ndarray:
    """(n,) stationary noise of a random colour, from brown to violet, and unit power."""
    size = scipy.fft.next_fast_len(n, real=True)
    spectrum = scipy.fft.rfft(rng.standard_normal(size, dtype=np.float32))
    slope = rng.uniform(-1.0, 0.5)  # of the amplitude over frequency: 0 is white, -0.5 pink, -1 brown
    hz = np.maximum(np.arange(len(spectrum)) * (SAMPLE_RATE / size), 30.0)
    spectrum *= (hz**slope).astype(np.float32) * _curve(rng, len(spectrum), 4.0)
    noise = scipy.fft.irfft(spectrum, size)[:n]
    return (noise / np.sqrt((noise**2).mean() + 1e-12)).astype(np.float32)


def _envelope(n: int, rng: np.random.Generator) -> np.ndarray:
    """(n,) slow or bursty loudness, as of passing cars, steps or applause."""
    rate_hz = 2.0 ** rng.uniform(-2, 4)
    knots = max(2, int(n / SAMPLE_RATE * rate_hz) + 2)
    levels = 10 ** (rng.normal(0, rng.uniform(0.1, 0.8), knots))
    return np.interp(np.linspace(0, knots - 1, n), np.arange(knots), levels).astype(np.float32)


def _tones(n: int, rng: np.random.Generator) -> np.ndarray:
    """(n,) hum, beeps, chords and sweeps: up to four voices of up to eight harmonics that may glide."""
    t = np.arange(n, dtype=np.float32) / SAMPLE_RATE
    out = np.zeros(n, np.float32)
    for _ in range(int(rng.integers(1, 5))):
        glide = rng.normal(0, 0.3) * np.sin(2 * np.pi * rng.uniform(0.1, 3) * t + rng.uniform(0, 6))
        hz = rng.choice([50, 60, 2 ** rng.uniform(6, 11)]) * 2 ** (glide * (rng.random() < 0.5))
        phase = 2 * np.pi * np.cumsum(hz, dtype=np.float64) / SAMPLE_RATE if np.ndim(hz) else 2 * np.pi * hz * t
        for harmonic in range(1, int(rng.integers(2, 9))):
            out += (np.sin(harmonic * phase) * rng.random() / harmonic).astype(np.float32)
    return out


def _clicks(n: int, rng: np.random.Generator) -> np.ndarray:
    """(n,) knocks and crackle: impulses with short ringing tails."""
    out = np.zeros(n, np.float32)
    for _ in range(int(rng.integers(1, max(2, 4 * n // SAMPLE_RATE)))):
        length = min(n, int(rng.uniform(0.001, 0.08) * SAMPLE_RATE) + 2)
        start = int(rng.integers(0, n - length + 1))
        ring = rng.standard_normal(length, dtype=np.float32) if rng.random() < 0.5 else np.ones(length, np.float32)
        if rng.random() < 0.5:
            ring = ring * np.sin(2 * np.pi * rng.uniform(100, 4000) * np.arange(length) / SAMPLE_RATE)
        out[start : start + length] += rng.uniform(0.2, 1) * ring * np.exp(-5 * np.arange(length) / length)
    return out


def background(n: int, rng: np.random.Generator) -> np.ndarray:
    """(n,) of anything but speech, at unit power: noise, steady or in bursts, tones, clicks, or a mix of them."""
    kind = rng.random()
    noise = coloured_noise(n, rng)
    if kind > 0.4:
        noise *= _envelope(n, rng)
    if kind > 0.7:
        other = _tones(n, rng) if rng.random() < 0.6 else _clicks(n, rng)
        other *= _envelope(n, rng) if rng.random() < 0.5 else 1.0
        other /= np.sqrt((other**2).mean() + 1e-12)
        noise = noise * rng.choice([0.0, 0.1, 0.5]) + other
    return (noise / np.sqrt((noise**2).mean() + 1e-12)).astype(np.float32)


def at_level(samples: np.ndarray, rng: np.random.Generator, lowest_db: float = -36.0) -> np.ndarray:
    """Scale (n,) samples to a peak of ``lowest_db`` to 0 dB of full scale; a few are overdriven and clipped."""
    peak = np.abs(samples).max()
    if peak == 0:
        return samples
    level_db = rng.uniform(lowest_db, 0) if rng.random() < 0.95 else rng.uniform(0, 12)
    return np.clip(samples * (10 ** (level_db / 20) / peak), -1, 1).astype(np.float32)
