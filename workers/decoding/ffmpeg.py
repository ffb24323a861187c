"""Reading through FFmpeg (PyAV): what libsndfile does not know, such as AAC, WebM, WMA and the sound of videos.

Damaged packets are skipped, as FFmpeg's own tools do: what can be decoded is.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
import soxr

from workers.decoding.limits import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE, check_header
from workers.decoding.source import Clip, Source, Unreadable

# Containers that hold sound in themselves. Playlists and scripts (hls, concat, sdp, image sequences, ...) stay out:
# they make FFmpeg open other files and addresses, which untrusted bytes must not. The names are FFmpeg's.
_FORMATS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dsf,dts,eac3,flac,flv,gsm,iff,latm,loas,matroska,webm,mov,mp4,m4a,"
    "3gp,3g2,mj2,mp2,mp3,mpc,mpc8,mpeg,mpegts,mxf,nistsphere,oga,ogg,opus,oma,ogv,rm,shn,sln,spx,swf,tak,tta,voc,w64,"
    "wav,wsvqa,wv,xwma"
)
# Bare packets without a length: FFmpeg guesses it by the bit rate of the first few, which may be those of a pause.
_GUESSED = frozenset(("aac", "ac3", "amr", "amrnb", "amrwb", "dts", "eac3", "gsm", "latm", "loas", "mp3"))
_SCALE = {"u": 128.0, "i2": 32768.0, "i4": 2147483648.0}
_KEPT_BYTES = 64 << 20  # of a piece and what overlaps it: three minutes of 48 kHz stereo
_MAX_BAD_PACKETS = 1_000  # with nothing good among them


class Reading:
    """FFmpeg's way through a recording, from its start on: pieces in order need one only."""

    def __init__(self, file: BinaryIO, size: int, starts: Sequence[int] = (0,)) -> None:
        """Open the ``size`` bytes of ``file``; at ``starts`` recordings of their own begin, to be heard one by one.

        Raises Unreadable (as does reading on) and MemberError for an absurd header.
        """
        ends = [*starts[1:], size]
        self._parts = [_Part(file, start, end) for start, end in zip(starts, ends, strict=True)]
        self._container, stream, promised = _open(self._parts[0])
        self._promised = promised if len(self._parts) == 1 else None
        context = stream.codec_context
        self._name = f"{self._container.format.name}/{context.name}"
        self._is_guessed = self._container.format.name in _GUESSED
        self._rate, self._channels = context.sample_rate, context.channels
        self._decoded = _evened(self._frames(stream), self._rate, self._channels)
        self._seen = 0  # frames read so far
        self._kept: deque[tuple[int, np.ndarray]] = deque()  # the last blocks, should the next piece overlap this one
        self._kept_bytes = 0

    def close(self) -> None:
        self._container.close()

    def _frames(self, stream: Any) -> Iterator[Any]:
        yield from map(_Packed().convert, _packets(self._container, stream))
        for part in self._parts[1:]:
            self._container.close()
            try:
                self._container, stream, _ = _open(part)
            except Unreadable:
                continue
            yield from map(_Packed().convert, _packets(self._container, stream))

    def reaches(self, clip: Clip | None) -> bool:
        """Whether ``clip`` starts where this reading is, or in what it has kept."""
        first = round((clip[0] if clip else 0.0) * self._rate)
        return first >= (self._kept[0][0] if self._kept else self._seen)

    def source(self, clip: Clip | None) -> Source:
        """The recording, or a piece of it that this reading reaches. Ends the source given before."""
        source = Source(self._name, self._rate, self._channels, self._promised, iter(()), is_guessed=self._is_guessed)
        source.blocks = self._blocks(source, clip)
        return source

    def _blocks(self, source: Source, clip: Clip | None) -> Iterator[np.ndarray]:
        start, duration = clip or (0.0, None)
        first = round(start * source.sample_rate)
        last = None if duration is None else first + round(duration * source.sample_rate)
        for begin, block in self._from(first, keep=last is not None):
            source.frames_seen = begin + len(block)
            if last is not None and begin >= last:
                return
            piece = block[max(0, first - begin) : None if last is None else last - begin]
            if len(piece):
                yield piece

    def _from(self, first: int, keep: bool) -> Iterator[tuple[int, np.ndarray]]:
        """The blocks kept and those that follow, each with the frame it starts at; ``keep`` those from ``first`` on."""
        while self._kept and self._kept[0][0] + len(self._kept[0][1]) <= first:
            self._drop()
        yield from list(self._kept)
        for block in self._decoded:
            begin = self._seen
            self._seen += len(block)
            if keep and self._seen > first:
                self._kept.append((begin, block))
                self._kept_bytes += block.nbytes
            while self._kept_bytes > (_KEPT_BYTES if keep else 0):
                self._drop()
            yield begin, block

    def _drop(self) -> None:
        self._kept_bytes -= self._kept.popleft()[1].nbytes


class _Part:
    """A part of a file, with a place of its own in it: other libraries read the file, too."""

    def __init__(self, file: BinaryIO, start: int, end: int) -> None:
        self._file, self._start, self.size, self._place = file, start, end - start, 0

    def read(self, size: int) -> bytes:
        self._file.seek(self._start + self._place)
        data = self._file.read(max(0, min(size, self.size - self._place)))
        self._place += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._place = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self.size}[whence])
        return self._place

    def tell(self) -> int:
        return self._place


def _evened(frames: Iterator[Any], rate: int, channels: int) -> Iterator[np.ndarray]:
    """The frames' samples at one rate and number of channels, should a stream change them on its way."""
    current, resampler = rate, None
    for frame in frames:
        if frame.sample_rate != current:
            if not MIN_SAMPLE_RATE <= frame.sample_rate <= MAX_SAMPLE_RATE:
                raise Unreadable(f"changes from {current} to {frame.sample_rate} Hz in the middle")
            if resampler is not None:
                yield resampler.resample_chunk(np.zeros((0, channels), np.float32), last=True)
            current = frame.sample_rate
            is_same = current == rate
            resampler = None if is_same else soxr.ResampleStream(current, rate, channels, "float32", "HQ")
        block = _samples(frame)
        if block.shape[1] != channels:
            block = np.repeat(block.mean(axis=1, keepdims=True), channels, axis=1)
        yield block if resampler is None else resampler.resample_chunk(np.ascontiguousarray(block))
    if resampler is not None:
        yield resampler.resample_chunk(np.zeros((0, channels), np.float32), last=True)


def _open(part: _Part) -> tuple[Any, Any, int | None]:
    """The container, its stream of sound and its frames by the header. Raises Unreadable, MemberError."""
    import av

    try:
        options = {"format_whitelist": _FORMATS, "protocol_whitelist": "none"}
        container = av.open(part, options=options, metadata_errors="replace")
    except (av.FFmpegError, ValueError) as error:
        raise Unreadable(_words(error)) from error
    try:
        return container, *_check(container, part.size)
    except BaseException:
        container.close()
        raise


def _check(container: Any, size: int) -> tuple[Any, int | None]:
    """The stream of sound and its frames by the header. Raises Unreadable, MemberError."""
    if not container.streams.audio:
        raise Unreadable(f"a {container.format.long_name or container.format.name} file without sound")
    stream = container.streams.audio[0]
    context = stream.codec_context
    if context is None:
        raise Unreadable("sound in a codec that FFmpeg does not know")
    context.thread_count = 1
    if not context.sample_rate or not context.channels:
        raise Unreadable("sound of unknown sample rate or channel count")
    frames = _promised_frames(container, stream)
    check_header(context.sample_rate, context.channels, frames, size)
    return stream, frames


def _words(error: Exception) -> str:
    """FFmpeg's message without the number and the nameless file around it."""
    return getattr(error, "strerror", None) or str(error)


def _promised_frames(container: Any, stream: Any) -> int | None:
    """Frames of the recording by the stream's or the container's duration, FFmpeg's guess for those of _GUESSED; None
    where neither says."""
    rate = stream.codec_context.sample_rate
    if stream.duration is not None and stream.time_base is not None:
        return max(0, round(stream.duration * stream.time_base * rate))
    if container.duration is not None:
        return max(0, round(container.duration * rate / 1_000_000))
    return None


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    """Frames of the stream; damaged packets are passed over."""
    import av

    good, bad = False, 0
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.FFmpegError as error:
            if not good:
                raise Unreadable(_words(error)) from error
            return
        try:
            frames = packet.decode()
        except av.FFmpegError as error:
            bad += 1
            if not good and bad >= _MAX_BAD_PACKETS:
                raise Unreadable(f"{bad} damaged packets and no good one: {_words(error)}") from error
            continue
        good = good or bool(frames)
        yield from frames


class _Packed:
    """Interleaves frames of eight and more planes: PyAV reads past its table of planes there and crashes."""

    def __init__(self) -> None:
        self._resampler: Any = None

    def convert(self, frame: Any) -> Any:
        import av

        if not frame.format.is_planar or len(frame.layout.channels) < 8:
            return frame
        if self._resampler is None:
            self._resampler = av.AudioResampler(frame.format.packed.name, frame.layout, frame.sample_rate)
        try:
            (packed,) = self._resampler.resample(frame)
        except (av.FFmpegError, ValueError) as error:
            raise Unreadable(_words(error)) from error
        return packed


def _samples(frame: Any) -> np.ndarray:
    """The frame's samples, float32 (frames, channels), full scale 1.0. Raises Unreadable for an odd sample format."""
    channels = len(frame.layout.channels)
    try:
        array = frame.to_ndarray()
    except (ValueError, NotImplementedError) as error:
        raise Unreadable(str(error)) from error
    array = array.T if frame.format.is_planar else array.reshape(-1, channels)
    kind = array.dtype.kind
    if kind == "f":
        return array.astype(np.float32)
    scale = _SCALE.get(kind if kind == "u" else f"{kind}{array.dtype.itemsize}")
    if scale is None:
        raise Unreadable(f"samples of type {frame.format.name}")
    samples = array.astype(np.float32)
    if kind == "u":
        samples -= scale
    samples /= scale
    return samples
