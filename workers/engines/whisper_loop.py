"""The loop of ``whisper.transcribe`` for many recordings at once, whichever library computes the model.

Every recording keeps a position of its own; each round decodes the current window of all that are not finished, in
batches. What happens to a window (timestamps, seek, guards, fallback temperatures) is what ``whisper.transcribe`` does
with ``condition_on_previous_text=False``, so that at temperature 0 the tokens are the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from blake3 import blake3
from whisper.audio import CHUNK_LENGTH, HOP_LENGTH, N_FFT, N_FRAMES, N_SAMPLES, SAMPLE_RATE, mel_filters
from whisper.decoding import DecodingResult
from whisper.tokenizer import LANGUAGES, Tokenizer, get_tokenizer
from whisper.utils import get_end

from schemas.config import AsrSettings
from schemas.errors import VoxmillError
from schemas.reasons import Reason
from workers.engines.base import Failure, Padding, Transcription, Word
from workers.engines.batching import Capacity, plan_batches, run_batches
from workers.engines.whisper_languages import language_code

# the published guards: defaults of whisper.transcribe, from section 4.5 of arXiv:2212.04356
COMPRESSION_RATIO = 2.4
LOGPROB = -1.0
NO_SPEECH = 0.6
TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)

FRAMES_PER_TICK = 2  # mel frames per timestamp token: 20 ms
SECONDS_PER_TICK = FRAMES_PER_TICK * HOP_LENGTH / SAMPLE_RATE
FRAMES_PER_S = SAMPLE_RATE // HOP_LENGTH
_FITTED_STEP = FRAMES_PER_S  # fitted windows last whole seconds, so that clips of similar length share a batch
FITTED_MARGIN = 100  # frames of silence that a fitted window keeps after its audio
_TOGETHER = 4  # batches whose failures are decoded again together: what is kept of them until then is bounded
_MEL_SAMPLES = 120 * SAMPLE_RATE  # audio whose spectrogram is computed at once: some 50 MB of intermediate values


@dataclass
class Recording:
    """One clip on its way: ``mel`` (n_mels, frames); ``seek`` and ``frames`` in mel frames, times in seconds."""

    clip: np.ndarray
    language: str | None
    mel: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    floor: float = 0.0  # what the spectrogram of digital silence is in this recording
    detected: tuple[str, float] | None = None  # most probable language and its probability
    seek: int = 0
    tokens: list[int] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)
    last_speech: float = 0.0
    results: list[tuple[DecodingResult, bool]] = field(default_factory=list)  # with whether it was kept
    encoded: Any = None  # the current window as a batch of one, while it waits to be decoded again
    failure: Failure | None = None

    @property
    def frames(self) -> int:
        return len(self.clip) // HOP_LENGTH

    @property
    def window(self) -> int:
        """Frames of the current window."""
        return min(N_FRAMES, self.frames - self.seek)

    @property
    def active(self) -> bool:
        return self.failure is None and self.seek < self.frames

    def add_word(self, text: str, start_s: float, end_s: float, probability: float) -> None:
        """Take a word over as the library times it, but inside the clip and not before the end of the word before it.

        The library lets words reach into one another where segments meet, and rounds beyond the end of the clip.
        """
        length_s = len(self.clip) / SAMPLE_RATE
        start = min(max(float(start_s), self.words[-1].end_s if self.words else 0.0), length_s)
        self.words.append(Word(text, start, min(max(float(end_s), start), length_s), float(probability)))

    def seed(self) -> int:
        """Seed of the current window's draws: from the samples, so that neither batch mates nor order matter."""
        samples = np.ascontiguousarray(self.clip, dtype="<f4")
        return int.from_bytes(blake3(samples.tobytes() + self.seek.to_bytes(8, "little")).digest(8), "little")


def needs_fallback(result: DecodingResult) -> bool:
    """Whether a window must be decoded again at a higher temperature: it loops, or is improbable and not silence."""
    improbable = result.avg_logprob < LOGPROB
    if improbable and result.no_speech_prob > NO_SPEECH:
        return False
    return improbable or result.compression_ratio > COMPRESSION_RATIO


def _checked(result: DecodingResult) -> DecodingResult | Failure:
    """``result`` without its features, so that they are freed with the batch.

    Where the model computed no finite numbers, a failure: the result would pass every guard, for no comparison with
    its numbers holds.
    """
    if np.isfinite(result.avg_logprob) and np.isfinite(result.no_speech_prob):
        return replace(result, audio_features=None, language_probs=None)
    return Failure(Reason.ENGINE_FAILED, "what the model computes of it are no finite numbers")


class WhisperLoop(ABC):
    """What the :class:`~workers.engines.base.Transcriber` of every Whisper library does around its model.

    ``n_mels`` and ``num_languages`` (0: English only) are the model's; ``windows`` of 30 s make a batch at most.
    Raises VoxmillError where an English-only model is to translate, where the model does not know the language of the
    settings, and where their prompt holds its special tokens.
    """

    sample_rate = SAMPLE_RATE

    def __init__(
        self, spec: str, settings: AsrSettings, device: torch.device, n_mels: int, num_languages: int, windows: int
    ) -> None:
        if settings.task == "translate" and not num_languages:
            raise VoxmillError("an English-only model cannot translate", spec, "Choose a multilingual one.")
        self.spec, self.settings, self.device, self.n_mels = spec, settings, device, n_mels
        self.multilingual, self.num_languages = num_languages > 0, num_languages or 99
        self.capacity = Capacity(windows * CHUNK_LENGTH, max_waste=0.0)
        self.mel_capacity = Capacity(min(_MEL_SAMPLES, windows * N_SAMPLES))
        self.padding = Padding()
        self.tokenizer = self._tokenizer("en")
        self.languages = list(LANGUAGES)[:num_languages] if self.multilingual else ["en"]
        if settings.language and language_code(settings.language, self.languages) is None:
            what = f"the model does not know the language {settings.language!r} of asr.language"
            do = "Give a code or English name of a language that it knows, or none to have it detected."
            raise VoxmillError(what, spec, do if self.multilingual else "Choose a multilingual one.")

        try:
            self.tokenizer.encode(settings.initial_prompt or "")
        except ValueError as error:  # every window would fail with it
            what = f"asr.initial_prompt {settings.initial_prompt!r} holds one of the model's special tokens"
            raise VoxmillError(what, spec, "Leave out what stands between <| and |>.") from error

    @abstractmethod
    def _encode(self, windows: list[torch.Tensor]) -> Any:
        """Encode windows of one length, each (n_mels, frames), into an array with a row per window."""

    @abstractmethod
    def _most_probable(self, features: Any) -> list[tuple[str, float]]:
        """The most probable language of each encoded window, and its probability among all languages."""

    @abstractmethod
    def _decode_once(
        self, features: Any, temperature: float, languages: list[str], seeds: list[int]
    ) -> list[DecodingResult]:
        """Decode encoded windows at one temperature; ``seeds`` fix the draws of each, where it is above 0.

        ``language_probs`` hold the most probable language where decoding tells it, whatever language was given.
        """

    @abstractmethod
    def _align(self, item: Recording, segments: list[dict[str, Any]], window: torch.Tensor, size: int) -> None:
        """Fill ``words`` of ``segments`` in place, with times from the cross-attention."""

    def _tokenizer(self, language: str | None) -> Tokenizer:
        return get_tokenizer(
            self.multilingual, num_languages=self.num_languages, language=language, task=self.settings.task
        )

    def transcribe(self, clips: Sequence[np.ndarray], languages: Sequence[str | None]) -> list[Transcription | Failure]:
        """Transcribe 16 kHz ``clips`` of any length; a language that is None or unknown to the model is detected.

        A language that is given is checked: what the first window sounds like is told beside it.

        Of a recording of several windows: ``avg_logprob`` is the mean over all tokens kept, ``no_speech_prob`` the
        least of any window (the recording is silent only if all of it is), ``compression_ratio`` and ``temperature``
        the highest. ``words`` are filled where the settings ask for them.
        """
        items = [
            Recording(clip, "en" if not self.multilingual else language_code(language, self.languages))
            for clip, language in zip(clips, languages, strict=True)
        ]
        with torch.inference_mode():
            self._spectrograms(items)
            apart = [item for item in items if item.active and item.language is None and not self._hears_once(item)]
            self._detect(apart)
            while active := [item for item in items if item.active]:
                self._round(sorted(active, key=lambda item: -item.window))
        return [self._answer(item) for item in items]

    def detect(self, clips: Sequence[np.ndarray]) -> list[str | None]:
        """The language of each of 16 kHz ``clips``, as :meth:`transcribe` detects it."""
        if not self.multilingual:
            return ["en"] * len(clips)
        items = [Recording(clip, None) for clip in clips]
        with torch.inference_mode():
            self._spectrograms(items)
            self._detect([item for item in items if item.active and not self._hears_once(item)])
            self._pass([item for item in items if item.active and item.language is None], self._listen)
        return [item.language if item.failure is None else None for item in items]

    def _each(self, items: list[Recording], capacity: Capacity, lengths: list[float], process: Any) -> list[Any]:
        """``process`` batches of ``items``; those that failed are marked. Answers in order, None for failures."""
        answers = run_batches(lengths, capacity, lambda batch: process([items[i] for i in batch]), self._release)
        for item, answer in zip(items, answers, strict=True):
            if isinstance(answer, Failure):
                item.failure = answer
        return [None if isinstance(answer, Failure) else answer for answer in answers]

    def _release(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _spectrograms(self, items: list[Recording]) -> None:
        """``whisper.audio.log_mel_spectrogram`` of a padded batch; frames beyond a clip's own are left out."""
        for item in items:
            if not np.isfinite(item.clip).all():
                item.failure = Failure(Reason.NON_FINITE, "the samples are not all finite numbers")
        items = [item for item in items if item.active]

        def process(batch: list[Recording]) -> list[tuple[torch.Tensor, float]]:
            longest = max(len(item.clip) for item in batch)
            samples = np.zeros((len(batch), longest + N_FFT), np.float32)
            for row, item in zip(samples, batch, strict=True):
                row[: len(item.clip)] = item.clip
            audio = torch.from_numpy(samples).to(self.device)
            window = torch.hann_window(N_FFT, device=self.device)
            power = torch.stft(audio, N_FFT, HOP_LENGTH, window=window, return_complex=True)[..., :-1].abs() ** 2
            mel = mel_filters(self.device, self.n_mels) @ power
            log = torch.clamp(mel, min=1e-10).log10()
            floor = log.amax(dim=(1, 2), keepdim=True) - 8.0
            log = (torch.maximum(log, floor) + 4.0) / 4.0
            silence = ((floor.clamp(min=-10.0) + 4.0) / 4.0).flatten().tolist()
            # three frames after the last whole one still hold the clip's end
            return [
                (row[:, : item.frames + 3].clone(), low) for row, item, low in zip(log, batch, silence, strict=True)
            ]

        answers = self._each(items, self.mel_capacity, [float(len(item.clip)) for item in items], process)
        for item, answer in zip(items, answers, strict=True):
            if answer is not None:
                item.mel, item.floor = answer

    def _detect(self, items: list[Recording]) -> None:
        """The most probable language of each recording's first 30 s, padded with silence as the library does."""

        def process(batch: list[Recording]) -> list[tuple[str, float]]:
            windows = []
            for item in batch:
                window = torch.full((item.mel.shape[0], N_FRAMES), item.floor, device=self.device)
                first = item.mel[:, :N_FRAMES]
                window[:, : first.shape[1]] = first
                windows.append(window)
            return self._most_probable(self._encode(windows))

        lengths = [float(CHUNK_LENGTH)] * len(items)
        for item, detected in zip(items, self._each(items, self.capacity, lengths, process), strict=True):
            if detected is not None:
                item.language, item.detected = detected[0], detected

    def _hears_once(self, item: Recording) -> bool:
        """Whether the first window that is decoded tells the language as well, so that it is encoded once.

        The library pads the window of the one with zeros, that of the other with the recording's own silence.
        """
        return self.settings.whisper_window == "fitted" or item.frames >= N_FRAMES

    def _hear(self, items: list[Recording], features: Any, chosen: list[int]) -> None:
        """What language the ``chosen`` items sound like, by their first windows, encoded already; their language,
        where they have none."""
        if chosen:
            rows = features if len(chosen) == len(items) else features[chosen]
            for i, detected in zip(chosen, self._most_probable(rows), strict=True):
                items[i].detected, items[i].language = detected, items[i].language or detected[0]

    def _round(self, items: list[Recording]) -> None:
        """Decode the current window of every item and move each to its next; some batches at a time."""
        batches = plan_batches([self._width(item.window) / FRAMES_PER_S for item in items], self.capacity)
        for start in range(0, len(batches), _TOGETHER):
            some = [items[i] for batch in batches[start : start + _TOGETHER] for i in batch]  # planned as they were
            for item, result in zip(some, self._decode(some), strict=True):
                if result is not None:  # word alignment is a call of the library per item, and may fail as decoding may
                    advance = partial(self._advance, item, result)
                    self._each([item], self.capacity, [0.0], lambda _, advance=advance: [advance()])

    def _width(self, size: int) -> int:
        """Frames of the window that ``size`` frames of audio are encoded in."""
        if self.settings.whisper_window == "full":
            return N_FRAMES
        return min(N_FRAMES, -(-(size + FITTED_MARGIN) // _FITTED_STEP) * _FITTED_STEP)

    def _window(self, item: Recording, seek: int, size: int, width: int = N_FRAMES) -> torch.Tensor:
        """``size`` frames of ``item`` from ``seek`` on, padded with zeros to ``width`` frames, (n_mels, width)."""
        cut = item.mel[:, seek : seek + size]
        return torch.nn.functional.pad(cut, (0, width - cut.shape[1]))

    def _decode(self, items: list[Recording]) -> list[DecodingResult | None]:
        """Decode one window of each, None for failures; those that fail the guards again at rising temperatures.

        They go together, whichever batch they come from: a step of decoding takes as long for one as for many.
        """
        found = {id(item): result for item, result in zip(items, self._pass(items, self._first), strict=True)}
        for temperature in TEMPERATURES[1:]:
            todo = [item for item in items if item.active and item.encoded is not None]
            results = self._pass(todo, partial(self._again, temperature))
            found |= {id(item): result for item, result in zip(todo, results, strict=True)}
        for item in items:
            item.encoded = None
        return [found[id(item)] for item in items]

    def _pass(self, items: list[Recording], process: Any) -> list[Any]:
        """As :meth:`_each`, over the items' current windows."""
        lengths = [self._width(item.window) / FRAMES_PER_S for item in items]
        return self._each(items, self.capacity, lengths, process)

    def _listen(self, items: list[Recording]) -> Any:
        """Encode one window of each, which tells the language of those that have none."""
        width = self._width(items[0].window)  # one for all: batches hold windows of one length
        features = self._encode([self._window(item, item.seek, item.window, width) for item in items])
        self._hear(items, features, [i for i, item in enumerate(items) if item.language is None])
        return features

    def _first(self, items: list[Recording]) -> list[DecodingResult | Failure]:
        """Decode one window of each at temperature 0; what must be decoded again stays ``encoded``."""
        features = self._listen(items)
        decoded = self._decode_once(features, 0.0, [item.language or "en" for item in items], [])
        for item, result in zip(items, decoded, strict=True):
            if item.detected is None and item.seek == 0 and result.language_probs:
                (item.detected,) = result.language_probs.items()
        unheard = [i for i, item in enumerate(items) if item.seek == 0 and item.detected is None]
        self._hear(items, features, unheard if self.multilingual else [])
        self.padding.add([item.window / FRAMES_PER_S for item in items], self._width(items[0].window) / FRAMES_PER_S)
        for i, result in enumerate(decoded):
            if needs_fallback(result):
                items[i].encoded = features[[i]]  # a copy: a view would keep the whole batch
        return [_checked(result) for result in decoded]

    def _again(self, temperature: float, items: list[Recording]) -> list[DecodingResult | Failure]:
        """Decode windows that are ``encoded`` at a higher temperature; those that pass the guards now are no longer."""
        rows = [item.encoded for item in items]
        features = torch.cat(rows) if isinstance(rows[0], torch.Tensor) else np.concatenate(rows)
        seeds = [item.seed() + round(10 * temperature) for item in items]
        decoded = self._decode_once(features, temperature, [item.language or "en" for item in items], seeds)
        for item, result in zip(items, decoded, strict=True):
            if not needs_fallback(result):
                item.encoded = None
        return [_checked(result) for result in decoded]

    def _advance(self, item: Recording, result: DecodingResult) -> int:
        """Take over a decoded window's segments and move ``seek``, as the loop of ``whisper.transcribe`` does; to where
        it was moved."""
        size, start = item.window, item.seek
        kept = not result.no_speech_prob > NO_SPEECH or result.avg_logprob > LOGPROB
        item.results.append((result, kept))
        if not kept:
            item.seek += size
            return item.seek
        tokens, begin = result.tokens, self.tokenizer.timestamp_begin
        stamps = [token >= begin for token in tokens]
        closed = stamps[-2:] == [False, True]  # one timestamp at the end: no speech after it
        cuts = [i for i in range(1, len(tokens)) if stamps[i - 1] and stamps[i]]
        offset = start * HOP_LENGTH / SAMPLE_RATE
        if cuts:
            ends = [*cuts, len(tokens)] if closed else cuts
            pieces = [tokens[a:b] for a, b in pairwise([0, *ends])]
            spans: list[tuple[float, float]] = [(piece[0] - begin, piece[-1] - begin) for piece in pieces]
            item.seek += size if closed else (tokens[cuts[-1] - 1] - begin) * FRAMES_PER_TICK
        else:
            times = [token - begin for token, stamp in zip(tokens, stamps, strict=True) if stamp]
            pieces, spans = [tokens], [(0, times[-1] if times and times[-1] else size / FRAMES_PER_TICK)]
            item.seek += size
        segments: list[dict[str, Any]] = [
            {
                "seek": start,
                "start": offset + first * SECONDS_PER_TICK,
                "end": offset + last * SECONDS_PER_TICK,
                "tokens": piece,
                "words": [],
            }
            for piece, (first, last) in zip(pieces, spans, strict=True)
        ]
        if self.settings.word_timestamps:
            self._align(item, segments, self._window(item, start, size), size)
            last = get_end(segments)
            if not closed and last is not None and last > offset:
                item.seek = round(last * SAMPLE_RATE / HOP_LENGTH)
            item.last_speech = item.last_speech if last is None else last
        for segment in segments:
            text = self.tokenizer.decode([token for token in segment["tokens"] if token < self.tokenizer.eot])
            if segment["start"] != segment["end"] and text.strip():
                item.tokens += segment["tokens"]
                for word in segment["words"]:
                    item.add_word(word["word"].strip(), word["start"], word["end"], word["probability"])
        if item.seek <= start:
            item.seek = start + size  # never met with the timestamp rules; a loop without end would be worse
        return item.seek

    def _answer(self, item: Recording) -> Transcription | Failure:
        if item.failure is not None:
            return item.failure
        text = self.tokenizer.decode(item.tokens).strip()
        counted = [result for result, kept in item.results if kept] or [result for result, _ in item.results]
        language, probability = item.detected or (None, None)
        if not counted:
            return Transcription(text, item.language, detected_language=language, detected_probability=probability)
        weights = [len(result.tokens) + 1 for result in counted]
        return Transcription(
            text=text,
            language=item.language,
            words=tuple(item.words),
            avg_logprob=float(np.average([result.avg_logprob for result in counted], weights=weights)),
            no_speech_prob=min(result.no_speech_prob for result, _ in item.results),
            compression_ratio=max(result.compression_ratio for result in counted),
            temperature=max(result.temperature for result in counted),
            detected_language=language,
            detected_probability=probability,
        )
