"""Regenerated speech made ready to publish: joined, at the rate, loudness and length asked for, and encoded."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Literal

import numpy as np
import soundfile

from schemas.config import OPUS_RATES, TtsSettings
from workers.engines.base import Synthesis
from workers.transcribe import resample

_CEILING = 10 ** (-1 / 20)  # of a peak after loudness was set: -1 dBFS, as EBU R 128 advises
_BLOCK_S = 0.4  # ITU-R BS.1770-4: length of a gating block


def joined(parts: Sequence[Synthesis], pauses_s: Sequence[float]) -> Synthesis:
    """``parts`` of one rate after one another, each followed by its pause; what was unsayable in any of them."""
    if len(parts) == 1 and not pauses_s[0]:
        return parts[0]
    rate = parts[0].sample_rate
    sounds = [
        piece
        for part, pause in zip(parts, pauses_s, strict=True)
        for piece in (part.samples, np.zeros(round(pause * rate), np.float32))
    ]
    unsayable = "".join(dict.fromkeys("".join(part.unsayable for part in parts)))
    return Synthesis(np.concatenate(sounds), rate, unsayable)


def output_rate(rate: int, settings: TtsSettings) -> int:
    """The rate asked for; where none is, the voice's own, for Opus the next of its rates."""
    if settings.sample_rate is not None:
        return settings.sample_rate
    if settings.codec == "opus":
        return next((known for known in OPUS_RATES if known >= rate), OPUS_RATES[-1])
    return rate


def finished(speech: Synthesis, settings: TtsSettings) -> Synthesis:
    """``speech`` at the output rate and loudness, with the silence after it.

    Where the loudness would lift the peak over -1 dBFS, the peak is what is set, and the speech stays softer.
    """
    rate = output_rate(speech.sample_rate, settings)
    samples = resample(speech.samples, speech.sample_rate, rate)
    if settings.loudness_lufs is not None:
        samples = _at_loudness(samples, rate, settings.loudness_lufs)
    if settings.trailing_silence_s:
        samples = np.concatenate([samples, np.zeros(round(settings.trailing_silence_s * rate), np.float32)])
    return Synthesis(samples, rate, speech.unsayable)


def loudness(samples: np.ndarray, rate: int) -> float:
    """Integrated loudness of (n,) samples, LUFS; minus infinity of silence. Speech shorter than a gating block of
    BS.1770 is measured in one of its own length."""
    import pyloudnorm

    block = min(_BLOCK_S, len(samples) / rate)
    with np.errstate(divide="ignore"):
        return float(pyloudnorm.Meter(rate, block_size=block).integrated_loudness(samples.astype(np.float64)))


def _at_loudness(samples: np.ndarray, rate: int, lufs: float) -> np.ndarray:
    measured = loudness(samples, rate)
    if not np.isfinite(measured):
        return samples
    gain = min(10 ** ((lufs - measured) / 20), _CEILING / float(np.abs(samples).max()))
    return (samples * gain).astype(np.float32)


def encoded(samples: np.ndarray, sample_rate: int, codec: Literal["flac", "opus"] = "flac") -> bytes:
    """``samples`` (float32 mono, 1 is full scale) as 16-bit FLAC, or as Opus in Ogg."""
    out = io.BytesIO()
    container, subtype = {"flac": ("FLAC", "PCM_16"), "opus": ("OGG", "OPUS")}[codec]
    soundfile.write(out, np.clip(samples, -1.0, 1.0), sample_rate, format=container, subtype=subtype)
    return out.getvalue()
