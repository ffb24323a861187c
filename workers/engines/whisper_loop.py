"""The loop of ``whisper.transcribe`` for many recordings at once, whichever library computes the model.

Every recording keeps a position of its own; each round decodes the current window of all that are not finished, in
batches. What happens to a window (timestamps, seek, guards, fallback temperatures) is what ``whisper.transcribe`` does
with ``condition_on_previous_text=False``, so that at temperature 0 the tokens are the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from functools import partial
from typing import Any

import numpy as np
import torch
from whisper.audio import HOP_LENGTH, N_FFT, N_FRAMES, N_SAMPLES, SAMPLE_RATE, mel_filters
from whisper.decoding import DecodingResult
from whisper.tokenizer import LANGUAGES, Tokenizer, get_tokenizer
from whisper.utils import get_end

from schemas.config import AsrSettings
from schemas.errors import VoxmillError
from schemas.reasons import Reason
from workers.engines.base import Failure, Padding, Transcription
from workers.engines.batching import Capacity, plan_batches, run_batches
from workers.engines.whisper_recording import (
    FRAMES_PER_TICK,
    Cut,
    Recording,
    checked,
    cut,
    holds_speech,
    joined,
    needs_fallback,
)
from workers.engines.whisper_words import Alignment, add_words
from workers.languages import known_code

FRAMES_PER_S = SAMPLE_RATE // HOP_LENGTH
_FITTED_STEP = FRAMES_PER_S  # fitted windows last whole seconds, so that clips of similar length share a batch
_TEXT_PLACES = 448  # of a row's keys and values: n_text_ctx of every published model, beside one place per two frames
FITTED_MARGIN = 100  # frames of silence that a fitted window keeps after its audio
_TOGETHER = 4  # batches whose failures are decoded again together: what is kept of them until then is bounded
_ALIGNED = 8  # windows of 30 s whose words are timed together: attention of every head is kept, not only its sums
_MEL_SAMPLES = 120 * SAMPLE_RATE  # audio whose spectrogram is computed at once: some 50 MB of intermediate values


class WhisperLoop(ABC):
    """What the :class:`~workers.engines.base.Transcriber` of every Whisper library does around its model.

    ``n_mels`` and ``num_languages`` (0: English only) are the model's; ``windows`` of 30 s make a batch at most.
    Raises VoxmillError where an English-only model is to translate, where the model does not know the language of the
    settings, and where their prompt holds its special tokens.
    """

    sample_rate = SAMPLE_RATE
    mixes_temperatures = True  # in one batch

    def __init__(
        self, spec: str, settings: AsrSettings, device: torch.device, n_mels: int, num_languages: int, windows: int
    ) -> None:
        if settings.task == "translate" and not num_languages:
            raise VoxmillError("an English-only model cannot translate", spec, "Choose a multilingual one.")
        self.spec, self.settings, self.device, self.n_mels = spec, settings, device, n_mels
        self.multilingual, self.num_languages = num_languages > 0, num_languages or 99
        self.capacity = Capacity(windows, max_waste=0.0)
        self.words_capacity = Capacity(min(_ALIGNED, windows), max_waste=0.0)
        self.mel_capacity = Capacity(min(_MEL_SAMPLES, windows * N_SAMPLES))
        self.padding = Padding()
        self.tokenizer = self._tokenizer("en")
        self.languages = list(LANGUAGES)[:num_languages] if self.multilingual else ["en"]
        if settings.language and known_code(settings.language, self.languages) is None:
            what = f"the model does not know the language {settings.language!r} of asr.language"
            do = "Give a code or English name of a language that it knows, or none to have it detected."
            raise VoxmillError(what, spec, do if self.multilingual else "Choose a multilingual one.")

        try:
            self.tokenizer.encode(settings.initial_prompt or "")
        except ValueError as error:  # every window would fail with it
            what = f"asr.initial_prompt {settings.initial_prompt!r} holds one of the model's special tokens"
            raise VoxmillError(what, spec, "Leave out what stands between <| and |>.") from error

    @property
    def windows(self) -> int:
        """Windows of 30 s that make a batch at most."""
        return int(self.capacity.limit)

    @abstractmethod
    def _encode(self, windows: list[torch.Tensor]) -> Any:
        """Encode windows of one length, each (n_mels, frames), into an array with a row per window."""

    @abstractmethod
    def _most_probable(self, features: Any) -> list[tuple[str, float]]:
        """The most probable language of each encoded window, and its probability among all languages."""

    @abstractmethod
    def _decode_once(
        self, features: Any, temperatures: list[float], languages: list[str], seeds: list[int]
    ) -> list[DecodingResult]:
        """Decode encoded windows at a temperature each, all 0 or all above; ``seeds`` then fix the draws of each.

        ``language_probs`` hold the most probable language where decoding tells it, whatever language was given.
        """

    @abstractmethod
    def _alignments(
        self, features: Any, starts: list[list[int]], texts: list[list[int]], frames: list[int]
    ) -> list[Alignment]:
        """How the tokens of ``texts`` lie in encoded windows, whose audio has so many mel ``frames``; ``starts`` are
        the tokens that decoding began with."""

    def _tokenizer(self, language: str | None) -> Tokenizer:
        return get_tokenizer(
            self.multilingual, num_languages=self.num_languages, language=language, task=self.settings.task
        )

    def _aligner(self, language: str | None) -> Tokenizer:
        """What tells the words of a text in ``language`` apart; a translation's are English, whatever was spoken."""
        tokenizer = copy(self._tokenizer(language))  # the library keeps one for all
        if self.settings.task == "translate":
            tokenizer.language = "en"  # the tokens that decoding begins with stay those of what was spoken
        return tokenizer

    def transcribe(self, clips: Sequence[np.ndarray], languages: Sequence[str | None]) -> list[Transcription | Failure]:
        """Transcribe 16 kHz ``clips`` of any length; a language that is None or unknown to the model is detected.

        A language that is given is checked: what the first window sounds like is told beside it.

        Of a recording of several windows: ``avg_logprob`` is the mean over all tokens kept, ``no_speech_prob`` the
        least of any window (the recording is silent only if all of it is), ``compression_ratio`` and ``temperature``
        the highest. ``words`` are filled where the settings ask for them.
        """
        items = [
            Recording(clip, "en" if not self.multilingual else known_code(language, self.languages))
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

        for item, detected in zip(items, self._each(items, self.capacity, [1.0] * len(items), process), strict=True):
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
        batches = plan_batches([self._weight(item) for item in items], self.capacity)
        together = 1 if self.settings.word_timestamps else _TOGETHER  # words keep all that is encoded
        for start in range(0, len(batches), together):
            some = [items[i] for batch in batches[start : start + together] for i in batch]  # planned as they were
            for item, result in zip(some, self._decode(some), strict=True):
                item.cut = None if result is None else self._cut(item, result)
            if self.settings.word_timestamps:
                self._add_words([item for item in some if item.cut and item.cut.segments])
            for item in some:
                item.encoded = None
                if item.cut is not None and item.failure is None:
                    self._advance(item, item.cut)

    def _width(self, size: int) -> int:
        """Frames of the window that ``size`` frames of audio are encoded in."""
        if self.settings.whisper_window == "full":
            return N_FRAMES
        return min(N_FRAMES, -(-(size + FITTED_MARGIN) // _FITTED_STEP) * _FITTED_STEP)

    def _weight(self, item: Recording) -> float:
        """What the current window of ``item`` needs of memory, as a share of what one of 30 s needs."""
        places = self._width(item.window) / FRAMES_PER_TICK
        return (places + _TEXT_PLACES) / (N_FRAMES / FRAMES_PER_TICK + _TEXT_PLACES)

    def _window(self, item: Recording, width: int) -> torch.Tensor:
        """The current window of ``item``, padded with zeros to ``width`` frames, (n_mels, width)."""
        frames = item.mel[:, item.seek : item.seek + item.window]
        return torch.nn.functional.pad(frames, (0, width - frames.shape[1]))

    def _decode(self, items: list[Recording]) -> list[DecodingResult | None]:
        """Decode one window of each, None for failures; those that fail the guards again at rising temperatures.

        They go together, whichever batch they come from, and at several temperatures at once where they are few: a
        step of decoding takes about as long for one as for many.
        """
        found = {id(item): result for item, result in zip(items, self._pass(items, self._first), strict=True)}
        rising = list(self.settings.fallback_temperatures)
        while rising and (todo := [item for item in items if item.active and item.again]):
            several = max(1, self.windows // len(todo)) if self.mixes_temperatures else 1
            found |= self._fall_back(todo, rising[:several])
            rising = rising[several:]
        return [found[id(item)] for item in items]

    def _pass(self, items: list[Recording], process: Any) -> list[Any]:
        """As :meth:`_each`, over the items' current windows."""
        return self._each(items, self.capacity, [self._weight(item) for item in items], process)

    def _listen(self, items: list[Recording]) -> Any:
        """Encode one window of each, which tells the language of those that have none."""
        width = self._width(items[0].window)  # one for all: batches hold windows of one length
        features = self._encode([self._window(item, width) for item in items])
        self._hear(items, features, [i for i, item in enumerate(items) if item.language is None])
        return features

    def _first(self, items: list[Recording]) -> list[DecodingResult | Failure]:
        """Decode one window of each at temperature 0; what is to be decoded ``again``, or timed, stays ``encoded``."""
        features = self._listen(items)
        decoded = self._decode_once(features, [0.0] * len(items), [item.language or "en" for item in items], [])
        for item, result in zip(items, decoded, strict=True):
            if item.detected is None and item.seek == 0 and result.language_probs:
                (item.detected,) = result.language_probs.items()
        unheard = [i for i, item in enumerate(items) if item.seek == 0 and item.detected is None]
        self._hear(items, features, unheard if self.multilingual else [])
        self.padding.add([item.window / FRAMES_PER_S for item in items], self._width(items[0].window) / FRAMES_PER_S)
        for i, (item, result) in enumerate(zip(items, decoded, strict=True)):
            item.again = needs_fallback(result, self.settings)
            if item.again or self.settings.word_timestamps:
                item.encoded = features[[i]]  # a copy: a view would keep the whole batch
        return [checked(result) for result in decoded]

    def _fall_back(self, items: list[Recording], rising: list[float]) -> dict[int, DecodingResult | None]:
        """Decode windows ``again`` at every temperature, but for those that pass the guards on the way.

        The result of each is that of the first temperature at which it passes or fails for good, else of the last.
        """
        attempts = [(item, temperature) for temperature in rising for item in items]
        lengths = [self._weight(item) for item, _ in attempts]
        answers = run_batches(
            lengths, self.capacity, lambda batch: self._again([attempts[i] for i in batch]), self._release
        )
        found: dict[int, DecodingResult | None] = {}
        for (item, _), answer in zip(attempts, answers, strict=True):
            if not item.again:
                continue
            if isinstance(answer, Failure):
                item.failure, item.again, found[id(item)] = answer, False, None
                continue
            found[id(item)] = answer
            item.again = needs_fallback(answer, self.settings)
        return found

    def _again(self, attempts: list[tuple[Recording, float]]) -> list[DecodingResult | Failure]:
        features = joined([item for item, _ in attempts])
        languages = [item.language or "en" for item, _ in attempts]
        seed_of = {id(item): item.seed() for item, _ in attempts}
        seeds = [seed_of[id(item)] + round(10 * temperature) for item, temperature in attempts]
        decoded = self._decode_once(features, [temperature for _, temperature in attempts], languages, seeds)
        return [checked(result) for result in decoded]

    def _cut(self, item: Recording, result: DecodingResult) -> Cut:
        """The segments of a decoded window; none where the guards say that nobody speaks in it."""
        kept = holds_speech(result, self.settings)
        item.results.append((result, kept))
        if not kept:
            return Cut([], item.seek + item.window, closed=True)
        return cut(result.tokens, self.tokenizer.timestamp_begin, item.seek, item.window)

    def _add_words(self, items: list[Recording]) -> None:
        """Time the words of all segments, windows in batches; a window whose words cannot be is a failure."""
        aligners = {id(item): self._aligner(item.language) for item in items}
        texts = {id(item): item.cut.text(self.tokenizer.eot) for item in items if item.cut}
        spoken = [item for item in items if texts[id(item)]]

        def align(batch: list[Recording]) -> list[Alignment]:
            starts = [list(aligners[id(item)].sot_sequence) for item in batch]
            return self._alignments(
                joined(batch), starts, [texts[id(item)] for item in batch], [item.window for item in batch]
            )

        found = self._each(spoken, self.words_capacity, [self._weight(item) for item in spoken], align)
        for item, alignment in zip(spoken, found, strict=True):
            if alignment is not None and item.cut:
                add = partial(add_words, item.cut.segments, texts[id(item)], alignment, aligners[id(item)])
                last_s = item.last_speech  # words that the library's rules cannot place cost their clip alone, too
                self._each([item], self.capacity, [0.0], lambda _, add=add, last_s=last_s: [add(last_s)])

    def _advance(self, item: Recording, window: Cut) -> None:
        """Take over a window's segments and move ``seek``, as the loop of ``whisper.transcribe`` does."""
        start, item.seek = item.seek, window.seek
        if self.settings.word_timestamps:
            last = get_end(window.segments)
            if not window.closed and last is not None and last > start * HOP_LENGTH / SAMPLE_RATE:
                item.seek = round(last * SAMPLE_RATE / HOP_LENGTH)
            item.last_speech = item.last_speech if last is None else last
        for segment in window.segments:
            text = self.tokenizer.decode([token for token in segment["tokens"] if token < self.tokenizer.eot])
            if segment["start"] != segment["end"] and text.strip():
                item.tokens += segment["tokens"]
                for word in segment["words"]:
                    item.add_word(word["word"].strip(), word["start"], word["end"], word["probability"])
        if item.seek <= start:
            item.seek = start + item.window  # never met with the timestamp rules; a loop without end would be worse

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
