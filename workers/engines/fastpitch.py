"""Text to speech with NeMo's FastPitch, which makes a mel spectrogram of the text, and HiFi-GAN, which sounds it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from schemas.config import TtsSettings
from schemas.errors import VoxmillError
from schemas.reasons import Reason
from workers.engines.base import VOCODER_REACH, Failure, Synthesis
from workers.engines.batching import Capacity, run_batches
from workers.engines.checkpoints import Checkpoint, digest_of, joint_digest
from workers.engines.nemo_models import quiet, restored

# Tokens of a batch, padding counted: a token becomes some 70 ms of speech.
_BATCH_TOKENS_ON_CPU = 1_000.0
_BATCH_TOKENS_ON_CUDA = 8_000.0


class FastPitchSynthesizer:
    """The :class:`~workers.engines.base.Synthesizer` of ``fastpitch:A+hifigan:B``: .nemo paths, URLs or names.

    ``voice`` is the number of a speaker, from 0; models of a single speaker have none. ``settings.rate`` is FastPitch's
    pace, ``settings.pitch`` is added to its predicted pitch, which it counts in standard deviations. Nothing is drawn
    at random. Raises VoxmillError where a checkpoint cannot be loaded or the two do not fit together.
    """

    def __init__(self, checkpoint: Checkpoint, vocoder: Checkpoint, device: str, settings: TtsSettings) -> None:
        with quiet():
            from nemo.collections.tts.models import FastPitchModel, HifiGanModel
        self.spec, self.device, self.settings = checkpoint.spec, torch.device(device), settings
        model, path = restored(FastPitchModel, checkpoint, self.device, "a FastPitch model")
        sounder, sound_path = restored(HifiGanModel, vocoder, self.device, "a HiFi-GAN model")
        self.model, self.vocoder = model.to(self.device).eval(), sounder.to(self.device).eval()
        self.digest = joint_digest([digest_of(path), digest_of(sound_path)])
        self.hop, self.sample_rate = _common(self.model, self.vocoder, self.spec)
        embedding = self.model.fastpitch.speaker_emb
        self.speakers = embedding.num_embeddings if embedding is not None else 1
        if self.model.fastpitch.speaker_encoder is not None:
            raise VoxmillError("the model needs a reference recording", self.spec, "Choose one with numbered speakers.")
        self.pad = int(self.model.fastpitch.encoder.padding_idx)
        self.floor = math.log(float(self.model.cfg.preprocessor.get("log_zero_guard_value", 1e-5) or 1e-5))
        self.capacity = Capacity(_BATCH_TOKENS_ON_CUDA if self.device.type == "cuda" else _BATCH_TOKENS_ON_CPU)
        self.sayable = lru_cache(maxsize=4096)(self._sayable)

    def synthesize(
        self, texts: Sequence[str], voices: Sequence[str | None], seeds: Sequence[int]
    ) -> list[Synthesis | Failure]:
        """Speak ``texts``, one answer per text, in order; ``seeds`` change nothing, for nothing is drawn at random."""
        answers: list[Synthesis | Failure | None] = []
        tokens: list[list[int]] = []
        for text, voice, _ in zip(texts, voices, seeds, strict=True):
            known = "".join(c for c in text if c.isspace() or self.sayable(c))
            speaks = any(c.isalnum() for c in known)
            tokens.append(self._encode(known) if speaks else [])
            if voice is not None and not (voice.isdecimal() and int(voice) < self.speakers):
                have = f"voices 0 to {self.speakers - 1}" if self.speakers > 1 else "one voice, voice 0"
                answers.append(Failure(Reason.UNKNOWN_VOICE, f"it has no voice {voice!r}, but {have}"))
            elif not tokens[-1]:
                answers.append(Failure(Reason.NOTHING_PRONOUNCEABLE, f"the voice has no sound for any of {text!r}"))
            else:
                answers.append(None)
        todo = [index for index, answer in enumerate(answers) if answer is None]
        with torch.inference_mode():
            results = run_batches(
                [float(len(tokens[index])) for index in todo],
                self.capacity,
                lambda batch: self._batch([tokens[todo[i]] for i in batch], [voices[todo[i]] for i in batch]),
                self._release,
            )
        for index, result in zip(todo, results, strict=True):
            answers[index] = result if isinstance(result, Failure) else self._told(result, texts[index])
        return [answer for answer in answers if answer is not None]

    def _encode(self, text: str) -> list[int]:
        """The text's tokens as the model's own parser gives them; NeMo's normaliser, which needs another library, is
        left out: texts come normalised."""
        with quiet():
            return [int(token) for token in self.model.parse(text, normalize=False)[0].tolist()]

    def _sayable(self, character: str) -> bool:
        """Whether the tokenizer gives ``character`` a token of its own, beside what it puts around any text."""
        try:
            around, ours = self._encode(" "), self._encode(character)
        except (KeyError, IndexError, ValueError, RuntimeError):
            return False
        return any(token >= 0 and token not in around for token in ours)

    def _told(self, speech: Synthesis, text: str) -> Synthesis:
        missing = "".join(dict.fromkeys(c for c in text if not c.isspace() and not self.sayable(c)))
        return Synthesis(speech.samples, speech.sample_rate, missing)

    def _batch(self, tokens: Sequence[list[int]], voices: Sequence[str | None]) -> list[Synthesis]:
        longest = max(len(one) for one in tokens)
        text = torch.tensor([one + [self.pad] * (longest - len(one)) for one in tokens], device=self.device)
        speaker = None
        if self.speakers > 1:
            speaker = torch.tensor([int(voice or 0) for voice in voices], device=self.device)
        mel, frames, *_ = self.model.fastpitch.infer(
            text=text,
            pitch=torch.full(text.shape, self.settings.pitch, device=self.device),
            speaker=speaker,
            pace=self.settings.rate,
        )
        # Silence past every text's end, the longest one's too: the vocoder looks some frames ahead, and is to see the
        # same whether a text is alone or beside longer ones.
        mel = torch.nn.functional.pad(mel, (0, VOCODER_REACH))
        past = torch.arange(mel.shape[2], device=self.device)[None] >= frames[:, None]
        mel = mel.masked_fill(past[:, None], self.floor)
        sound = self.vocoder.generator(x=mel)[:, 0].float().cpu().numpy()
        return [
            Synthesis(np.ascontiguousarray(one[: max(1, int(length)) * self.hop]), self.sample_rate)
            for one, length in zip(sound, frames.tolist(), strict=True)
        ]

    def _release(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _common(model: Any, vocoder: Any, spec: str) -> tuple[int, int]:
    """Samples per mel frame and sample rate (Hz) of both. Raises VoxmillError where the two differ."""
    mine, theirs = model.cfg.preprocessor, vocoder.cfg.preprocessor
    hop = int(np.prod(list(vocoder.cfg.generator.upsample_rates)))
    bands = {"mel bands": (int(model.cfg.n_mel_channels), int(vocoder.generator.conv_pre.in_channels))}
    rates = {"Hz": (int(mine.sample_rate), int(theirs.sample_rate))}
    hops = {"samples per frame": (int(mine.n_window_stride), hop)}
    for unit, (ours, other) in (bands | rates | hops).items():
        if ours != other:
            raise VoxmillError(
                f"FastPitch makes {ours} {unit}, HiFi-GAN takes {other}", spec, "Choose two that were made together."
            )
    return hop, int(mine.sample_rate)
