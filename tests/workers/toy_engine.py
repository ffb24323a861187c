"""A family of one file, as a new one would be: it hears in every clip what its checkpoint says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from schemas.config import AsrSettings
from workers.engines.base import Failure, Padding, Transcription
from workers.engines.checkpoints import Checkpoint, digest_of


class ToyTranscriber:
    def __init__(self, checkpoint: Checkpoint, device: str, settings: AsrSettings) -> None:
        assert checkpoint.path is not None
        self.spec, self.digest, self.sample_rate = checkpoint.spec, digest_of(checkpoint.path), 16_000
        self.padding, self.text = Padding(), checkpoint.path.read_text()

    def transcribe(self, clips: Sequence[np.ndarray], languages: Sequence[str | None]) -> list[Transcription | Failure]:
        return [Transcription(self.text) for _ in clips]
