"""Conformer and its kin through NeMo: CTC, RNN-T, TDT and hybrid models, decoded greedily in batches from memory.

``model.transcribe`` of one recording pads it to a second, switches dither and feature padding off, and runs the model's
own forward and output steps. The same is done here on padded batches, without its temporary files and data loaders.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from schemas.config import AsrSettings
from schemas.errors import VoxmillError
from schemas.reasons import Reason
from workers.engines.base import Failure, Padding, Transcription, Word
from workers.engines.batching import Capacity, run_batches
from workers.engines.checkpoints import Checkpoint, digest_of
from workers.engines.ctc import ASTRAY, BestPath, best_paths
from workers.engines.gpu import memory_of
from workers.engines.nemo_models import quiet, restored
from workers.engines.nemo_words import PathWords, SpokenWord, decoding_of, follows_best_path

# nemo.collections.asr.parts.mixins.transcription.TranscriptionTensorDataset: shorter audio is padded on both sides
MIN_S = 1.0
_BATCH_S_ON_CPU = 30.0
_BATCH_S_ON_CUDA = 2_400.0
_BATCH_S_PER_GB = 30.0  # of memory that the process may take: the whole of the above on 80 GB
# Of a word: the mean of its tokens' probabilities, as Whisper's. NeMo's own default is an entropy, the least sure one's
_CONFIDENCE = {
    "preserve_word_confidence": True,
    "aggregation": "mean",
    "method_cfg": {"name": "max_prob", "alpha": 1.0},
}


def _load(checkpoint: Checkpoint, device: torch.device) -> tuple[Any, Path]:
    """The model of ``checkpoint`` in evaluation mode and its .nemo file. Raises VoxmillError where it cannot be had."""
    with quiet():
        from nemo.collections.asr.models import ASRModel, EncDecCTCModel, EncDecRNNTModel
    model, path = restored(ASRModel, checkpoint, device, "a speech recognition model")
    kind = type(model).__name__
    if not isinstance(model, EncDecCTCModel | EncDecRNNTModel) or "Prompt" in kind or "MultiTalker" in kind:
        spec = checkpoint.spec
        raise VoxmillError(f"the checkpoint is a {kind}", spec, "Choose a CTC, RNN-T, TDT or hybrid model.")
    return model.to(device).eval(), path


def _is_ctc(model: Any) -> bool:
    return bool(getattr(model, "cur_decoder", "ctc" if not hasattr(model, "joint") else "rnnt") == "ctc")


def _set_decoding(model: Any, words: bool) -> None:
    """Decode whole batches at once; with ``words``, keep word times and confidences.

    A checkpoint that was saved with a beam of its own keeps it, and gives the best hypothesis of it.
    """
    from omegaconf import OmegaConf, open_dict

    hybrid = hasattr(model, "ctc_decoding") and _is_ctc(model)
    decoding: Any = OmegaConf.create(
        OmegaConf.to_container(model.cfg.aux_ctc.decoding if hybrid else model.cfg.decoding)
    )
    with open_dict(decoding):
        if decoding.get("strategy", "greedy") == "greedy":
            decoding.strategy = "greedy_batch"
        elif "beam" in decoding:
            decoding.beam.return_best_hypothesis = True
        if words:
            decoding.compute_timestamps = True
            if not _is_ctc(model):  # NeMo 3.0 fails to aggregate those of character CTC
                decoding.confidence_cfg = {**(decoding.get("confidence_cfg") or {}), **_CONFIDENCE}
    kind = {"decoder_type": model.cur_decoder} if hasattr(model, "cur_decoder") else {}
    model.change_decoding_strategy(decoding, verbose=False, **kind)
    if words and not _is_ctc(model):
        model.decoding._aggregate_token_confidence = _or_none(model.decoding._aggregate_token_confidence)


def _or_none(aggregate: Callable[[Any], list[float]]) -> Callable[[Any], list[float]]:
    """Confidences of a hypothesis' words, or none where NeMo counts other words in the pieces than in the text (NeMo
    issue 15143: it has taken spaces before punctuation out of the text), for which it fails the whole batch."""

    def aggregated(hypothesis: Any) -> list[float]:
        try:
            return aggregate(hypothesis)
        except RuntimeError:
            return []

    return aggregated


class ConformerTranscriber:
    """The :class:`~workers.engines.base.Transcriber` of ``conformer:NAME`` and ``conformer:PATH.nemo``.

    The model knows its own languages, so ``languages`` of the clips change nothing. A .nemo archive is restored by
    NeMo, which makes the classes that its configuration names (NeMo's own only) and unpickles tokenizers: it is loaded
    from nowhere but the path or name that the run's configuration gives.
    """

    def __init__(self, checkpoint: Checkpoint, device: str, settings: AsrSettings) -> None:
        self.spec, self.settings = checkpoint.spec, settings
        self.device = torch.device(device)
        self.model, path = _load(checkpoint, self.device)
        self.digest = digest_of(path)
        featurizer = self.model.preprocessor.featurizer
        featurizer.dither, featurizer.pad_to = 0.0, 0
        self.sample_rate = int(self.model.preprocessor._sample_rate)
        with quiet():
            from nemo.collections.asr.parts.mixins.transcription import TranscribeConfig

            _set_decoding(self.model, words=False)
            self.path_words = self._path_words() if settings.word_timestamps else None
            words = settings.word_timestamps and self.path_words is None
            if words:
                _set_decoding(self.model, words)
            self.config = TranscribeConfig(return_hypotheses=words, timestamps=words or None)
        self.padding = Padding()
        batch_s = _BATCH_S_ON_CPU
        if self.device.type == "cuda":
            batch_s = min(_BATCH_S_ON_CUDA, _BATCH_S_PER_GB * memory_of(self.device) / 1e9)
        self.capacity = Capacity(batch_s)

    def _path_words(self) -> PathWords | None:
        """What finds the words of a CTC model; None where NeMo's own path has to."""
        if not _is_ctc(self.model) or not follows_best_path(self.model):
            return None
        stride_s = self.model.cfg["preprocessor"]["window_stride"]
        return PathWords(decoding_of(self.model), stride_s, self.model.encoder.subsampling_factor)

    def transcribe(self, clips: Sequence[np.ndarray], languages: Sequence[str | None]) -> list[Transcription | Failure]:
        """Transcribe ``clips`` at ``sample_rate``.

        CTC models give ``avg_logprob``: the mean log-probability of the frames that emit a letter or piece; it is None
        where nothing was heard, and for transducers.
        """
        answers: list[Transcription | Failure] = [
            Failure(Reason.NON_FINITE, "the samples are not all finite numbers") for _ in clips
        ]
        good = [index for index, clip in enumerate(clips) if np.isfinite(clip).all()]
        lengths = [max(len(clips[index]) / self.sample_rate, MIN_S) for index in good]
        with torch.inference_mode():
            results = run_batches(
                lengths, self.capacity, lambda batch: self._batch([clips[good[i]] for i in batch]), self._release
            )
        for index, result in zip(good, results, strict=True):
            answers[index] = result
        return answers

    def _release(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _collate(self, clips: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
        """Signals (batch, samples) and lengths on the device, and the silence put before each clip, in samples."""
        least = int(MIN_S * self.sample_rate)
        before = [max(0, least - len(clip)) // 2 for clip in clips]
        lengths = torch.tensor([max(least, len(clip)) for clip in clips])
        pinned = self.device.type == "cuda"  # memory that the GPU reads by itself
        signals = torch.zeros((len(clips), int(lengths.max())), pin_memory=pinned)
        for row, clip, start in zip(signals.numpy(), clips, before, strict=True):
            row[start : start + len(clip)] = clip
        return signals.to(self.device, non_blocking=pinned), lengths.to(self.device), before

    def _batch(self, clips: Sequence[np.ndarray]) -> list[Transcription | Failure]:
        signals, lengths, before = self._collate(clips)
        outputs = self.model._transcribe_forward((signals, lengths), self.config)
        paths: list[BestPath | None] = [*_paths(outputs)] or [None] * len(clips)
        sound = _are_finite(outputs, paths)
        hypotheses = self.model._transcribe_output_processing(outputs, self.config)
        self.padding.add([len(clip) / self.sample_rate for clip in clips], signals.shape[1] / self.sample_rate)
        return [
            Transcription(
                text=hypothesis.text,
                words=self._words(hypothesis, path, start, len(clip)) if self.settings.word_timestamps else (),
                avg_logprob=path.logprob() if path else None,
            )
            if is_sound
            else ASTRAY
            for hypothesis, path, clip, start, is_sound in zip(hypotheses, paths, clips, before, sound, strict=True)
        ]

    def _words(self, hypothesis: Any, path: BestPath | None, before: int, samples: int) -> tuple[Word, ...]:
        """Words on the clip's own clock: without the silence put before it, inside the clip, none into the next.

        A transducer may write the end of a word and the start of the next in one frame, and NeMo gives both all of it.
        """
        offset, end = before / self.sample_rate, samples / self.sample_rate
        spoken = self.path_words(path) if self.path_words and path else _spoken(hypothesis)
        spoken = [word for word in spoken if word.text.strip()]  # NeMo counts a lone "▁"
        starts = [min(max(0.0, word.start_s - offset), end) for word in spoken]
        stops = [min(max(0.0, word.end_s - offset), end) for word in spoken]
        return tuple(
            Word(word.text, start, min(stop, following), word.probability)
            for word, start, stop, following in zip(spoken, starts, stops, [*starts[1:], end], strict=True)
        )


def _spoken(hypothesis: Any) -> list[SpokenWord]:
    """The words of NeMo's own timestamps and, where there are as many, confidences."""
    words, told = hypothesis.timestamp["word"], hypothesis.word_confidence or []
    heard = [word for word in words if word["word"].strip()]
    confidences = map(float, told) if len(told) == len(heard) else [None] * len(heard)
    return [
        SpokenWord(word["word"], float(word["start"]), float(word["end"]), confidence)
        for word, confidence in zip(heard, confidences, strict=True)
    ]


def _are_finite(outputs: dict[str, torch.Tensor], paths: Sequence[BestPath | None]) -> list[bool]:
    """Whether the model gave numbers for each clip of a batch: CTC models labels', transducers what they encoded."""
    if "encoded" not in outputs:
        return [path is None or path.is_finite() for path in paths]
    are: torch.Tensor = outputs["encoded"].isfinite().all(dim=1)  # (batch, frames), of (batch, channels, frames)
    beyond = torch.arange(are.shape[1], device=are.device) >= outputs["encoded_len"].to(are.device)[:, None]
    told: list[bool] = (are | beyond).all(dim=1).tolist()
    return told


def _paths(outputs: dict[str, torch.Tensor]) -> list[BestPath]:
    """Best paths of a CTC model's batch; an empty list for transducers. NeMo's blank is the last label."""
    if "logits" not in outputs:
        return []
    logprobs = outputs["logits"]  # (batch, frames, labels + blank), log-softmax
    lengths = (outputs["logits_len"] if "logits_len" in outputs else outputs["encoded_len"]).tolist()
    return best_paths(logprobs, lengths, blank=logprobs.shape[-1] - 1)
