"""From a member's bytes to samples at the working rate, piece by piece, whatever their length."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, BinaryIO

import numpy as np
import soxr

from schemas.errors import MemberError
from schemas.reasons import Reason
from workers.decoding.explain import explain, is_headerless
from workers.decoding.ffmpeg import Reading
from workers.decoding.joined import is_mp3_and_more, starts_of
from workers.decoding.sndfile import open_sndfile
from workers.decoding.source import Clip, Source, Unreadable

_HEAD_BYTES = 4096


@dataclass(frozen=True)
class Wanted:
    """The part of :class:`schemas.config.AudioSettings` that decoding needs, light enough to import in the child."""

    sample_rate: int
    each_channel: bool
    min_s: float
    max_s: float
    silence_peak: float  # full scale 1.0

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Resampler:
    """Streams blocks (frames, channels) to the working rate with soxr HQ, as ``librosa.load`` does in one piece."""

    def __init__(self, source_rate: int, rate: int, channels: int) -> None:
        self._shape = (0,) if channels == 1 else (0, channels)
        self._stream = (
            None
            if source_rate == rate
            else soxr.ResampleStream(source_rate, rate, channels, dtype="float32", quality="HQ")
        )

    def push(self, block: np.ndarray) -> np.ndarray:
        return block if self._stream is None else self._stream.resample_chunk(block)

    def flush(self) -> np.ndarray:
        empty = np.zeros(self._shape, np.float32)
        return empty if self._stream is None else self._stream.resample_chunk(empty, last=True)


def mono_mix(block: np.ndarray) -> np.ndarray:
    """Mean over the channels of (frames, channels), in float32 as ``librosa.to_mono``: shape (frames,)."""
    if block.shape[1] == 1:
        return np.ascontiguousarray(block[:, 0])
    mix = block[:, 0] + block[:, 1]
    for channel in range(2, block.shape[1]):
        mix += block[:, channel]
    mix /= block.shape[1]
    return mix


@dataclass(frozen=True)
class Events:
    """Where the samples go: ``header`` gets the seconds promised, ``samples`` each piece, ``reset`` voids them."""

    header: Callable[[float], None]
    samples: Callable[[np.ndarray], None]
    reset: Callable[[], None]


class Held:
    """A member's ``size`` bytes in ``file``, and FFmpeg's reading of them for as long as pieces follow one another.

    FFmpeg gets to a piece by decoding all before it (what it gives after a seek is another thing in many formats):
    piece by piece from the start, that would be the square of a recording's length.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size = file, size
        _fill_au(file, size)
        self._reading: Reading | None = None

    @cached_property
    def starts(self) -> list[int]:
        """Where its recordings start that FFmpeg has to be given one by one."""
        return starts_of(self.file, self.size)

    @cached_property
    def is_joined(self) -> bool:
        """Whether it is more than one recording, of which libsndfile would give the first alone."""
        return len(self.starts) > 1 or is_mp3_and_more(self.file, self.size)

    @contextmanager
    def open_ffmpeg(self, clip: Clip | None) -> Iterator[Source]:
        """Raises as :class:`workers.decoding.ffmpeg.Reading` does."""
        if self._reading is None or not self._reading.reaches(clip):
            self.close()
            self._reading = Reading(self.file, self.size, self.starts)
        try:
            yield self._reading.source(clip)
        except MemberError:  # about this piece, not the recording
            raise
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End FFmpeg's reading, before other bytes come."""
        if self._reading is not None:
            self._reading.close()
            self._reading = None


def _fill_au(file: BinaryIO, size: int) -> None:
    """Mark an AU header that says 0 bytes of data as one that does not know them: its writer never came back to it."""
    file.seek(0)
    head = file.read(12)
    if head[:4] == b".snd" and head[8:] == bytes(4) and int.from_bytes(head[4:8], "big") < size:
        file.seek(8)
        file.write(b"\xff" * 4)


def render(name: str, held: Held, clip: Clip | None, wanted: Wanted, events: Events) -> dict[str, Any]:
    """Decode what is ``held`` with libsndfile, or with FFmpeg where that fails or finds nothing, or only a part.

    Samples go to ``events`` as float32 of shape (n,) or (n, channels). Returns the recording's fields: format,
    sample_rate, channels, duration_s (None: of a piece, where neither its end nor a header tells it). Raises
    MemberError.
    """
    file, size = held.file, held.size
    if not size:
        raise MemberError(Reason.EMPTY_FILE, "zero bytes")
    openers: list[tuple[str, Callable[[], AbstractContextManager[Source]]]] = [
        ("libsndfile", lambda: open_sndfile(file.fileno(), size, clip))
    ]
    if not is_headerless(name):  # FFmpeg would guess a codec for any bytes
        openers.insert(0 if held.is_joined else 1, ("FFmpeg", lambda: held.open_ffmpeg(clip)))
    messages: dict[str, str] = {}
    empty: dict[str, Any] | None = None
    silent: MemberError | None = None
    for library, opener in openers:
        file.seek(0)
        try:
            with opener() as source:
                frames = _stream(source, clip, wanted, events)
                recording = _recording(source, clip)
            if frames:
                return recording
            empty = empty or recording
        except Unreadable as error:
            messages[library] = str(error)
        except MemberError as error:
            # libsndfile writes zeros where a FLAC stream breaks its own header's rules; FFmpeg may hear what it holds.
            if error.reason != Reason.SILENT:
                raise
            silent = silent or error
        events.reset()
    if silent is not None:
        raise silent
    if empty is not None:
        where = f" from {clip[0]} s on" if clip else ""
        raise MemberError(Reason.EMPTY_AUDIO, f"a {empty['format']} file without a single sample{where}")
    file.seek(0)
    raise explain(name, file.read(_HEAD_BYTES), size, messages)


def _recording(source: Source, clip: Clip | None) -> dict[str, Any]:
    frames = _whole_frames(source, clip)
    return {
        "format": source.format,
        "sample_rate": source.sample_rate,
        "channels": source.channels,
        "duration_s": None if frames is None else frames / source.sample_rate,
    }


def _whole_frames(source: Source, clip: Clip | None) -> int | None:
    """Frames of the whole recording: as read, else by its header; None where that says none, or fewer than there are.

    Both libraries round the clip's start and duration each.
    """
    if clip is None or clip[1] is None:
        return source.frames_seen
    last = round(clip[0] * source.sample_rate) + round(clip[1] * source.sample_rate)
    if source.frames_seen < last:  # the end came before the clip's
        return source.frames_seen
    return None if source.frames is None or source.frames < last or source.is_guessed else source.frames


def _stream(source: Source, clip: Clip | None, wanted: Wanted, events: Events) -> int:
    """Send all of ``source``; returns the source frames sent. Raises MemberError, Unreadable."""
    promised_s = (source.frames or 0) / source.sample_rate
    if clip is not None:
        promised_s = min(promised_s, clip[1] if clip[1] is not None else promised_s)
    if not source.is_guessed:
        _check_length(promised_s, wanted, "the header says")
    events.header(promised_s)
    each = wanted.each_channel and source.channels > 1
    resampler = Resampler(source.sample_rate, wanted.sample_rate, source.channels if each else 1)
    frames, peak = 0, 0.0

    def send(samples: np.ndarray) -> None:
        nonlocal peak
        if samples.size:
            peak = max(peak, _peak(samples))
            events.samples(samples)

    for block in source.blocks:
        frames += len(block)
        _check_length(frames / source.sample_rate, wanted, "after")
        send(resampler.push(np.ascontiguousarray(block) if each else mono_mix(block)))
    if not frames:
        return 0
    send(resampler.flush())
    duration = frames / source.sample_rate
    if duration < wanted.min_s:
        raise MemberError(Reason.TOO_SHORT, f"{duration:.4f} s; at least {wanted.min_s} s are wanted")
    if peak < wanted.silence_peak:
        hint = f"; this is the mix of {source.channels} channels" if source.channels > 1 and not each else ""
        level = f"peaks at {20 * math.log10(peak):.1f} dBFS" if peak else "all samples are zero"
        raise MemberError(Reason.SILENT, f"{level}, the floor is {20 * math.log10(wanted.silence_peak):.1f}{hint}")
    return frames


def _check_length(seconds: float, wanted: Wanted, how: str) -> None:
    if seconds > wanted.max_s:
        raise MemberError(
            Reason.TOO_LONG, f"{how} {seconds / 3600:.2f} hours; up to {wanted.max_s / 3600:g} hours are read"
        )


def _peak(samples: np.ndarray) -> float:
    """Largest absolute value. Raises MemberError (non_finite): NaN and infinity survive mixing and resampling."""
    peak = max(float(samples.max()), -float(samples.min()))
    if not math.isfinite(peak):
        raise MemberError(Reason.NON_FINITE, "samples that are not a number or infinite")
    return peak
