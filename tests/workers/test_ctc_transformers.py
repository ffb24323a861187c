"""wav2vec 2.0 and HuBERT in batches against the library's own pipeline, one file at a time, on real speech.

The checkpoints are small and random, of the library's own classes, saved as the library saves them.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from speech_clips import clips_of

from schemas.config import AsrSettings
from schemas.errors import VoxmillError
from schemas.reasons import Reason
from workers.engines.base import Failure, Transcription
from workers.engines.batching import plan_batches
from workers.engines.checkpoints import check_available, checkpoint_digest, resolve
from workers.engines.registry import load_transcriber

LETTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ'"]
# both kinds of normalisation: one takes no mask, the other does
KINDS = {"group": ("wav2vec2", False), "layer": ("hubert", True)}


def random_checkpoint(folder: Path, norm: str) -> Path:
    """A CTC model of width 32 with random weights whose texts depend on the audio."""
    from transformers import (
        HubertConfig,
        HubertForCTC,
        Wav2Vec2Config,
        Wav2Vec2CTCTokenizer,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2ForCTC,
    )

    family, mask = KINDS[norm]
    kind, config = {"wav2vec2": (Wav2Vec2ForCTC, Wav2Vec2Config), "hubert": (HubertForCTC, HubertConfig)}[family]
    folder.mkdir()
    (folder / "letters.json").write_text(json.dumps({letter: index for index, letter in enumerate(LETTERS)}))
    Wav2Vec2CTCTokenizer(str(folder / "letters.json")).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=mask).save_pretrained(folder)
    settings: dict[str, Any] = {
        "vocab_size": len(LETTERS),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "conv_dim": [32] * 7,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4,
        "feat_extract_norm": norm,
        "conv_bias": norm == "layer",
        "do_stable_layer_norm": norm == "layer",
        "pad_token_id": 0,
    }
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = kind(config(**settings))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim > 1 and "conv" not in name:
                    parameter.normal_(0, 2 * parameter.shape[-1] ** -0.5)
            model.lm_head.weight[4] *= 2  # more words
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("ctc")
    return {norm: random_checkpoint(folder / norm, norm) for norm in KINDS}


@pytest.fixture(scope="module")
def clips(shared_data: Path) -> list[np.ndarray]:
    chosen = clips_of(shared_data, "rhasspy", 5) + clips_of(shared_data, "librispeech-test-other", 4)
    return [*chosen, chosen[0][:7_000], chosen[1][:1_000]]


def load(checkpoints: dict[str, Path], norm: str, **settings: Any) -> Any:
    return load_transcriber(f"{KINDS[norm][0]}:{checkpoints[norm]}", "cpu", AsrSettings(**settings))


def one_by_one(checkpoints: dict[str, Path], norm: str, clips: list[np.ndarray]) -> list[str]:
    """The library's documented way: each clip alone, so without padding or mask."""
    from transformers import HubertForCTC, Wav2Vec2ForCTC, Wav2Vec2Processor

    processor = Wav2Vec2Processor.from_pretrained(checkpoints[norm])
    kind = Wav2Vec2ForCTC if KINDS[norm][0] == "wav2vec2" else HubertForCTC
    model = kind.from_pretrained(checkpoints[norm]).eval()
    texts = []
    for clip in clips:
        inputs = processor(clip, sampling_rate=16_000, return_tensors="pt")
        with torch.inference_mode():
            texts += processor.batch_decode(model(inputs["input_values"]).logits.argmax(dim=-1))
    return texts


@pytest.mark.parametrize("norm", KINDS)
def test_a_batch_is_what_the_library_hears_one_by_one(
    checkpoints: dict[str, Path], norm: str, clips: list[np.ndarray]
) -> None:
    engine = load(checkpoints, norm)
    assert any(len(batch) > 1 for batch in _batches(engine, clips))
    got = engine.transcribe(clips, [None] * len(clips))
    texts = [one.text for one in got if isinstance(one, Transcription)]
    assert texts == one_by_one(checkpoints, norm, clips)
    assert len(set(texts)) > len(texts) // 2
    assert all(one.avg_logprob < 0 for one in got if one.text)
    again = engine.transcribe(clips[::-2], [None] * len(clips[::-2]))
    assert [one.text for one in again] == texts[::-2]
    assert engine.transcribe(clips, [None] * len(clips)) == got  # bit for bit, whatever was heard in between


def _batches(engine: Any, clips: list[np.ndarray]) -> list[list[int]]:
    return plan_batches([len(clip) / 16_000 for clip in clips], engine.capacity)


@pytest.mark.parametrize("norm", KINDS)
def test_words_lie_in_their_clips(checkpoints: dict[str, Path], norm: str, clips: list[np.ndarray]) -> None:
    plain = load(checkpoints, norm).transcribe(clips, [None] * len(clips))
    got = load(checkpoints, norm, word_timestamps=True).transcribe(clips, [None] * len(clips))
    assert any(len(one.words) > 1 for one in got)
    for one, other, clip in zip(got, plain, clips, strict=True):
        assert (one.text, one.avg_logprob) == (other.text, other.avg_logprob)
        times = [time for word in one.words for time in (word.start_s, word.end_s)]
        assert times == sorted(times)
        assert all(0 <= time <= len(clip) / 16_000 for time in times)
        assert all(word.probability is not None and 0 < word.probability <= 1 for word in one.words)
        assert " ".join(word.text for word in one.words).split() == one.text.split()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_what_was_saved_in_half_precision_is_computed_in_single(
    checkpoints: dict[str, Path], clips: list[np.ndarray], tmp_path: Path, dtype: torch.dtype
) -> None:
    from transformers import Wav2Vec2ForCTC

    folder = shutil.copytree(checkpoints["group"], tmp_path / "half")
    Wav2Vec2ForCTC.from_pretrained(folder, dtype=dtype).save_pretrained(folder)
    engine: Any = load_transcriber(f"wav2vec2:{folder}", "cpu", AsrSettings())
    assert {parameter.dtype for parameter in engine.model.parameters()} == {torch.float32}
    (heard,) = engine.transcribe(clips[:1], [None])
    assert isinstance(heard, Transcription)


def test_one_bad_clip_costs_itself_alone(
    checkpoints: dict[str, Path], clips: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load(checkpoints, "group")
    good = engine.transcribe(clips, [None] * len(clips))
    poisoned = clips[2].copy()
    poisoned[100] = np.inf
    batch = engine._batch

    def explode(some: list[np.ndarray], frames: list[int]) -> Any:
        if any(clip is clips[4] for clip in some):
            raise RuntimeError("no kernel for this one")
        return batch(some, frames)

    monkeypatch.setattr(engine, "_batch", explode)
    got = engine.transcribe([poisoned, *clips, clips[0][:399]], [None] * (len(clips) + 2))
    assert got[0] == Failure(Reason.NON_FINITE, "the samples are not all finite numbers")
    assert got[5] == Failure(Reason.ENGINE_FAILED, "RuntimeError: no kernel for this one")
    assert got[-1].reason == Reason.TOO_SHORT
    rest = [index for index in range(len(clips)) if index != 4]
    assert [got[index + 1].text for index in rest] == [good[index].text for index in rest]


def test_a_clip_that_the_model_gives_no_numbers_for_fails_alone(
    checkpoints: dict[str, Path], clips: list[np.ndarray]
) -> None:
    engine = load(checkpoints, "layer", word_timestamps=True)
    pair = [clips[0], clips[0] * np.float32(0.5)]
    good = engine.transcribe(pair, [None] * 2)

    def astray(_: Any, __: Any, answer: Any) -> None:
        answer.logits[1] = torch.nan

    engine.model.register_forward_hook(astray)
    first, second = engine.transcribe(pair, [None] * 2)
    assert first == good[0]
    assert second == Failure(Reason.ENGINE_FAILED, "the model's output is not all finite numbers")


def test_folders_names_and_what_is_no_checkpoint(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkpoints["group"]
    digest = checkpoint_digest(f"wav2vec2:{folder}")
    assert load(checkpoints, "group").digest == digest
    assert checkpoint_digest(f"wav2vec2:{folder.as_uri()}") == digest  # fetched into the cache, the same model
    assert checkpoint_digest("wav2vec2:some/model") is None
    with pytest.raises(VoxmillError, match="is a wav2vec2"):
        load_transcriber(f"hubert:{folder}", "cpu", AsrSettings())
    with pytest.raises(VoxmillError, match="no such checkpoint folder"):
        resolve(f"hubert:{tmp_path / 'none'}")
    with pytest.raises(VoxmillError, match="neither a path nor a published name"):
        resolve("wav2vec2:base")
    (tmp_path / "empty").mkdir()
    with pytest.raises(VoxmillError, match="cannot be loaded"):
        load_transcriber(f"wav2vec2:{tmp_path / 'empty'}", "cpu", AsrSettings())

    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(VoxmillError, match=r"not in the cache.*HF_HOME.*wav2vec2:/models/x$"):
        check_available("wav2vec2:some/model")
    cached = tmp_path / "hub" / "models--some--model"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0123")
    (cached / "snapshots").mkdir()
    (cached / "snapshots" / "0123").symlink_to(folder)
    check_available("wav2vec2:some/model")
    assert load_transcriber("wav2vec2:some/model", "cpu", AsrSettings()).digest == digest


def test_a_checkpoint_without_a_head_or_with_code_is_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    from transformers import Wav2Vec2Model

    bare = shutil.copytree(checkpoints["group"], tmp_path / "bare")
    Wav2Vec2Model.from_pretrained(bare).save_pretrained(bare)
    with pytest.raises(VoxmillError, match="no CTC head"):
        load_transcriber(f"wav2vec2:{bare}", "cpu", AsrSettings())
    (bare / "model.safetensors").unlink()
    (bare / "pytorch_model.bin").write_bytes(b"\x80\x02cos\nsystem\nq\x00.")
    with pytest.raises(VoxmillError, match="cannot be loaded"):
        load_transcriber(f"wav2vec2:{bare}", "cpu", AsrSettings())
