"""Spoken digits to build training speech from: FSDD recordings and espeak-ng voices, all mono float32 at 16 kHz."""

from __future__ import annotations

import csv
import io
import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import librosa
import numpy as np
import soundfile
import soxr

from workers.engines.espeak import EspeakSynthesizer, variants

SAMPLE_RATE = 16_000  # Hz, what both models hear
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

ENGLISH = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-gb-x-rp", "en-us-nyc", "en-029")

# English digits spelt so that a voice of another language says them with its own sounds: a foreign accent.
ACCENTS = {
    "de": ("siro", "wann", "tu", "sri", "for", "feif", "siks", "sewen", "eit", "nein"),
    "fr": ("ziro", "ouane", "tou", "sri", "for", "faïve", "sixe", "sevenne", "eïte", "naïne"),
    "nl": ("ziro", "wan", "toe", "srie", "foor", "faif", "siks", "sevven", "eet", "nain"),
    "es": ("siro", "uan", "tu", "zri", "for", "faiv", "siks", "seven", "eit", "nain"),
    "it": ("ziro", "uan", "tu", "tri", "for", "faiv", "sics", "seven", "eit", "nain"),
    "pl": ("ziro", "łan", "tu", "tri", "for", "fajw", "siks", "sewen", "ejt", "najn"),
}

# Variants of espeak-ng's voices that sound like no person.
INHUMAN = re.compile("robo|whisper|croak|demonic|tweaky|storm|fast|ricishay|serious|anxious", re.IGNORECASE)


@dataclass(frozen=True)
class Clip:
    """One stretch of speech without pauses at its ends: ``samples`` (n,) at 16 kHz, and the digits said in it, with the
    sample at which each begins."""

    samples: np.ndarray
    digits: tuple[int, ...]
    speaker: str
    starts: tuple[int, ...] = (0,)


def audible(samples: np.ndarray, floor: float = 0.01, margin_s: float = 0.02) -> slice:
    """All of (n,) samples but what lies below ``floor`` times the peak at both ends; ``margin_s`` of that stays."""
    loud = np.flatnonzero(np.abs(samples) > floor * np.abs(samples).max())
    margin = int(margin_s * SAMPLE_RATE)
    return slice(max(0, int(loud[0]) - margin), int(loud[-1]) + margin)


def read_fsdd(tar: Path) -> list[Clip]:
    """Every clip of an FSDD tar at its natural speed; the transcripts lie beside it, ``<stem>.transcripts.tsv``.

    Clips are resampled from 8 to 16 kHz by soxr and keep their bounds. Raises FileNotFoundError, and KeyError for a
    member without a transcript.
    """
    with open(tar.with_suffix(".transcripts.tsv"), newline="", encoding="utf-8") as table:
        rows = {row["file"]: row for row in csv.DictReader(table, delimiter="\t")}
    clips = []
    with tarfile.open(tar) as archive:
        for member in archive:
            stream = archive.extractfile(member)
            if stream is None:
                continue
            samples, rate = soundfile.read(io.BytesIO(stream.read()), dtype="float32")
            row = rows[member.name]
            clips.append(Clip(soxr.resample(samples, rate, SAMPLE_RATE), (DIGITS.index(row["text"]),), row["speaker"]))
    return clips


def at_speeds(clips: Sequence[Clip], copies: int, rng: np.random.Generator) -> list[Clip]:
    """The clips, trimmed, plus ``copies`` of each played at 0.77 to 1.3 times the speed.

    Playing faster raises pitch and formants together, as a shorter vocal tract does: each copy is another speaker.
    Every other copy is also stretched in time alone, by a phase vocoder: the other speaker talks at another pace.
    """
    natural = [Clip(clip.samples[audible(clip.samples)], clip.digits, clip.speaker) for clip in clips]
    pool = list(natural)
    for copy in range(copies):
        for clip in natural:
            speed = 1.3 ** rng.uniform(-1, 1)
            samples = soxr.resample(clip.samples, SAMPLE_RATE * speed, SAMPLE_RATE, quality="MQ")
            if copy % 2:
                samples = librosa.effects.time_stretch(samples, rate=1.35 ** rng.uniform(-1, 1), n_fft=512)
            pool.append(Clip(samples, clip.digits, f"{clip.speaker}-{copy}"))
    return pool


def espeak_clips(count: int, rng: np.random.Generator) -> list[Clip]:
    """About ``count`` stretches of synthetic speech in random voices: two thirds single digits, else strings."""
    engine = EspeakSynthesizer(ENGLISH[0])
    people = [variant for variant in variants() if not INHUMAN.search(variant)]
    pool = []
    for _ in range(count):
        accented = rng.random() < 0.2
        language = str(rng.choice(list(ACCENTS) if accented else list(ENGLISH)))
        words = ACCENTS[language] if accented else DIGITS
        voice = language if rng.random() < 0.1 else f"{language}+{rng.choice(people)}"
        length = 1 if rng.random() < 0.67 else int(rng.integers(2, 7))
        digits = tuple(int(digit) for digit in rng.integers(0, 10, length))
        text = " ".join(words[digit] for digit in digits)
        if rng.random() < 0.3:
            text = text.replace(" ", ", ")
        text += str(rng.choice(["", ".", ",", "?", "!"]))
        speech, starts = engine.speak_words(
            text,
            voice,
            rate_wpm=int(rng.integers(100, 260)),
            pitch=int(rng.integers(10, 90)),
            pitch_range=int(rng.integers(10, 90)),
        )
        speed = 1.2 ** rng.uniform(-1, 1)
        samples = soxr.resample(speech.samples, speech.sample_rate * speed, SAMPLE_RATE, quality="MQ")
        if len(starts) != length:  # espeak-ng took two words for one, or one for two
            continue
        kept = audible(samples)
        begins = tuple(max(0, int(start / speed * SAMPLE_RATE) - kept.start) for start in starts)
        pool.append(Clip(samples[kept], digits, voice, (0, *begins[1:])))
    return pool
