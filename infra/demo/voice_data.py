"""What the digit voice learns from: espeak-ng's demo speakers reading digits, with where each letter begins."""

from __future__ import annotations

from dataclasses import dataclass

import librosa
import numpy as np
import soxr

from infra.demo.clips import DIGITS, SAMPLE_RATE
from infra.demo.corpus import SPEAKERS, Speaker
from workers.engines.espeak import EspeakSynthesizer

VOICES = tuple(one for one in SPEAKERS if one.name in ("amelia", "benedict", "clara", "harold"))
HOP, WINDOW, N_FFT, BANDS = 256, 800, 1024, 80  # samples; the log-mel that FastPitch makes and HiFi-GAN hears
MARGIN_S = 0.06  # silence kept at both ends
LEVEL = 0.08  # root mean square of every recording
VOICED_HZ = (60.0, 400.0)


@dataclass(frozen=True)
class Reading:
    """``samples`` (n,) at 16 kHz of one text; ``frames`` and ``pitch_hz`` (letters,), spaces around it included.

    A letter's frames are its word's, shared out evenly: espeak-ng tells where words begin. A pitch of 0 is unvoiced.
    """

    text: str
    speaker: int
    samples: np.ndarray
    frames: np.ndarray
    pitch_hz: np.ndarray


def text_of(rng: np.random.Generator) -> str:
    """One to five digits, some with commas between them or a full stop at the end."""
    words = [DIGITS[digit] for digit in rng.integers(0, 10, int(rng.integers(1, 6)))]
    comma = float(rng.choice([0.0, 0.0, 0.2, 1.0]))
    text = words[0] + "".join(("," if rng.random() < comma else "") + " " + word for word in words[1:])
    return text + str(rng.choice(["", "", "."]))


def read(engine: EspeakSynthesizer, text: str, speaker: Speaker) -> Reading | None:
    """One text by one speaker; None where espeak-ng counts its words otherwise."""
    speech, starts = engine.speak_words(text, speaker.voice, rate_wpm=speaker.rate_wpm, pitch=speaker.pitch)
    if len(starts) != len(text.split()):
        return None
    samples = soxr.resample(speech.samples, speech.sample_rate, SAMPLE_RATE).astype(np.float32)
    loud = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max())
    margin = int(MARGIN_S * SAMPLE_RATE)
    first, last = loud[0], loud[-1] + 1
    samples = np.pad(samples[first:last], (margin, margin))
    samples = samples * (LEVEL / np.sqrt((samples**2).mean()))
    total = len(samples) // HOP
    # Word by word: from its start to where it falls silent; the rest, up to the next word, is the space after it.
    begins = [margin, *(int(start * SAMPLE_RATE) - first + margin for start in starts[1:]), len(samples)]
    bounds = [0, round(margin / HOP)]  # of the space before the text, in frames
    for word, begin, end in zip(text.split(), begins, begins[1:], strict=False):
        heard = np.flatnonzero(np.abs(samples[begin:end]) > 0.01 * np.abs(samples).max())
        stop = begin + (int(heard[-1]) if len(heard) else end - begin)
        edges = np.linspace(begin, max(stop, begin + HOP), len(word.strip(",.")) + 1)[1:] / HOP
        bounds += [round(edge) for edge in edges]
        if word[-1] in ",.":  # a mark takes half of the pause behind it
            bounds.append(round((stop + end) / 2 / HOP))
        bounds.append(round(end / HOP))
    bounds[-1] = total
    frames = np.diff(np.maximum.accumulate(np.minimum(bounds, total)))
    return Reading(text, VOICES.index(speaker), samples[: total * HOP], frames, _pitch(samples, frames))


def _pitch(samples: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Mean fundamental frequency, Hz, of the loud frames of each letter, by YIN."""
    hz = librosa.yin(samples, fmin=VOICED_HZ[0], fmax=VOICED_HZ[1], sr=SAMPLE_RATE, frame_length=1024, hop_length=HOP)
    loud = librosa.feature.rms(y=samples, frame_length=1024, hop_length=HOP)[0] > 0.02
    voiced = loud[: len(hz)] & (hz > VOICED_HZ[0] * 1.05) & (hz < VOICED_HZ[1] * 0.95)
    ends = np.cumsum(frames)
    means = [
        hz[start:end][voiced[start:end]].mean() if voiced[start:end].any() else 0.0
        for start, end in zip(ends - frames, ends, strict=True)
    ]
    return np.asarray(means, np.float32)


def readings(count: int, rng: np.random.Generator) -> list[Reading]:
    """About ``count`` texts, each read by one of VOICES in turn."""
    engine = EspeakSynthesizer("en-us")
    found = (read(engine, text_of(rng), VOICES[index % len(VOICES)]) for index in range(count))
    return [one for one in found if one is not None]
