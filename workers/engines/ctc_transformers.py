"""wav2vec 2.0 and HuBERT through transformers: CTC heads, decoded greedily in batches.

The library's own forward of one clip is the measure. A batch reaches it in two ways. Where the convolutions normalise
every frame for itself (``feat_extract_norm: layer``) padding is masked and changes nothing. Where the first of them
normalises over time (``group``: these checkpoints take no mask, and padding would change every frame) each clip goes
through the convolutions alone, and only what follows, which heeds a mask of frames, is batched.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from schemas.config import AsrSettings
from schemas.errors import VoxmillError
from schemas.reasons import Reason
from workers.engines.base import Failure, Padding, Transcription, Word
from workers.engines.batching import Capacity, run_batches
from workers.engines.checkpoints import Checkpoint, digest_of, resolve
from workers.engines.ctc import ASTRAY, BestPath, best_paths

_BATCH_S_ON_CPU = 60.0
_BATCH_S_ON_CUDA = 600.0


class _ClipByClip(torch.nn.Module):
    """Convolutions that see one clip at a time, without its padding; ``lengths`` of the batch to come, in samples."""

    def __init__(self, convolutions: torch.nn.Module) -> None:
        super().__init__()
        self.convolutions = convolutions
        self.lengths: list[int] = []

    def forward(self, signals: torch.Tensor) -> torch.Tensor:
        """``signals`` (batch, samples) to (batch, channels, frames), zeros beyond each clip's own frames."""
        features = [self.convolutions(row[None, :n])[0].T for row, n in zip(signals, self.lengths, strict=True)]
        return torch.nn.utils.rnn.pad_sequence(features, batch_first=True).transpose(1, 2)


def _load(checkpoint: Checkpoint, device: torch.device) -> tuple[Any, Any, Any]:
    """Model in evaluation mode, feature extractor and tokenizer. Raises VoxmillError where they cannot be had.

    Weights are read from safetensors, or unpickled as tensors only; no code of the checkpoint is run.
    """
    from transformers import AutoTokenizer, HubertForCTC, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    kind: Any = {"wav2vec2": Wav2Vec2ForCTC, "hubert": HubertForCTC}[checkpoint.family]
    source = str(checkpoint.path or checkpoint.model)
    try:
        config = kind.config_class.from_pretrained(source)
        extractor = Wav2Vec2FeatureExtractor.from_pretrained(source)
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        model, told = kind.from_pretrained(
            source, dtype=torch.float32, weights_only=True, output_loading_info=True
        )  # whatever it was saved in: the signal is in single precision
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise VoxmillError(
            f"the checkpoint cannot be loaded ({reason})",
            checkpoint.spec,
            "It must be what save_pretrained of transformers leaves: model, feature extractor and tokenizer.",
        ) from error
    if config.model_type != checkpoint.family:
        raise VoxmillError(f"the checkpoint is a {config.model_type}", checkpoint.spec, "Name the family it is of.")
    if any(name.startswith("lm_head") for name in told["missing_keys"]):
        raise VoxmillError("the checkpoint has no CTC head", checkpoint.spec, "Choose one that was trained on text.")
    return model.to(device).eval(), extractor, tokenizer


class CtcTransformersTranscriber:
    """The :class:`~workers.engines.base.Transcriber` of ``wav2vec2:NAME`` and ``hubert:NAME``, or their folders.

    The model knows its own languages, so ``languages`` of the clips change nothing.
    """

    def __init__(self, checkpoint: Checkpoint, device: str, settings: AsrSettings) -> None:
        self.spec, self.settings = checkpoint.spec, settings
        self.device = torch.device(device)
        self.model, self.extractor, self.tokenizer = _load(checkpoint, self.device)
        path = checkpoint.path or resolve(checkpoint.spec).path  # a name lies in the cache now
        if path is None:
            raise VoxmillError("the checkpoint is not where the hub's cache is", self.spec, "Give a folder instead.")
        self.digest = digest_of(path)
        self.sample_rate = int(self.extractor.sampling_rate)
        config = self.model.config
        self.samples_per_frame = int(config.inputs_to_logits_ratio)
        if getattr(config, "add_adapter", False):
            self.samples_per_frame *= config.adapter_stride**config.num_adapter_layers
        base = self.model.base_model
        self.convolutions: _ClipByClip | None = None
        if config.feat_extract_norm == "group":
            self.convolutions = base.feature_extractor = _ClipByClip(base.feature_extractor)
        self.padding = Padding()
        self.capacity = Capacity(_BATCH_S_ON_CUDA if self.device.type == "cuda" else _BATCH_S_ON_CPU)
        if getattr(config, "add_adapter", False) or getattr(config, "conv_pos_batch_norm", False):
            self.capacity.max_waste = 0.0  # these look beyond the mask: only clips of one length go together

    def transcribe(self, clips: Sequence[np.ndarray], languages: Sequence[str | None]) -> list[Transcription | Failure]:
        """Transcribe ``clips`` at ``sample_rate``.

        ``avg_logprob`` is the mean log-probability of the frames that emit a letter; None where nothing was heard.
        """
        frames = self._frames(clips)
        answers: list[Transcription | Failure | None] = [
            self._refusal(clip, count) for clip, count in zip(clips, frames, strict=True)
        ]
        good = [index for index, answer in enumerate(answers) if answer is None]
        lengths = [len(clips[index]) / self.sample_rate for index in good]

        def process(batch: list[int]) -> list[Transcription | Failure]:
            return self._batch([clips[good[i]] for i in batch], [frames[good[i]] for i in batch])

        with torch.inference_mode():
            for index, result in zip(good, run_batches(lengths, self.capacity, process, self._release), strict=True):
                answers[index] = result
        return [answer for answer in answers if answer is not None]

    def _refusal(self, clip: np.ndarray, frames: int) -> Failure | None:
        if not np.isfinite(clip).all():
            return Failure(Reason.NON_FINITE, "the samples are not all finite numbers")
        if frames < 1:
            return Failure(Reason.TOO_SHORT, f"{len(clip)} samples are less than one frame of the model")
        return None

    def _frames(self, clips: Sequence[np.ndarray]) -> list[int]:
        """Frames that the model gives each clip."""
        lengths = torch.tensor([len(clip) for clip in clips], dtype=torch.long)
        frames: list[int] = self.model._get_feat_extract_output_lengths(lengths).clamp(min=0).tolist()
        return frames

    def _release(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _batch(self, clips: Sequence[np.ndarray], frames: Sequence[int]) -> list[Transcription | Failure]:
        inputs = self.extractor(
            list(clips),
            sampling_rate=self.sample_rate,
            padding=True,
            return_attention_mask=True,
            return_tensors="pt",
        ).to(self.device)
        if self.convolutions is not None:
            self.convolutions.lengths = [len(clip) for clip in clips]
        logits = self.model(inputs["input_values"], attention_mask=inputs["attention_mask"]).logits
        paths = best_paths(logits.float().log_softmax(dim=-1), frames, blank=self.tokenizer.pad_token_id)
        width = max(len(clip) for clip in clips)
        self.padding.add([len(clip) / self.sample_rate for clip in clips], width / self.sample_rate)
        return [self._answer(path, len(clip)) for path, clip in zip(paths, clips, strict=True)]

    def _answer(self, path: BestPath, samples: int) -> Transcription | Failure:
        if not path.is_finite():
            return ASTRAY
        if not self.settings.word_timestamps:
            return Transcription(self.tokenizer.decode(path.labels), avg_logprob=path.logprob())
        decoded = self.tokenizer.decode(path.labels, output_word_offsets=True)
        return Transcription(decoded.text, words=self._words(decoded, path, samples), avg_logprob=path.logprob())

    def _words(self, decoded: Any, path: BestPath, samples: int) -> tuple[Word, ...]:
        """The words of the text with times inside the clip, and the probability of each."""
        found = []
        lower = getattr(self.tokenizer, "do_lower_case", False)
        for word in decoded.word_offsets:
            first, last = int(word["start_offset"]), int(word["end_offset"])
            start, end = (min(frame * self.samples_per_frame, samples) / self.sample_rate for frame in (first, last))
            logprob = path.logprob(first, last)
            text = word["word"].lower() if lower else word["word"]
            found.append(Word(text, start, end, None if logprob is None else math.exp(logprob)))
        return tuple(found)
