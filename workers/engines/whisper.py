"""Whisper through openai-whisper, in half precision on CUDA and single precision on the CPU."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
import whisper
from whisper.audio import N_FRAMES
from whisper.decoding import DecodingOptions, DecodingResult
from whisper.model import AudioEncoder, Conv1d, Linear

from schemas.config import AsrSettings
from schemas.errors import VoxmillError
from workers.engines.checkpoints import Checkpoint, digest_of, resolve
from workers.engines.gpu import memory_of
from workers.engines.whisper_decoding import decode_batch, most_probable_languages
from workers.engines.whisper_loop import WhisperLoop
from workers.engines.whisper_words import Alignment, paths

_WINDOWS_ON_CPU = 16
_WINDOWS_ON_CUDA = 64
_CACHE_SHARE = 0.25  # of what memory the process may take of a GPU, that keys and values of one batch may take


def load_model(checkpoint: Checkpoint, device: str) -> whisper.Whisper:
    """The model of a published name or a .pt. Tensors only are read; no code of the checkpoint is run.

    The library checks the digest of a published name's file, and knows which of its heads tell the times of words.

    Raises VoxmillError where it is not there or is not one of openai-whisper's.
    """
    try:
        source = checkpoint.model if checkpoint.is_name else str(checkpoint.path)
        return whisper.load_model(source, device=device).eval()
    except Exception as error:
        # the first sentence: torch goes on to tell how to run what a checkpoint holds
        reason = " ".join(f"{type(error).__name__}: {error}".split()).partition(". ")[0][:300]
        raise VoxmillError(
            f"the checkpoint cannot be loaded ({reason})",
            checkpoint.spec,
            "It must be a .pt in openai-whisper's format.",
        ) from error


def file_of(checkpoint: Checkpoint) -> Path:
    """The .pt of a loaded model: a published name lies in the library's cache by then.

    Raises VoxmillError where it does not.
    """
    path = checkpoint.path or resolve(checkpoint.spec).path
    if path is None:
        raise VoxmillError(
            "the checkpoint is not where openai-whisper keeps it", checkpoint.spec, "Give its path instead."
        )
    return path


def encode(encoder: AudioEncoder, mel: torch.Tensor) -> torch.Tensor:
    """``encoder(mel)`` for (batch, n_mels, frames) of any length up to 30 s: the first places of the embedding do."""
    x = F.gelu(encoder.conv1(mel))
    x = F.gelu(encoder.conv2(x)).permute(0, 2, 1)
    x = (x + encoder.positional_embedding[: x.shape[1]]).to(x.dtype)
    for block in encoder.blocks:
        x = block(x)
    encoded: torch.Tensor = encoder.ln_post(x)
    return encoded


class TokenEmbedding(torch.nn.Module):
    """A decoder's token embedding, for tokens in single precision as in the library, and its half for the logits."""

    def __init__(self, embedding: torch.nn.Embedding) -> None:
        super().__init__()
        self.single = embedding.weight
        self.register_buffer("weight", embedding.weight.detach().half(), persistent=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return F.embedding(tokens, self.single)


def halve(model: whisper.Whisper) -> None:
    """Cast once what the library casts at every call, where it computes in half precision: the numbers are the same."""
    for module in model.modules():
        if isinstance(module, Linear | Conv1d):
            module.half()
    model.decoder.token_embedding = TokenEmbedding(model.decoder.token_embedding)


class WhisperTranscriber(WhisperLoop):
    """The :class:`~workers.engines.base.Transcriber` of ``whisper:NAME`` and ``whisper:PATH.pt``.

    Raises VoxmillError as :func:`load_model` does.
    """

    def __init__(self, checkpoint: Checkpoint, device: str, settings: AsrSettings) -> None:
        self.model = load_model(checkpoint, device)
        self.digest = digest_of(file_of(checkpoint))
        dims, windows = self.model.dims, _WINDOWS_ON_CPU
        self.fp16 = self.model.device.type == "cuda"
        if self.fp16:
            halve(self.model)
            cache = 2 * 2 * dims.n_text_layer * dims.n_text_state * (dims.n_audio_ctx + dims.n_text_ctx)
            windows = max(1, min(_WINDOWS_ON_CUDA, int(_CACHE_SHARE * memory_of(self.model.device) / cache)))
        languages = self.model.num_languages if self.model.is_multilingual else 0
        super().__init__(checkpoint.spec, settings, self.model.device, dims.n_mels, languages, windows)

    def _encode(self, windows: list[torch.Tensor]) -> torch.Tensor:
        """On a CPU half a minute of audio at a time: more does not fit its caches, and needs new memory pages in every
        layer."""
        mel = torch.stack(windows)
        if self.fp16:
            return encode(self.model.encoder, mel.half())
        return torch.cat([encode(self.model.encoder, part) for part in mel.split(N_FRAMES // mel.shape[2])])

    def _most_probable(self, features: torch.Tensor) -> list[tuple[str, float]]:
        """As ``whisper.decoding.detect_language``, which would take a fitted window's features for a spectrogram."""
        start = torch.full((len(features), 1), self.tokenizer.sot, device=features.device)
        return most_probable_languages(self.model.logits(start, features)[:, 0], self.tokenizer)

    def _decode_once(
        self, features: torch.Tensor, temperatures: list[float], languages: list[str], seeds: list[int]
    ) -> list[DecodingResult]:
        options = DecodingOptions(
            task=self.settings.task,
            beam_size=None if any(temperatures) else self.settings.beam_size,
            prompt=self.settings.initial_prompt,
            fp16=self.fp16,
        )
        return decode_batch(self.model, features, options, languages, temperatures, seeds)

    def _alignments(
        self, features: torch.Tensor, starts: list[list[int]], texts: list[list[int]], frames: list[int]
    ) -> list[Alignment]:
        return paths(self.model, features, starts, texts, frames, self.tokenizer)
