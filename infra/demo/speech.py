"""Training speech: digit strings with pauses, channels and noise, and recordings in which nobody speaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from infra.demo.augment import at_level, background, through_channel
from infra.demo.clips import SAMPLE_RATE, Clip

PHRASE_GAP_S = 0.6  # a longer pause ends a phrase; none is drawn between 0.45 s and 0.8 s, so that it is plain to hear


@dataclass(frozen=True)
class Spoken:
    """A clip's place in an example, in seconds."""

    digits: tuple[int, ...]
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
        return tuple(digit for spoken in self.spoken for digit in spoken.digits)


class Speech:
    """Draws examples from pools of clips; the same generator state gives the same examples."""

    def __init__(self, pools: Sequence[Sequence[Clip]], weights: Sequence[float], rng: np.random.Generator) -> None:
        self.pools = pools
        self.weights = np.asarray(weights) / np.sum(weights)
        self.rng = rng
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

    def string(self, words: int, max_s: float) -> Example:
        """About ``words`` digits with pauses, at most ``max_s`` long; what does not fit is left out, or cut off."""
        rng = self.rng
        source = self._source()
        same_level = rng.random() < 0.6
        long_share = float(rng.choice([0.0, 0.1, 0.3]))
        pieces: list[np.ndarray] = []
        spoken: list[Spoken] = []
        limit = int(max_s * SAMPLE_RATE)
        position = 0
        if rng.random() < 0.7:
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
            samples = clip.samples / level * (1.0 if same_level else 10 ** (rng.uniform(-10, 0) / 20))
            if position + len(samples) > limit:
                # Either the recording stops in the pause, or within the next word, of which little is heard.
                if rng.random() < 0.6 and spoken and len(clip.digits) == 1:
                    heard = min(limit - position, int(len(samples) * rng.uniform(0.1, 0.5)))
                    pieces.append(samples[:heard])
                    cut = True
                break
            start = position
            pieces.append(samples.astype(np.float32))
            position += len(samples)
            spoken.append(Spoken(clip.digits, start / SAMPLE_RATE, position / SAMPLE_RATE))
            count += len(clip.digits)
            gap = min(int(self._pause(long_share) * SAMPLE_RATE), max(0, limit - position))
            if count < words:
                pieces.append(np.zeros(gap, np.float32))
                position += gap
        if not cut and rng.random() < 0.5:
            tail = min(int(self._pause(0.2) * SAMPLE_RATE), max(0, limit - position))
            pieces.append(np.zeros(tail, np.float32))
        return Example(self._recorded(np.concatenate(pieces)), tuple(spoken), cut)

    def single(self) -> Example:
        """One clip and next to nothing around it."""
        source = self._source()
        clip = source[int(self.rng.integers(len(source)))]
        before, after = (int(self.rng.uniform(0, 0.1) * SAMPLE_RATE * (self.rng.random() < 0.5)) for _ in range(2))
        samples = np.pad(clip.samples, (before, after))
        end = before + len(clip.samples)
        return Example(self._recorded(samples), (Spoken(clip.digits, before / SAMPLE_RATE, end / SAMPLE_RATE),))

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
        """Through a channel, with noise at an SNR of 0 to 40 dB in two of three, at some level."""
        rng = self.rng
        if rng.random() < 0.85:
            samples = through_channel(samples, rng)
        if rng.random() < 0.65:
            active = samples[np.abs(samples) > 0.02 * np.abs(samples).max()]
            power = float((active**2).mean())
            snr_db = rng.uniform(0, 40)
            samples = samples + background(len(samples), rng) * np.sqrt(power / 10 ** (snr_db / 10))
        return at_level(samples, rng)
