"""Text to speech with VITS through transformers: MMS-TTS and other checkpoints of ``VitsModel``, in batches."""

from __future__ import annotations

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
from workers.engines.checkpoints import Checkpoint, digest_of
from workers.engines.noise import NoisePerItem

# Tokens of a batch, padding counted: a token becomes some 20 ms of speech, and a second some 100 MB on its way.
_BATCH_TOKENS_ON_CPU = 2_000.0
_BATCH_TOKENS_ON_CUDA = 16_000.0


class VitsSynthesizer:
    """The :class:`~workers.engines.base.Synthesizer` of ``vits:NAME`` and ``vits:FOLDER``, as transformers saves it.

    ``voice`` is the number of a speaker, from 0; models of a single speaker have none. What is left to chance (noise of
    the sound and of the durations) is drawn for each text from its own seed, so neighbours in a batch change nothing.
    Raises VoxmillError where the checkpoint cannot be loaded, or needs uroman or a phonemizer that is not there.
    """

    def __init__(self, checkpoint: Checkpoint, device: str, settings: TtsSettings) -> None:
        from transformers import AutoTokenizer, VitsModel
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        self.spec, self.device, self.settings = checkpoint.spec, torch.device(device), settings
        source = str(checkpoint.path or checkpoint.model)
        try:
            model: Any = VitsModel.from_pretrained(source, dtype=torch.float32)
            self.tokenizer: Any = AutoTokenizer.from_pretrained(source)
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise VoxmillError(
                f"the checkpoint cannot be loaded ({reason})", self.spec, "It must be a folder or name of a VitsModel."
            ) from error
        self._check_text_library()
        self.model = model.to(self.device).eval()
        self.model.decoder.register_forward_pre_hook(_ending_in_silence)
        if settings.noise_scale is not None:
            self.model.noise_scale = settings.noise_scale
        self.digest = digest_of(checkpoint.path or _cached(checkpoint.model))
        self.sample_rate = int(model.config.sampling_rate)
        self.speakers = int(model.config.num_speakers)
        self.capacity = Capacity(_BATCH_TOKENS_ON_CUDA if self.device.type == "cuda" else _BATCH_TOKENS_ON_CPU)
        self.unsayable = lru_cache(maxsize=4096)(self._unsayable)

    def _check_text_library(self) -> None:
        from transformers.utils import is_phonemizer_available, is_uroman_available

        for wanted, there, package in (
            (self.tokenizer.is_uroman, is_uroman_available, "uroman"),
            (self.tokenizer.phonemize, is_phonemizer_available, "phonemizer"),
        ):
            if wanted and not there():
                raise VoxmillError(f"the voice's tokenizer needs {package}", self.spec, f"Run: pip install {package}")

    def synthesize(
        self, texts: Sequence[str], voices: Sequence[str | None], seeds: Sequence[int]
    ) -> list[Synthesis | Failure]:
        """Speak ``texts``, one answer per text, in order."""
        answers: list[Synthesis | Failure | None] = []
        tokens: list[list[int]] = []
        for text, voice in zip(texts, voices, strict=True):
            ids = self._tokens(text)
            tokens.append(ids)
            if voice is not None and not (voice.isdecimal() and int(voice) < self.speakers):
                answers.append(Failure(Reason.UNKNOWN_VOICE, _no_voice(self.spec, voice, self.speakers)))
            elif not ids:
                answers.append(Failure(Reason.NOTHING_PRONOUNCEABLE, f"the voice has no sound for any of {text!r}"))
            else:
                answers.append(None)
        todo = [index for index, answer in enumerate(answers) if answer is None]
        with torch.inference_mode():
            results = run_batches(
                [float(len(tokens[index])) for index in todo],
                self.capacity,
                lambda batch: self._batch([(tokens[todo[i]], voices[todo[i]], seeds[todo[i]]) for i in batch]),
                self._release,
            )
        for index, result in zip(todo, results, strict=True):
            answers[index] = result if isinstance(result, Failure) else self._told(result, texts[index])
        return [answer for answer in answers if answer is not None]

    def _tokens(self, text: str) -> list[int]:
        """Ids of ``text``; none where every character of it is unknown, blank or punctuation."""
        if not any(c.isalnum() and not self.unsayable(c) for c in text):
            return []
        known = "".join(c for c in text if c.isspace() or not self.unsayable(c))
        return list(self.tokenizer(known).input_ids)

    def _unsayable(self, character: str) -> bool:
        """Whether the tokenizer knows nothing of ``character``: it has no id, or the unknown one's."""
        tokenizer = self.tokenizer
        prepared, _ = tokenizer.prepare_for_tokenization(character)
        vocabulary = tokenizer.get_vocab()
        return not any(part in vocabulary for part in prepared)

    def _told(self, speech: Synthesis, text: str) -> Synthesis:
        missing = "".join(dict.fromkeys(c for c in text if not c.isspace() and self.unsayable(c)))
        return Synthesis(speech.samples, speech.sample_rate, missing)

    def _batch(self, items: Sequence[tuple[list[int], str | None, int]]) -> list[Synthesis]:
        longest = max(len(ids) for ids, _, _ in items)
        pad = self.tokenizer.pad_token_id or 0
        ids = torch.tensor([one + [pad] * (longest - len(one)) for one, _, _ in items], device=self.device)
        mask = torch.tensor([[1] * len(one) + [0] * (longest - len(one)) for one, _, _ in items], device=self.device)
        with NoisePerItem([seed for _, _, seed in items]):
            output = self.model(
                input_ids=ids,
                attention_mask=mask,
                speaker_id=self._speakers([voice for _, voice, _ in items]),
                speaking_rate=self.settings.rate * float(self.model.config.speaking_rate),
            )
        lengths = output.sequence_lengths.tolist()
        sounds = output.waveform.float().cpu().numpy()
        return [
            Synthesis(np.ascontiguousarray(sound[: int(length)]), self.sample_rate)
            for sound, length in zip(sounds, lengths, strict=True)
        ]

    def _speakers(self, voices: Sequence[str | None]) -> Any:
        """Speaker ids (items,); None for a model of one speaker. VitsModel checks bounds by comparing the tensor, which
        only a tensor of one item survives: a batch of one voice passes its number."""
        if self.speakers <= 1:
            return None
        return _Checked.of(torch.tensor([int(voice or 0) for voice in voices], device=self.device))

    def _release(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _ending_in_silence(decoder: Any, arguments: tuple[torch.Tensor, Any]) -> tuple[torch.Tensor, Any]:
    """Zeros after the latents (items, channels, frames) of the longest item too: what the decoder sees past an item's
    end is then the same alone and beside longer ones."""
    latents, speakers = arguments
    return torch.nn.functional.pad(latents, (0, VOCODER_REACH)), speakers


class _Checked(torch.Tensor):
    """Speaker ids known to be in bounds: ``VitsModel.forward`` compares them as one number, ``0 <= ids < n``."""

    @staticmethod
    def of(ids: torch.Tensor) -> _Checked:
        return ids.as_subclass(_Checked)

    def __bool__(self) -> bool:
        return bool(self.as_subclass(torch.Tensor).all())


def _no_voice(spec: str, voice: str, speakers: int) -> str:
    have = f"voices 0 to {speakers - 1}" if speakers > 1 else "one voice, without a number"
    return f"{spec} has no voice {voice!r}; it has {have}"


def _cached(name: str) -> Any:
    """The folder that the hub's library has put ``name`` into."""
    from pathlib import Path

    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, local_files_only=True))
