"""Training speech: digit strings with pauses, channels and noise, and recordings in which nobody speaks."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from infra.demo.augment import at_level, background, through_channel
from infra.demo.clips import SAMPLE_RATE, Clip, at_speeds, espeak_clips, read_fsdd

LEVEL_SPREAD_DB = 25.0  # at most, between the words of one string; FSDD's recordings lie that far apart
PHRASE_GAP_S = 0.6  # a longer pause ends a phrase; none is drawn between 0.45 s and 0.8 s, so that it is plain to hear
FSDD_SHARE = 0.65  # of the clips drawn, where there are recordings; the rest are espeak-ng voices
COPIES = 8  # of each recording, each as another speaker would have said it
SILENT = 10  # the label, beside the ten digits, of a frame in which none sounds


@dataclass(frozen=True)
class Spoken:
    """A digit's place in an example, in seconds."""

    digit: int
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Example:
    """``samples`` (n,) at 16 kHz and everything said in them, in order; ``cut`` when speech runs on past the end."""

    samples: np.ndarray
    spoken: tuple[Spoken, ...]
    cut: bool = False

    @property
    def digits(self) -> tuple[int, ...]:
        return tuple(spoken.digit for spoken in self.spoken)

    def sounding(self, frames: int, rate_hz: float) -> np.ndarray:
        """Which digit sounds in each of (frames,) frames; ``SILENT`` where none does."""
        labels = np.full(frames, SILENT)
        for spoken in self.spoken:
            labels[round(spoken.start_s * rate_hz) : round(spoken.end_s * rate_hz)] = spoken.digit
        return labels

    def centred(self, seconds: float) -> Example:
        """The same amid digital silence, ``seconds`` in all; unchanged where it is as long already."""
        missing = int(seconds * SAMPLE_RATE) - len(self.samples)
        if missing <= 0:
            return self
        before = missing // 2
        shift_s = before / SAMPLE_RATE
        spoken = tuple(replace(one, start_s=one.start_s + shift_s, end_s=one.end_s + shift_s) for one in self.spoken)
        return Example(np.pad(self.samples, (before, missing - before)), spoken, self.cut)


def _placed(clip: Clip, position: int) -> list[Spoken]:
    """The digits of a clip that begins at sample ``position``."""
    bounds = [(position + start) / SAMPLE_RATE for start in (*clip.starts, len(clip.samples))]
    return [Spoken(digit, *bounds[index : index + 2]) for index, digit in enumerate(clip.digits)]


class Speech:
    """Draws examples from pools of clips; the same generator state gives the same examples."""

    def __init__(self, pools: Sequence[Sequence[Clip]], weights: Sequence[float], rng: np.random.Generator) -> None:
        self.pools = pools
        self.weights = np.asarray(weights) / np.sum(weights)
        self.rng = rng
        self.harshness = 1.0  # at most: 0 gives clean speech at an even level, 1 all that may befall a recording
        self.by_speaker: list[dict[str, list[Clip]]] = []
        for pool in pools:
            speakers: dict[str, list[Clip]] = {}
            for clip in pool:
                speakers.setdefault(clip.speaker, []).append(clip)
            self.by_speaker.append({name: clips for name, clips in speakers.items() if len(clips) >= 8})

    def _source(self) -> Sequence[Clip]:
        """One speaker's clips, or a whole pool (every word by another voice)."""
        index = int(self.rng.choice(len(self.pools), p=self.weights))
        speakers = self.by_speaker[index]
        if speakers and self.rng.random() < 0.5:
            return speakers[list(speakers)[int(self.rng.integers(len(speakers)))]]
        return self.pools[index]

    def _pause(self, long_share: float) -> float:
        """Seconds between two clips: mostly within a phrase, sometimes between phrases."""
        if self.rng.random() < long_share:
            return float(0.8 + self.rng.exponential(1.0))
        return float(self.rng.uniform(0.02, 0.45) if self.rng.random() < 0.8 else self.rng.uniform(0.0, 0.05))

    def string(self, words: int, max_s: float, cut_start: bool = False) -> Example:
        """About ``words`` digits with pauses, at most ``max_s`` long; what does not fit is left out, or cut off.

        With ``cut_start`` the end of one more word comes first, as where a longer recording was cut.
        """
        rng = self.rng
        source = self._source()
        spread_db = 0.0 if rng.random() < 0.4 else rng.uniform(0, LEVEL_SPREAD_DB)
        long_share = float(rng.choice([0.0, 0.1, 0.3]))
        pieces: list[np.ndarray] = []
        spoken: list[Spoken] = []
        limit = int(max_s * SAMPLE_RATE)
        position = 0
        if cut_start:
            clip = source[int(rng.integers(len(source)))]
            level = np.sqrt((clip.samples**2).mean() + 1e-9) * 10
            kept = int(min(0.3 * SAMPLE_RATE, len(clip.samples) * rng.uniform(0.1, 0.4)))
            pieces.append((clip.samples[-kept:] / level).astype(np.float32))
            position = kept
            pieces.append(np.zeros(int(self._pause(0.1) * SAMPLE_RATE), np.float32))
            position += len(pieces[-1])
        elif rng.random() < 0.7:
            lead = self._pause(0.15) if rng.random() < 0.8 else rng.uniform(0, max_s / 2)
            position = min(int(lead * SAMPLE_RATE), limit // 2)
            pieces.append(np.zeros(position, np.float32))
        cut = False
        count = 0
        while count < words:
            clip = source[int(rng.integers(len(source)))]
            if count and count + len(clip.digits) > words:
                break
            level = np.sqrt((clip.samples**2).mean() + 1e-9) * 10
            samples = clip.samples / level * 10 ** (rng.uniform(-spread_db, 0) / 20)
            if position + len(samples) > limit:
                # Either the recording stops in the pause, or within the next word, of which little is heard.
                if rng.random() < 0.6 and spoken and len(clip.digits) == 1:
                    heard = min(limit - position, int(len(samples) * rng.uniform(0.1, 0.5)))
                    pieces.append(samples[:heard])
                    cut = True
                break
            pieces.append(samples.astype(np.float32))
            spoken += _placed(clip, position)
            position += len(samples)
            count += len(clip.digits)
            gap = min(int(self._pause(long_share) * SAMPLE_RATE), max(0, limit - position))
            if count < words:
                pieces.append(np.zeros(gap, np.float32))
                position += gap
        if not spoken:  # nothing has fitted
            return self.single(max_s)
        if not cut and rng.random() < 0.5:
            tail = min(int(self._pause(0.2) * SAMPLE_RATE), max(0, limit - position))
            pieces.append(np.zeros(tail, np.float32))
        return Example(self._recorded(np.concatenate(pieces)), tuple(spoken), cut)

    def single(self, max_s: float = 30.0) -> Example:
        """One clip of at most ``max_s`` and next to nothing around it."""
        while True:
            source = self._source()
            clip = source[int(self.rng.integers(len(source)))]
            if len(clip.samples) < (max_s - 0.2) * SAMPLE_RATE:
                break
        before, after = (int(self.rng.uniform(0, 0.1) * SAMPLE_RATE * (self.rng.random() < 0.5)) for _ in range(2))
        samples = np.pad(clip.samples, (before, after))
        return Example(self._recorded(samples), tuple(_placed(clip, before)))

    def nothing(self, max_s: float) -> Example:
        """Noise, sounds, a murmur of many voices played backwards, or silence: nothing that could be written down."""
        rng = self.rng
        n = int(rng.uniform(0.2, max_s) * SAMPLE_RATE)
        kind = rng.random()
        if kind < 0.1:
            return Example(np.zeros(n, np.float32), ())
        if kind < 0.2:
            return Example(at_level(background(n, rng), rng) * 10 ** rng.uniform(-4, 0), ())
        if kind < 0.3:
            murmur = np.zeros(n, np.float32)
            for _ in range(int(n / SAMPLE_RATE * 16) + 8):
                source = self.pools[int(rng.integers(len(self.pools)))]
                samples = source[int(rng.integers(len(source)))].samples[::-1][:n]
                start = int(rng.integers(0, n - len(samples) + 1))
                murmur[start : start + len(samples)] += samples
            return Example(at_level(through_channel(murmur, rng), rng), ())
        noise = background(n, rng)
        if rng.random() < 0.4:
            noise = through_channel(noise, rng)
        return Example(at_level(noise, rng), ())

    def _recorded(self, samples: np.ndarray) -> np.ndarray:
        """Through a channel, with noise at an SNR of 0 to 40 dB, at some level; each only sometimes."""
        rng = self.rng
        harshness = self.harshness * rng.random()  # most recordings are kind
        if rng.random() < 1.5 * harshness:
            samples = through_channel(samples, rng)
        if rng.random() < 1.2 * harshness:
            active = samples[np.abs(samples) > 0.02 * np.abs(samples).max()]
            power = float((active**2).mean())
            snr_db = rng.uniform(40 - 40 * harshness, 40)
            samples = samples + background(len(samples), rng) * np.sqrt(power / 10 ** (snr_db / 10))
        return at_level(samples, rng, lowest_db=-6 - 30 * harshness)


def pools(
    fsdd_tar: Path | None, espeak_count: int, rng: np.random.Generator, without: str | None = None
) -> tuple[list[list[Clip]], list[float]]:
    """The clips to draw from and how often: espeak-ng voices, and, with a tar, FSDD's speakers at many speeds, all or
    all but one."""
    synthetic = espeak_clips(espeak_count, rng)
    if fsdd_tar is None:
        return [synthetic], [1.0]
    recorded = [clip for clip in read_fsdd(fsdd_tar) if clip.speaker != without]
    return [at_speeds(recorded, COPIES, rng), synthetic], [FSDD_SHARE, 1 - FSDD_SHARE]


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The command line that both trainings share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="where to write it")
    parser.add_argument("--fsdd", type=Path, metavar="TAR", help="recorded digits; without them, espeak-ng alone")
    parser.add_argument("--without-speaker", help="leave this FSDD speaker out")
    parser.add_argument("--start", type=Path, metavar="CHECKPOINT", help="go on from this one")
    parser.add_argument("--espeak-clips", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=1)
    return parser
