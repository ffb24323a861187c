"""A recording that a library has opened: what its header says, and its samples block by block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

BLOCK_FRAMES = 1 << 16  # frames read at a time: 256 KiB per channel, so memory does not grow with the recording

Clip = tuple[float, float | None]  # start and duration in seconds; duration None: to the end


@dataclass
class Source:
    """``blocks`` yields float32 arrays of shape (frames, channels), 1.0 being full scale, the clip's frames only.

    ``frames`` is the length of the whole recording as the header gives it, or as the library guesses (``is_guessed``);
    None where it does not say. ``frames_seen`` counts what has been read of the recording (frames before the clip
    included) and is right once blocks are spent.
    """

    format: str
    sample_rate: int
    channels: int
    frames: int | None
    blocks: Iterator[np.ndarray]
    frames_seen: int = 0
    is_guessed: bool = False


class Unreadable(Exception):
    """A library cannot open or go on reading the bytes; the text is the library's own message."""
