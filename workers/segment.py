"""Cutting long recordings into utterances at pauses, by voice activity detection.

The detector is Silero VAD (https://github.com/snakers4/silero-vad) in the ONNX form that takes a sequence of frames
and carries its LSTM state from call to call: exactly the probabilities of the streaming model, one call per 512
frames of a recording. The streaming model in batches of one frame of each of many recordings took 1.27 times as long at
its best batch size (benchmarks/vad.py): there every call waits for the one before it. It is run with onnxruntime alone,
so that no worker that merely cuts has to hold PyTorch.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from schemas.config import SegmentationSettings
from schemas.errors import VoxmillError
from schemas.records import Seconds

# Silero VAD's own numbers for 16 kHz (silero_vad/sequence_vad.py, RATE_CONFIG)
VAD_RATE = 16_000
_FRAME = 512
_CONTEXT = 64
FRAME_S = _FRAME / VAD_RATE
_STATE = (1, 1, 128)
_FRAMES_PER_CALL = 512

# Speech ends only where the probability falls this far below the threshold it began at (utils_vad.py, neg_threshold).
_HYSTERESIS = 0.15
# Utterances are filled up to the window across pauses no longer than this: more silence invites invented text.
_MAX_PAUSE_S = 2.0

# How a short clip is heard in doubt (see speech_share).
_LEVEL, _PAUSE_S = 0.5, 0.5
_THRESHOLD = 0.5  # utils_vad.py, get_speech_timestamps


class Segment(NamedTuple):
    """One utterance of a recording, in seconds from its start; ``speech_ratio`` None where nothing was measured."""

    start_s: Seconds
    end_s: Seconds
    speech_ratio: float | None


@lru_cache(maxsize=1)
def _session() -> Any:
    """The model, one per process. Raises VoxmillError when the wheel that carries it is not there."""
    import onnxruntime

    package = importlib.util.find_spec("silero_vad")  # located without importing: its __init__ loads PyTorch
    if package is None or package.origin is None:
        raise VoxmillError("Silero VAD is not installed", do="Reinstall voxmill with its dependencies")
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = options.intra_op_num_threads = 1
    model = Path(package.origin).parent / "data" / "silero_vad_16k_sequence.onnx"
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def speech_probabilities(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Probability of speech in each frame of :data:`FRAME_S` seconds: float32 (ceil(n / frame),).

    ``samples``: float32 mono, shape (n,). Other rates than 16 kHz are resampled.
    """
    if sample_rate != VAD_RATE:
        import soxr

        samples = soxr.resample(samples, sample_rate, VAD_RATE, quality="HQ")
    session = _session()
    hidden = cell = np.zeros(_STATE, np.float32)
    context = np.zeros(_CONTEXT, np.float32)
    found = [np.zeros(0, np.float32)]
    for start in range(0, len(samples), _FRAME * _FRAMES_PER_CALL):
        piece = samples[start : start + _FRAME * _FRAMES_PER_CALL]
        frames = np.zeros((-(-len(piece) // _FRAME), _CONTEXT + _FRAME), np.float32)
        frames[:, _CONTEXT:].flat[: len(piece)] = piece
        frames[0, :_CONTEXT] = context
        frames[1:, :_CONTEXT] = frames[:-1, -_CONTEXT:]
        context = frames[-1, -_CONTEXT:]
        values, hidden, cell = session.run(["speech_probs", "hn", "cn"], {"input": frames, "h": hidden, "c": cell})
        found.append(values)
    return np.concatenate(found)


def speech_runs(probabilities: np.ndarray, settings: SegmentationSettings) -> list[tuple[int, int]]:
    """Frames [begin, end) of speech: from where the threshold is reached to where a pause of ``min_silence_s`` begins.

    Runs shorter than ``min_speech_s`` are left out.
    """
    silence = max(1, round(settings.min_silence_s / FRAME_S))
    low = max(settings.threshold - _HYSTERESIS, 0.01)
    runs: list[tuple[int, int]] = []
    begin = last = None
    for index in np.flatnonzero(probabilities >= low):
        if begin is not None and last is not None and index - last > silence:
            runs.append((begin, last + 1))
            begin = None
        if begin is None and probabilities[index] >= settings.threshold:
            begin = int(index)
        if begin is not None:
            last = int(index)
    if begin is not None and last is not None:
        runs.append((begin, last + 1))
    return [(a, b) for a, b in runs if (b - a) * FRAME_S >= settings.min_speech_s]


def _split(run: tuple[int, int], probabilities: np.ndarray, limit: int) -> list[tuple[int, int]]:
    """Pieces of at most ``limit`` frames; cuts lie at the least probable frame of the second half of each.

    The last is no shorter than a quarter of ``limit``: of a sliver nothing can be heard.
    """
    begin, end = run
    pieces = []
    while end - begin > limit:
        first, last = begin + limit // 2, min(begin + limit, end - limit // 4)
        # the last of equals, so that pieces are long
        cut = last - int(np.argmin(probabilities[first : last + 1][::-1]))
        pieces.append((begin, cut))
        begin = cut
    return [*pieces, (begin, end)]


def _merge(runs: list[tuple[int, int]], limit: int) -> list[tuple[int, int]]:
    """Neighbours put together as long as they fit ``limit`` frames and the pause between them is short."""
    merged: list[tuple[int, int]] = []
    for begin, end in runs:
        if merged and end - merged[-1][0] <= limit and (begin - merged[-1][1]) * FRAME_S <= _MAX_PAUSE_S:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((begin, end))
    return merged


def segments(probabilities: np.ndarray, duration_s: Seconds, settings: SegmentationSettings) -> list[Segment]:
    """Utterances of a recording of ``duration_s`` seconds from its frames' speech probabilities.

    In order, apart, inside the recording, none longer than ``window_s``. Cuts lie in pauses; only speech that goes on
    for a whole window without one is cut at its least probable frame. Up to ``pad_s`` is kept around speech, never
    more than half the pause to the neighbour. Empty where there is no speech.
    """
    limit = int((settings.window_s - 2 * settings.pad_s) / FRAME_S)
    runs = speech_runs(probabilities, settings)
    is_speech = np.zeros(len(probabilities) + 1)
    for begin, end in runs:
        is_speech[begin + 1 : end + 1] = 1
    speech_before = np.cumsum(is_speech)
    windows = _merge([piece for run in runs for piece in _split(run, probabilities, limit)], limit)
    pad = settings.pad_s / FRAME_S  # in frames, as all below: neighbours then meet at one number
    found = []
    for index, (begin, end) in enumerate(windows):
        before = begin - windows[index - 1][1] if index else 2 * begin
        after = windows[index + 1][0] - end if index + 1 < len(windows) else 2 * (len(probabilities) - end)
        start_s = (begin - min(pad, before / 2)) * FRAME_S
        end_s = min((end + min(pad, after / 2)) * FRAME_S, duration_s)
        if end_s > start_s:
            ratio = (speech_before[end] - speech_before[begin]) * FRAME_S / (end_s - start_s)
            found.append(Segment(start_s, end_s, min(1.0, float(ratio))))
    return found


def speech_share(samples: np.ndarray, sample_rate: int) -> float:
    """Share of speech, 0 to 1, in a short clip (float32 mono, shape (n,), n > 0); 0 where there is none at all.

    A clip that is cut close to a word, or quiet, is over before the detector has made up its mind: of FSDD's lone words
    2% looked like noise to it. So it hears the clip at one level, after a pause, twice, and the second time counts: now
    one of 375 words had no frame of speech, nor had any of 15 noises one. The threshold is Silero's own default.
    """
    level = float(np.abs(samples).max())
    clip = samples * (_LEVEL / level) if level > 0 else samples
    pause = np.zeros(int(_PAUSE_S * sample_rate), samples.dtype)
    probabilities = speech_probabilities(np.concatenate([pause, clip, clip]), sample_rate)
    second = probabilities[-max(1, round(len(clip) / sample_rate / FRAME_S)) :]
    return float((second >= _THRESHOLD).mean())


class Segmenter:
    """Cuts recordings longer than one window; shorter ones are one utterance as they are."""

    def __init__(self, settings: SegmentationSettings) -> None:
        self.settings = settings

    def cut(self, recordings: Sequence[np.ndarray], sample_rate: int) -> list[list[Segment]]:
        """Utterances of each recording (float32 mono, shape (n,)); an empty list where there is no speech."""
        return [self._cut(samples, sample_rate) for samples in recordings]

    def _cut(self, samples: np.ndarray, sample_rate: int) -> list[Segment]:
        duration_s = len(samples) / sample_rate
        if duration_s <= self.settings.window_s:
            return [Segment(0.0, duration_s, None)]
        return segments(speech_probabilities(samples, sample_rate), duration_s, self.settings)
