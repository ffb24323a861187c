"""Whisper through CTranslate2: quantised, with the guards of ``whisper.transcribe`` for every item of a batch."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import torch
from whisper.audio import N_FRAMES
from whisper.decoding import DecodingResult
from whisper.tokenizer import Tokenizer
from whisper.utils import compression_ratio

from schemas.config import AsrSettings
from schemas.errors import VoxmillError
from workers.engines.base import Failure, Transcription
from workers.engines.checkpoints import Checkpoint, cache_folder, digest_of
from workers.engines.whisper import file_of, load_model
from workers.engines.whisper_ctranslate2 import cached
from workers.engines.whisper_loop import WhisperLoop
from workers.engines.whisper_words import Alignment

_WINDOWS_ON_CPU = 16
_WINDOWS_ON_CUDA = 48
_TEXT_CONTEXT = 448  # tokens that a window's prompt and text may have, in every published Whisper


def _folder(checkpoint: Checkpoint) -> tuple[Path, str]:
    """The folder in CTranslate2's format, converted where the checkpoint is openai-whisper's, and its digest."""
    path = checkpoint.path
    if path is None and "/" in checkpoint.model:
        from huggingface_hub import snapshot_download

        path = Path(snapshot_download(checkpoint.model))
    if path is not None and path.is_dir():
        return path, digest_of(path)
    load = cache(lambda: load_model(checkpoint, "cpu"))
    if path is None:
        load()  # which downloads it
    digest = digest_of(file_of(checkpoint))
    return cached(load, digest, cache_folder()), digest


def _load_cublas() -> None:
    """Make cuBLAS 12 of NVIDIA's wheel known to CTranslate2, which asks the system's loader for it by its bare name.

    PyTorch brings cuBLAS 13 alone. Where there is no such wheel the system may have the library all the same.
    """
    package = find_spec("nvidia")
    for folder in (package.submodule_search_locations or []) if package else []:
        for name in ("libcublasLt.so.12", "libcublas.so.12"):  # the second needs the first
            path = Path(folder) / "cublas" / "lib" / name
            if path.is_file():
                ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)


class FasterWhisperTranscriber(WhisperLoop):
    """The :class:`~workers.engines.base.Transcriber` of ``faster-whisper:NAME``, of a .pt and of a CTranslate2 folder.

    Names are openai-whisper's, or those of CTranslate2 folders on the hub (owner/name). ``digest`` is that of the
    checkpoint as given, not as converted. Raises VoxmillError where it cannot be had, read or computed in the
    compute type.
    """

    mixes_temperatures = False  # one is for a whole call

    def __init__(self, checkpoint: Checkpoint, device: str, settings: AsrSettings) -> None:
        on_cuda = device.startswith("cuda")
        self.compute_type = settings.compute_type or ("float16" if on_cuda else "int8")
        self.index, self.seeded = torch.device(device).index or 0, False
        try:
            if on_cuda:
                _load_cublas()
            self.folder, self.digest = _folder(checkpoint)
            self.model = self._open("cuda" if on_cuda else "cpu")
            if on_cuda:  # libraries are looked for when something is first computed: now, rather than at every clip
                self._encode([torch.zeros(self.model.n_mels, N_FRAMES)])
        except (OSError, RuntimeError, ValueError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            do = f"It must be a .pt of openai-whisper or a CTranslate2 folder, and {device} must know the compute type."
            if "libcublas" in reason:
                do = "CTranslate2 needs cuBLAS 12 on a GPU. Run: pip install 'voxmill[faster-whisper-gpu]'"
            raise VoxmillError(f"the checkpoint cannot be loaded ({reason})", checkpoint.spec, do) from error
        languages = self.model.num_languages if self.model.is_multilingual else 0
        windows = _WINDOWS_ON_CUDA if on_cuda else _WINDOWS_ON_CPU
        super().__init__(checkpoint.spec, settings, torch.device("cpu"), self.model.n_mels, languages, windows)
        config = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        self.text_context = int(config.get("n_text_ctx", _TEXT_CONTEXT))
        self.suppressed = _suppressed(self.tokenizer)

    def _open(self, device: str) -> Any:
        return ctranslate2.models.Whisper(
            str(self.folder), device=device, device_index=self.index, compute_type=self.compute_type
        )

    def _seed(self, seed: int) -> None:
        """Make the draws of one call depend on nothing but what is drawn in it.

        CTranslate2 reads the seed once, when a model's thread draws for the first time: only a new model draws anew.
        The old one gives its memory back before.
        """
        ctranslate2.set_random_seed(seed % 2**31)
        old = self.model
        old.unload_model()
        try:
            self.model, self.seeded = self._open(old.device), True
        except BaseException:
            old.load_model()
            raise

    def transcribe(self, clips: Sequence[np.ndarray], languages: Sequence[str | None]) -> list[Transcription | Failure]:
        """As of :class:`WhisperLoop`. The first fallback of a call costs another loading of the model."""
        self.seeded = False
        return super().transcribe(clips, languages)

    def _encode(self, windows: list[torch.Tensor]) -> np.ndarray:
        mel = ctranslate2.StorageView.from_array(torch.stack(windows).numpy())
        return np.array(self.model.encode(mel, to_cpu=True))

    def _most_probable(self, features: np.ndarray) -> list[tuple[str, float]]:
        ranked = self.model.detect_language(ctranslate2.StorageView.from_array(np.ascontiguousarray(features)))
        return [(row[0][0].removeprefix("<|").removesuffix("|>"), row[0][1]) for row in ranked]

    def _decode_once(
        self, features: np.ndarray, temperatures: list[float], languages: list[str], seeds: list[int]
    ) -> list[DecodingResult]:
        temperature = temperatures[0]
        prompts = [self._prompt(language) for language in languages]
        if temperature and not self.seeded:
            self._seed(seeds[0])
        results = self.model.generate(
            ctranslate2.StorageView.from_array(np.ascontiguousarray(features)),
            prompts,
            beam_size=1 if temperature else self.settings.beam_size or 1,
            max_length=self.text_context,  # of which CTranslate2 gives the text half, as openai-whisper does
            return_scores=True,
            return_no_speech_prob=True,
            suppress_tokens=self.suppressed,
            sampling_topk=0 if temperature else 1,
            sampling_temperature=temperature or 1.0,
        )
        return [self._result(result, temperature) for result in results]

    def _prompt(self, language: str) -> list[int]:
        """Tokens that come before a window's text: the initial prompt, the language and the task."""
        tokenizer = self._tokenizer(language)
        words = tokenizer.encode(" " + (self.settings.initial_prompt or "").strip())
        told = [tokenizer.sot_prev, *words[-(self.text_context // 2 - 1) :]] if self.settings.initial_prompt else []
        return [*told, *tokenizer.sot_sequence]

    def _result(self, result: Any, temperature: float) -> DecodingResult:
        tokens = [token for token in result.sequences_ids[0] if token != self.tokenizer.eot]
        text = self.tokenizer.decode(tokens).strip()
        return DecodingResult(
            audio_features=None,
            language="",
            tokens=tokens,
            text=text,
            avg_logprob=result.scores[0] * len(result.sequences_ids[0]) / (len(tokens) + 1),
            no_speech_prob=result.no_speech_prob,
            temperature=temperature,
            compression_ratio=compression_ratio(text),
        )

    def _alignments(
        self, features: np.ndarray, starts: list[list[int]], texts: list[list[int]], frames: list[int]
    ) -> list[Alignment]:
        """CTranslate2 knows one start, and so one language, per call."""
        found: dict[int, Alignment] = {}
        for start in dict.fromkeys(map(tuple, starts)):
            rows = [i for i, other in enumerate(starts) if tuple(other) == start]
            view = ctranslate2.StorageView.from_array(np.ascontiguousarray(features[rows]))
            aligned = self.model.align(view, list(start), [texts[i] for i in rows], [frames[i] for i in rows])
            for i, one in zip(rows, aligned, strict=True):
                at, places = np.array(one.alignments).T
                found[i] = Alignment(at, places, one.text_token_probs)
        return [found[i] for i in range(len(starts))]


def _suppressed(tokenizer: Tokenizer) -> list[int]:
    """What ``whisper.decoding`` never lets a window's text hold: symbols that nobody says, and the tasks' tokens."""
    special = (
        tokenizer.transcribe,
        tokenizer.translate,
        tokenizer.sot,
        tokenizer.sot_prev,
        tokenizer.sot_lm,
        tokenizer.no_speech,
    )
    return sorted({*tokenizer.non_speech_tokens, *special})
