"""Short real clips for the engines' tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile as sf
import soxr


def clips_of(shared_data: Path, source: str, count: int) -> list[np.ndarray]:
    """The first ``count`` wav or flac clips of one source, float32 mono at 16 kHz."""
    files = sorted(path for path in (shared_data / source).rglob("*") if path.suffix in (".wav", ".flac"))
    clips = []
    for path in files[:count]:
        samples, rate = sf.read(path, dtype="float32", always_2d=True)
        clips.append(soxr.resample(samples.mean(axis=1), rate, 16_000).astype(np.float32))
    return clips
