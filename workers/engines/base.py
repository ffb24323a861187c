"""The protocols that model families implement, and the values they exchange.

A family is one file in this package and one entry in :mod:`schemas.families`. Engines hold a loaded model and
nothing else: no Ray, no file system, no state that outlives a call, so the same clips always give the same answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

# Frames that a HiFi-GAN generator can look ahead, rounded up: its first convolution sees 3, the residual blocks after
# the first upsampling (kernels to 11, dilations to 5; Kong et al. 2020, section 2.2) some 8 more, later ones less.
VOCODER_REACH = 32


@dataclass(frozen=True)
class Word:
    """A word with times in seconds from the start of its clip, and the decoder's probability of it (0 to 1)."""

    text: str
    start_s: float
    end_s: float
    probability: float | None = None


@dataclass(frozen=True)
class Transcription:
    """What one engine heard in one clip. Fields an engine does not have stay None."""

    text: str
    language: str | None = None  # that it was transcribed in, given or detected
    words: tuple[Word, ...] = ()
    avg_logprob: float | None = None  # mean log-probability per token (natural log)
    no_speech_prob: float | None = None  # 0 to 1
    compression_ratio: float | None = None  # UTF-8 bytes over zlib bytes
    temperature: float | None = None  # the sampling temperature that gave this text
    detected_language: str | None = None  # what the engine takes the clip's language for, whatever it was given
    detected_probability: float | None = None  # 0 to 1


@dataclass(frozen=True)
class Synthesis:
    """Speech for one text: ``samples`` float32, mono, shape (n,), at ``sample_rate`` Hz.

    ``unsayable``: the characters that the voice has no sound for and left out, each once, in the text's order.
    """

    samples: np.ndarray
    sample_rate: int
    unsayable: str = ""


@dataclass(frozen=True)
class Failure:
    """One item that an engine refused; ``reason`` is a code of :mod:`schemas.reasons`."""

    reason: str
    message: str


@dataclass
class Padding:
    """Seconds of audio that went through a model: the clips' own, and what they were padded to."""

    real_s: float = 0.0
    padded_s: float = 0.0

    def add(self, lengths: Sequence[float], width: float) -> None:
        """One batch of clips of these ``lengths``, padded to ``width``, in seconds."""
        self.real_s += sum(lengths)
        self.padded_s += len(lengths) * width


class Transcriber(Protocol):
    """Speech to text. ``sample_rate`` (Hz) is what :meth:`transcribe` expects its clips in."""

    spec: str
    digest: str  # blake3 of the checkpoint: "blake3:<hex>"
    sample_rate: int
    padding: Padding  # of what was transcribed since whoever uses the engine set it anew

    def transcribe(self, clips: Sequence[np.ndarray], languages: Sequence[str | None]) -> list[Transcription | Failure]:
        """Transcribe float32 mono ``clips``, each of shape (n,), n > 0, in [-1, 1]; one answer per clip, in order.

        Batching is the engine's own affair and depends on the clips' lengths alone. A clip that cannot be processed
        gives a :class:`Failure`; its neighbours are unharmed.
        """
        ...


@runtime_checkable
class LanguageDetector(Protocol):
    """A :class:`Transcriber` that finds out the language of a clip for which it is told none."""

    def detect(self, clips: Sequence[np.ndarray]) -> list[str | None]:
        """The language that :meth:`Transcriber.transcribe` would find out for each of the ``clips``, without
        transcribing them; None where it cannot be told."""
        ...


class Synthesizer(Protocol):
    """Text to speech."""

    spec: str
    digest: str

    def synthesize(
        self, texts: Sequence[str], voices: Sequence[str | None], seeds: Sequence[int]
    ) -> list[Synthesis | Failure]:
        """Speak ``texts``; ``voices`` None means the spec's own voice; ``seeds`` fix any sampling, per item."""
        ...
