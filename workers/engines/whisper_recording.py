"""A recording on its way through the loop of ``whisper.transcribe``, and the guards that its windows must pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from blake3 import blake3
from whisper.audio import HOP_LENGTH, N_FRAMES, SAMPLE_RATE
from whisper.decoding import DecodingResult

from schemas.config import AsrSettings
from schemas.reasons import Reason
from workers.engines.base import Failure, Word

FRAMES_PER_TICK = 2  # mel frames per timestamp token: 20 ms
SECONDS_PER_TICK = FRAMES_PER_TICK * HOP_LENGTH / SAMPLE_RATE


@dataclass
class Cut:
    """A decoded window cut at its timestamps: ``segments`` as ``whisper.transcribe`` has them, and where the next
    window begins, in mel frames. ``closed``: nothing is said after the last timestamp."""

    segments: list[dict[str, Any]]
    seek: int
    closed: bool

    def text(self, eot: int) -> list[int]:
        """Tokens of all segments, without timestamps."""
        return [token for segment in self.segments for token in segment["tokens"] if token < eot]


def cut(tokens: Sequence[int], begin: int, start: int, size: int) -> Cut:
    """Cut the ``tokens`` of a window of ``size`` mel frames from ``start`` on, as the loop of ``whisper.transcribe``
    does; timestamps are the tokens from ``begin`` on."""
    stamps = [token >= begin for token in tokens]
    closed, seek = stamps[-2:] == [False, True], start + size
    cuts = [i for i in range(1, len(tokens)) if stamps[i - 1] and stamps[i]]
    if cuts:
        ends = [*cuts, len(tokens)] if closed else cuts
        pieces = [list(tokens[a:b]) for a, b in pairwise([0, *ends])]
        spans: list[tuple[float, float]] = [(piece[0] - begin, piece[-1] - begin) for piece in pieces]
        if not closed:
            seek = start + (tokens[cuts[-1] - 1] - begin) * FRAMES_PER_TICK
    else:
        times = [token - begin for token, stamp in zip(tokens, stamps, strict=True) if stamp]
        pieces, spans = [list(tokens)], [(0, times[-1] if times and times[-1] else size / FRAMES_PER_TICK)]
    offset = start * HOP_LENGTH / SAMPLE_RATE
    segments: list[dict[str, Any]] = [
        {
            "seek": start,
            "start": offset + first * SECONDS_PER_TICK,
            "end": offset + last * SECONDS_PER_TICK,
            "tokens": piece,
            "words": [],
        }
        for piece, (first, last) in zip(pieces, spans, strict=True)
    ]
    return Cut(segments, seek, closed)


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
    encoded: Any = None  # the current window as a batch of one, while it waits to be decoded again or timed
    again: bool = False  # whether it must be decoded again, for it failed the guards
    cut: Cut | None = None  # the current window, decoded
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


def joined(items: Sequence[Recording]) -> Any:
    """Their current windows, encoded, as one batch."""
    rows = [item.encoded for item in items]
    return torch.cat(rows) if isinstance(rows[0], torch.Tensor) else np.concatenate(rows)


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
