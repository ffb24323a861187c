"""Whisper on CTranslate2 against openai-whisper with the same weights, converted here, in single precision."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from random_whisper import interpret_alignment, random_whisper
from speech_clips import clips_of

from schemas.config import AsrSettings
from schemas.errors import VoxmillError
from schemas.reasons import Reason
from workers.engines import registry
from workers.engines.base import Failure, Transcription
from workers.engines.checkpoints import checkpoint_digest, resolve
from workers.engines.registry import load_transcriber

pytest.importorskip("ctranslate2", reason="voxmill[faster-whisper] is not installed")

from workers.engines import faster_whisper


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_whisper(tmp_path_factory.mktemp("whisper") / "random.pt")


@pytest.fixture(scope="module")
def clips(shared_data: Path) -> list[np.ndarray]:
    return clips_of(shared_data, "rhasspy", 4)


def load(family: str, model: Path, **settings: Any) -> Any:
    if family == "faster-whisper":
        settings = {"compute_type": "float32", **settings}
    return load_transcriber(f"{family}:{model}", "cpu", AsrSettings(**{"fallback_temperatures": (), **settings}))


def test_texts_and_words_are_openai_whisper_s(
    checkpoint: Path, clips: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    interpret_alignment(monkeypatch)
    settings = {"word_timestamps": True, "initial_prompt": "Glienicke, drawers"}
    got = load("faster-whisper", checkpoint, **settings).transcribe(clips, [None, "de", "en", "fr"])
    expected = load("whisper", checkpoint, **settings).transcribe(clips, [None, "de", "en", "fr"])
    assert any(len(one.words) > 2 for one in expected)
    for one, other in zip(got, expected, strict=True):
        assert (one.text, one.language) == (other.text, other.language)
        assert [(word.text, word.start_s, word.end_s) for word in one.words] == [
            (word.text, word.start_s, word.end_s) for word in other.words
        ]
        for name in ("avg_logprob", "no_speech_prob", "compression_ratio"):
            assert getattr(one, name) == pytest.approx(getattr(other, name), abs=1e-4)


def test_only_failing_items_are_decoded_again_and_draws_depend_on_nothing_before(
    checkpoint: Path, clips: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, decoded = load("faster-whisper", checkpoint, fallback_temperatures=(0.6,)), []
    decode = engine._decode_once

    def spy(features: np.ndarray, temperatures: list[float], *rest: Any) -> Any:
        results = decode(features, temperatures, *rest)
        decoded.append((temperatures[0], len(results)))
        return [
            replace(one, avg_logprob=-0.5 if index else -1.5, compression_ratio=1.0)
            for index, one in enumerate(results)
        ]

    monkeypatch.setattr(engine, "_decode_once", spy)
    short = [clip[:24_000] for clip in clips]
    first = engine.transcribe(short, ["en"] * 4)
    assert decoded[:2] == [(0.0, 4), (0.6, 1)]
    assert [one.temperature for one in first].count(0.6) >= 1
    engine.transcribe(short[2:], ["de"] * 2)
    assert engine.transcribe(short, ["en"] * 4) == first


def test_the_model_that_draws_anew_is_opened_once_the_old_one_is_freed(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine: Any = load("faster-whisper", checkpoint)
    old, opened, reopen = engine.model, [], engine._open

    def refuse(device: str) -> Any:
        raise RuntimeError("CUDA failed with error out of memory")

    monkeypatch.setattr(engine, "_open", refuse)
    with pytest.raises(RuntimeError):
        engine._seed(1)
    assert (engine.model is old, old.model_is_loaded, engine.seeded) == (True, True, False)  # and can go on

    def spy(device: str) -> Any:
        opened.append(old.model_is_loaded)
        return reopen(device)

    monkeypatch.setattr(engine, "_open", spy)
    engine._seed(1)
    assert opened == [False]
    assert engine.model.model_is_loaded


def test_a_library_that_a_gpu_needs_is_missed_at_the_start(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "Library libcublas.so.12 is not found or cannot be loaded"
    real, loaded = faster_whisper.ctranslate2.models.Whisper, []

    class OnGpu:  # opens, and misses its library only when it computes
        n_mels = 80

        def __init__(self, folder: str, device: str, **_: Any) -> None:
            assert device == "cuda"
            real(folder, device="cpu")

        def encode(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError(said)

    for name in ("libcublas.so.12", "libcublasLt.so.12"):
        (tmp_path / "cublas" / "lib").mkdir(parents=True, exist_ok=True)
        (tmp_path / "cublas" / "lib" / name).write_bytes(b"")
    package = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(faster_whisper, "find_spec", lambda name: package)
    monkeypatch.setattr(faster_whisper.ctypes, "CDLL", lambda path, mode: loaded.append(Path(path).name))
    monkeypatch.setattr(faster_whisper.ctranslate2.models, "Whisper", OnGpu)
    settings, asked = AsrSettings(compute_type="float32"), resolve(f"faster-whisper:{checkpoint}")
    with pytest.raises(VoxmillError, match=rf"{said}.*pip install 'voxmill\[faster-whisper-gpu\]'"):
        faster_whisper.FasterWhisperTranscriber(asked, "cuda:0", settings)
    assert loaded == ["libcublasLt.so.12", "libcublas.so.12"]


def test_conversion_is_cached_by_digest_and_quantised_when_loaded(
    checkpoint: Path, clips: list[np.ndarray], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load("faster-whisper", checkpoint, compute_type=None)
    assert engine.model.compute_type.startswith("int8")
    assert engine.digest == checkpoint_digest(f"whisper:{checkpoint}")
    poisoned = clips[1].copy()
    poisoned[5] = np.nan
    heard, refused = engine.transcribe([clips[0], poisoned], ["en"] * 2)
    assert isinstance(heard, Transcription)
    assert isinstance(refused, Failure)
    assert refused.reason == Reason.NON_FINITE
    (folder,) = (cache / "voxmill").glob("ctranslate2-*")
    made = (folder / "model.bin").stat().st_mtime_ns
    ready = load("faster-whisper", folder, compute_type=None)  # a folder in CTranslate2's format does as well
    assert ready.transcribe([clips[0]], ["en"]) == [heard]
    load("faster-whisper", checkpoint)
    assert (folder / "model.bin").stat().st_mtime_ns == made
    with pytest.raises(VoxmillError, match="compute type"):
        load("faster-whisper", checkpoint, compute_type="float16")


def test_what_cannot_be_had_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve("faster-whisper:large-v3").path is None
    with pytest.raises(VoxmillError, match="no such checkpoint"):
        resolve(f"faster-whisper:{tmp_path / 'none.pt'}")
    with pytest.raises(VoxmillError, match="no model of this name"):
        resolve("faster-whisper:enormous")
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    with pytest.raises(VoxmillError, match=r"pip install 'voxmill\[faster-whisper\]'"):
        load_transcriber("faster-whisper:large-v3", "cpu", AsrSettings())
