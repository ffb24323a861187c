"""A recording on its way through the loop of ``whisper.transcribe``, and the guards that its windows must pass."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from blake3 import blake3
from whisper.audio import HOP_LENGTH, N_FRAMES, SAMPLE_RATE
from whisper.decoding import DecodingResult

from schemas.config import AsrSettings
from schemas.reasons import Reason
from workers.engines.base import Failure, Word


@dataclass
class Recording:
    """One clip on its way: ``mel`` (n_mels, frames); ``seek`` and ``frames`` in mel frames, times in seconds."""

    clip: np.ndarray
    language: str | None
    mel: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    floor: float = 0.0  # what the spectrogram of digital silence is in this recording
    detected: tuple[str, float] | None = None  # most probable language and its probability
    seek: int = 0
    tokens: list[int] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)
    last_speech: float = 0.0
    results: list[tuple[DecodingResult, bool]] = field(default_factory=list)  # with whether it was kept
    encoded: Any = None  # the current window as a batch of one, while it waits to be decoded again
    failure: Failure | None = None

    @property
    def frames(self) -> int:
        return len(self.clip) // HOP_LENGTH

    @property
    def window(self) -> int:
        """Frames of the current window."""
        return min(N_FRAMES, self.frames - self.seek)

    @property
    def active(self) -> bool:
        return self.failure is None and self.seek < self.frames

    def add_word(self, text: str, start_s: float, end_s: float, probability: float) -> None:
        """Take a word over as the library times it, but inside the clip and not before the end of the word before it.

        The library lets words reach into one another where segments meet, and rounds beyond the end of the clip.
        """
        length_s = len(self.clip) / SAMPLE_RATE
        start = min(max(float(start_s), self.words[-1].end_s if self.words else 0.0), length_s)
        self.words.append(Word(text, start, min(max(float(end_s), start), length_s), float(probability)))

    def seed(self) -> int:
        """Seed of the current window's draws: from the samples, so that neither batch mates nor order matter."""
        samples = np.ascontiguousarray(self.clip, dtype="<f4")
        return int.from_bytes(blake3(samples.tobytes() + self.seek.to_bytes(8, "little")).digest(8), "little")


def needs_fallback(result: DecodingResult, settings: AsrSettings) -> bool:
    """Whether a window must be decoded again at a higher temperature: it loops, or is improbable and not silence.

    The guards of ``whisper.transcribe`` (section 4.5 of arXiv:2212.04356) under its names; None leaves one out.
    """
    loops, least = settings.compression_ratio_threshold, settings.logprob_threshold
    improbable = least is not None and result.avg_logprob < least
    if improbable and _seems_silent(result, settings):
        return False
    return improbable or (loops is not None and result.compression_ratio > loops)


def holds_speech(result: DecodingResult, settings: AsrSettings) -> bool:
    """Whether a window's text stands: it does not seem silent, or is probable all the same."""
    least = settings.logprob_threshold
    return not _seems_silent(result, settings) or (least is not None and result.avg_logprob > least)


def _seems_silent(result: DecodingResult, settings: AsrSettings) -> bool:
    return settings.no_speech_threshold is not None and result.no_speech_prob > settings.no_speech_threshold


def checked(result: DecodingResult) -> DecodingResult | Failure:
    """``result`` without its features, so that they are freed with the batch.

    Where the model computed no finite numbers, a failure: the result would pass every guard, for no comparison with
    its numbers holds.
    """
    if np.isfinite(result.avg_logprob) and np.isfinite(result.no_speech_prob):
        return replace(result, audio_features=None, language_probs=None)
    return Failure(Reason.ENGINE_FAILED, "what the model computes of it are no finite numbers")
