"""Reading through libsndfile (soundfile): WAV, FLAC, MP3, Ogg, AIFF, AU, NIST SPHERE, CAF and more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import soundfile

from workers.decoding.limits import check_header
from workers.decoding.source import BLOCK_FRAMES, Clip, Source, Unreadable

_UNKNOWN_FRAMES = 0x7FFF_FFFF_FFFF_FFFF  # SF_COUNT_MAX of sndfile.h: a FLAC written to a pipe does not say its length


@contextmanager
def open_sndfile(fd: int, size: int, clip: Clip | None) -> Iterator[Source]:
    """Open the ``size`` bytes of file descriptor ``fd``, positioned at its start.

    Raises Unreadable (also while reading) and MemberError for an absurd header.
    """
    try:
        file = soundfile.SoundFile(fd, closefd=False)
    except soundfile.LibsndfileError as error:
        raise Unreadable(error.error_string) from error
    with file:
        frames = None if file.frames == _UNKNOWN_FRAMES else file.frames
        check_header(file.samplerate, file.channels, frames, size)
        source = Source(f"{file.format}/{file.subtype}", file.samplerate, file.channels, frames, iter(()))
        source.blocks = _blocks(file, source, clip)
        yield source


def _blocks(file: soundfile.SoundFile, source: Source, clip: Clip | None) -> Iterator[np.ndarray]:
    left = None
    try:
        if clip is not None:
            start, duration = clip
            source.frames_seen = file.seek(min(round(start * source.sample_rate), file.frames))
            left = None if duration is None else round(duration * source.sample_rate)
        while left is None or left > 0:
            wanted = BLOCK_FRAMES if left is None else min(left, BLOCK_FRAMES)
            block = file.read(wanted, dtype="float32", always_2d=True)
            if not len(block):
                return
            source.frames_seen += len(block)
            left = None if left is None else left - len(block)
            yield block
    except soundfile.LibsndfileError as error:
        raise Unreadable(error.error_string) from error
