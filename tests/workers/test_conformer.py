"""NeMo models in batches against ``model.transcribe`` one by one, on real speech with small random weights."""

from __future__ import annotations

import copy
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
from workers.engines.ctc import BestPath, best_paths
from workers.engines.nemo_words import PathWords
from workers.engines.published import listed
from workers.engines.registry import load_transcriber

ASR = "nemo.collections.asr.modules"
LABELS = [" ", *"abcdefghijklmnopqrstuvwxyz"]


def _encoder_config() -> dict[str, Any]:
    return {
        "sample_rate": 16_000,
        "labels": LABELS,
        "preprocessor": {
            "_target_": f"{ASR}.AudioToMelSpectrogramPreprocessor",
            "sample_rate": 16_000,
            "normalize": "per_feature",
            "window_size": 0.025,
            "window_stride": 0.01,
            "features": 80,
            "n_fft": 512,
            "dither": 1e-5,
            "pad_to": 16,
        },
        "encoder": {
            "_target_": f"{ASR}.ConformerEncoder",
            "feat_in": 80,
            "n_layers": 2,
            "d_model": 32,
            "subsampling": "striding",
            "subsampling_factor": 4,
            "subsampling_conv_channels": 32,
            "n_heads": 4,
            "conv_kernel_size": 9,
        },
    }


def _ctc() -> dict[str, Any]:
    decoder = {"_target_": f"{ASR}.ConvASRDecoder", "feat_in": 32, "num_classes": -1, "vocabulary": LABELS}
    return {**_encoder_config(), "decoder": decoder, "decoding": {"strategy": "greedy"}}


def _transducer() -> dict[str, Any]:
    return {
        **_encoder_config(),
        "model_defaults": {"enc_hidden": 32, "pred_hidden": 32, "joint_hidden": 32},
        "decoder": {
            "_target_": f"{ASR}.RNNTDecoder",
            "normalization_mode": None,
            "random_state_sampling": False,
            "blank_as_pad": True,
            "vocab_size": len(LABELS),
            "prednet": {"pred_hidden": 32, "pred_rnn_layers": 1},
        },
        "joint": {
            "_target_": f"{ASR}.RNNTJoint",
            "log_softmax": None,
            "fuse_loss_wer": False,
            "jointnet": {"joint_hidden": 32, "activation": "relu", "encoder_hidden": 32, "pred_hidden": 32},
            "num_classes": len(LABELS),
            "vocabulary": LABELS,
        },
        "decoding": {"strategy": "greedy", "greedy": {"max_symbols": 3}},
        "loss": {"loss_name": "default"},
    }


def _tdt() -> dict[str, Any]:
    durations = [0, 1, 2, 3, 4]
    config = _transducer()
    config["model_defaults"] |= {"tdt_durations": durations, "num_tdt_durations": len(durations)}
    config["joint"]["num_extra_outputs"] = len(durations)
    config["decoding"] |= {"model_type": "tdt", "durations": durations, "greedy": {"max_symbols": 10}}
    config["loss"] = {"loss_name": "tdt", "tdt_kwargs": {"durations": durations, "sigma": 0.05, "omega": 0.1}}
    return config


def _hybrid() -> dict[str, Any]:
    ctc = _ctc()
    return {**_transducer(), "aux_ctc": {"ctc_loss_weight": 0.3} | {key: ctc[key] for key in ("decoder", "decoding")}}


def _tokenizer(folder: Path, mark: str = "", size: int = 24) -> dict[str, Any]:
    """The configuration of word pieces that SentencePiece learns here, as NeMo's own script has it do; of sentences
    with a punctuation ``mark``."""
    import sentencepiece

    (folder / "text.txt").write_text(
        "\n".join(f"the {word}{mark} of the {word}ing" for word in ("sea", "land", "hand"))
    )
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text.txt"),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=size,
        model_type="bpe",
        bos_id=-1,
        eos_id=-1,
        minloglevel=2,
    )
    pieces = [line.split("\t")[0] for line in (folder / "tokenizer.vocab").read_text().splitlines()]
    (folder / "vocab.txt").write_text("\n".join(pieces))
    return {"tokenizer": {"dir": str(folder), "type": "bpe"}}


KINDS = {
    "ctc": "EncDecCTCModel",
    "ctc_pieces": "EncDecCTCModelBPE",
    "rnnt": "EncDecRNNTModel",
    "tdt_pieces": "EncDecRNNTBPEModel",
    "hybrid_pieces": "EncDecHybridRNNTCTCBPEModel",
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model of each kind with random weights, saved by NeMo; texts depend on the audio."""
    from nemo.collections.asr import models
    from nemo.utils import logging
    from omegaconf import OmegaConf

    logging.setLevel(logging.ERROR)
    folder, found = tmp_path_factory.mktemp("nemo"), {}
    pieces = _tokenizer(tmp_path_factory.mktemp("tokenizer"))
    configs = {
        "ctc": _ctc(),
        "ctc_pieces": _ctc() | pieces,
        "rnnt": _transducer(),
        "tdt_pieces": _tdt() | pieces,
        "hybrid_pieces": _hybrid() | pieces,
    }
    with torch.random.fork_rng():
        for name, config in configs.items():
            torch.manual_seed(1)
            model = getattr(models, KINDS[name])(cfg=OmegaConf.create(copy.deepcopy(config)))
            with torch.no_grad():
                for part, parameter in model.named_parameters():
                    if part.startswith(("decoder", "joint", "ctc_decoder")):
                        parameter.mul_(4)
                    if "pieces" in name and part.endswith("bias") and ("joint_net" in part or "decoder_layers" in part):
                        parameter[0] = -1e4  # the unknown piece, which trained models do not write
            found[name] = folder / f"{name}.nemo"
            model.save_to(str(found[name]))
    return found


@pytest.fixture(scope="module")
def clips(shared_data: Path) -> list[np.ndarray]:
    chosen = clips_of(shared_data, "rhasspy", 5) + clips_of(shared_data, "librispeech-test-other", 4)
    return [*chosen, chosen[0][:7_000], chosen[1][:30]]


def one_by_one(checkpoint: Path, clips: list[np.ndarray]) -> list[str]:
    """What the library hears, by a model of its own: ``model.transcribe`` leaves parts of it in training mode."""
    from nemo.collections.asr.models import ASRModel

    model = ASRModel.restore_from(str(checkpoint), map_location="cpu").eval()
    return [model.transcribe([torch.from_numpy(clip)], batch_size=1, verbose=False)[0].text for clip in clips]


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_what_the_library_hears_one_by_one(
    checkpoints: dict[str, Path], kind: str, clips: list[np.ndarray]
) -> None:
    engine = load_transcriber(f"conformer:{checkpoints[kind]}", "cpu", AsrSettings())
    got = engine.transcribe(clips, [None] * len(clips))
    texts = [one.text for one in got if isinstance(one, Transcription)]
    assert texts == one_by_one(checkpoints[kind], clips)
    assert len(set(texts)) > len(texts) // 2
    for order in (range(len(clips))[::-1], range(0, len(clips), 3)):
        again = engine.transcribe([clips[index] for index in order], [None] * len(order))
        assert [one.text for one in again] == [texts[index] for index in order]  # type: ignore[union-attr]
    if kind.startswith("ctc"):
        assert all(one.avg_logprob < 0 for one in got if one.text)  # type: ignore[union-attr, operator]
    assert engine.digest.startswith("blake3:")


@pytest.mark.parametrize("kind", KINDS)
def test_words_lie_in_their_clips(checkpoints: dict[str, Path], kind: str, clips: list[np.ndarray]) -> None:
    plain = load_transcriber(f"conformer:{checkpoints[kind]}", "cpu", AsrSettings())
    engine = load_transcriber(f"conformer:{checkpoints[kind]}", "cpu", AsrSettings(word_timestamps=True))
    got = engine.transcribe(clips, [None] * len(clips))
    assert [one.text for one in got] == [one.text for one in plain.transcribe(clips, [None] * len(clips))]  # type: ignore[union-attr]
    for one, clip in zip(got, clips, strict=True):
        assert isinstance(one, Transcription)
        times = [time for word in one.words for time in (word.start_s, word.end_s)]
        assert times == sorted(times)
        assert all(0 <= time <= len(clip) / 16_000 for time in times)
        assert all(word.probability is not None and 0 <= word.probability <= 1 for word in one.words)
        assert [word.text for word in one.words] == one.text.split()


def test_a_text_with_other_words_than_its_pieces_keeps_its_words(
    checkpoints: dict[str, Path], clips: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine: Any = load_transcriber(f"conformer:{checkpoints['tdt_pieces']}", "cpu", AsrSettings(word_timestamps=True))
    expected = engine.transcribe(clips, [None] * len(clips))
    text_of = engine.model.decoding.decode_tokens_to_str_with_strip_punctuation
    joined = lambda tokens: text_of(tokens).replace(" ", "", 1)  # noqa: E731  as where a space before a mark goes
    monkeypatch.setattr(engine.model.decoding, "decode_tokens_to_str_with_strip_punctuation", joined)
    got = engine.transcribe(clips, [None] * len(clips))
    assert [one.text for one in got] == [one.text.replace(" ", "", 1) for one in expected]
    several = [(one, was) for one, was in zip(got, expected, strict=True) if len(was.words) > 1]
    assert several
    assert all([word.text for word in one.words] == [word.text for word in was.words] for one, was in several)
    assert all(word.probability is None for one, _ in several for word in one.words)


def test_a_checkpoint_saved_with_all_of_its_beam_gives_the_best(
    checkpoints: dict[str, Path], clips: list[np.ndarray], tmp_path: Path
) -> None:
    from nemo.collections.asr.models import ASRModel
    from omegaconf import open_dict

    model = ASRModel.restore_from(str(checkpoints["rnnt"]), map_location="cpu")
    with open_dict(model.cfg):
        model.cfg.decoding.strategy = "alsd"  # whose steps are bounded, whatever random weights say
        model.cfg.decoding.beam = {"beam_size": 2, "return_best_hypothesis": False, "alsd_max_target_len": 0.5}
    model.save_to(str(tmp_path / "beam.nemo"))
    engine = load_transcriber(f"conformer:{tmp_path / 'beam.nemo'}", "cpu", AsrSettings())
    assert all(isinstance(one, Transcription) for one in engine.transcribe(clips[-2:], [None] * 2))


def _rates(model: Any) -> tuple[float, int]:
    return model.cfg["preprocessor"]["window_stride"], model.encoder.subsampling_factor


def _times(words: list[Any]) -> list[tuple[str, float, float]]:
    return [(word["word"], word["start"], word["end"]) for word in words]


@pytest.mark.parametrize("kind", ["ctc", "ctc_pieces"])
def test_words_of_the_best_path_are_those_of_nemos_timestamps(
    checkpoints: dict[str, Path], kind: str, clips: list[np.ndarray]
) -> None:
    from nemo.collections.asr.models import ASRModel

    engine: Any = load_transcriber(f"conformer:{checkpoints[kind]}", "cpu", AsrSettings(word_timestamps=True))
    assert engine.path_words is not None
    long = [clip for clip in clips if len(clip) >= 16_000]
    got = engine.transcribe(long, [None] * len(long))
    model = ASRModel.restore_from(str(checkpoints[kind]), map_location="cpu").eval()
    for one, clip in zip(got, long, strict=True):
        (theirs,) = model.transcribe([torch.from_numpy(clip)], timestamps=True, verbose=False)
        expected = [word for word in _times(theirs.timestamp["word"]) if word[0].strip()]
        stops = [*(start for _, start, _ in expected[1:]), len(clip) / 16_000]
        assert [(word.text, word.start_s, word.end_s) for word in one.words] == [
            (text, start, min(end, stop)) for (text, start, end), stop in zip(expected, stops, strict=True)
        ]


@pytest.mark.parametrize("kind", ["characters", "pieces"])
def test_words_of_any_path_are_nemos_with_punctuation_too(tmp_path: Path, kind: str) -> None:
    from nemo.collections.asr.parts.submodules.ctc_decoding import CTCBPEDecoding, CTCDecoding
    from nemo.collections.asr.parts.utils.timestamp_utils import process_timestamp_outputs
    from nemo.collections.common.tokenizers import SentencePieceTokenizer
    from omegaconf import OmegaConf

    config = OmegaConf.create({"strategy": "greedy_batch", "compute_timestamps": True})
    if kind == "pieces":
        _tokenizer(tmp_path, mark=",", size=26)
        tokenizer = SentencePieceTokenizer(str(tmp_path / "tokenizer.model"))
        size = tokenizer.tokenizer.vocab_size = tokenizer.vocab_size  # as NeMo's models set it
        decoding: Any = CTCBPEDecoding(config, tokenizer)
    else:
        decoding, size = CTCDecoding(config, [" ", *"ab,."]), 5
    assert "," in decoding.supported_punctuation
    words, rng = PathWords(decoding, 0.01, 4), np.random.default_rng(1)
    labels = torch.from_numpy(
        np.where(rng.random((60, 50)) < 0.4, size, rng.integers(kind == "pieces", size, (60, 50)))
    )
    labels[0] = size  # nothing said
    lengths = torch.from_numpy(rng.integers(1, 51, 60))
    logprobs = (torch.nn.functional.one_hot(labels, size + 1) * 9.0).log_softmax(-1)
    paths = best_paths(logprobs, lengths.tolist(), blank=size)
    heard = decoding.ctc_decoder_predictions_tensor(logprobs, lengths, return_hypotheses=True)
    theirs = [_times(one.timestamp["word"]) for one in process_timestamp_outputs(heard, 4, 0.01)]
    ours = [words(path) for path in paths]
    assert [[word[:3] for word in one] for one in ours] == theirs
    assert sum(map(len, ours)) > 100
    sure = float(logprobs.max().exp())
    assert all(word.probability == pytest.approx(sure, abs=1e-6) for one in ours for word in one)


def test_the_probability_of_a_word_is_that_of_its_own_frames() -> None:
    from nemo.collections.asr.parts.submodules.ctc_decoding import CTCDecoding
    from omegaconf import OmegaConf

    words = PathWords(CTCDecoding(OmegaConf.create({"strategy": "greedy_batch"}), [" ", *"ab"]), 0.01, 4)
    labels = np.array([3, 1, 1, 3, 2, 0, 0, 2, 3])  # "ab b"
    chances = np.array([0.9, 0.5, 0.5, 0.9, 0.5, 0.1, 0.1, 0.8, 0.9])
    found = words(BestPath(labels, np.log(chances).astype(np.float32), labels != 3))
    assert [(word.text, round(word.probability or 0, 4)) for word in found] == [("ab", 0.5), ("b", 0.8)]


def test_one_bad_clip_costs_itself_alone(
    checkpoints: dict[str, Path], clips: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine: Any = load_transcriber(f"conformer:{checkpoints['ctc']}", "cpu", AsrSettings())
    good = engine.transcribe(clips, [None] * len(clips))
    poisoned = clips[2].copy()
    poisoned[100] = np.inf
    collate = engine._collate

    def explode(batch: list[np.ndarray]) -> Any:
        if any(clip is clips[4] for clip in batch):
            raise RuntimeError("no kernel for this one")
        return collate(batch)

    monkeypatch.setattr(engine, "_collate", explode)
    got = engine.transcribe([poisoned, *clips], [None] * (len(clips) + 1))
    assert got[0] == Failure(Reason.NON_FINITE, "the samples are not all finite numbers")
    assert got[5] == Failure(Reason.ENGINE_FAILED, "RuntimeError: no kernel for this one")
    rest = [index for index in range(len(clips)) if index != 4]
    assert [got[index + 1].text for index in rest] == [good[index].text for index in rest]


@pytest.mark.parametrize("kind", ["ctc", "rnnt"])
def test_a_clip_that_the_model_gives_no_numbers_for_fails_alone(
    checkpoints: dict[str, Path], clips: list[np.ndarray], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine: Any = load_transcriber(f"conformer:{checkpoints[kind]}", "cpu", AsrSettings(word_timestamps=True))
    pair = [clips[0], clips[0] * np.float32(0.5)]
    good = engine.transcribe(pair, [None] * 2)
    forward, name = engine.model._transcribe_forward, "logits" if kind == "ctc" else "encoded"

    def astray(*given: Any) -> Any:
        outputs = forward(*given)
        outputs[name][1] = torch.nan
        return outputs

    monkeypatch.setattr(engine.model, "_transcribe_forward", astray)
    first, second = engine.transcribe(pair, [None] * 2)
    assert first == good[0]
    assert second == Failure(Reason.ENGINE_FAILED, "the model's output is not all finite numbers")


def test_what_is_no_checkpoint_says_so(tmp_path: Path) -> None:
    (tmp_path / "broken.nemo").write_bytes(b"not a tar")
    with pytest.raises(VoxmillError, match="cannot be loaded") as raised:
        load_transcriber(f"conformer:{tmp_path / 'broken.nemo'}", "cpu", AsrSettings())
    assert "\n" not in str(raised.value)


def test_the_names_read_from_nemos_source_are_those_it_lists() -> None:
    from nemo.collections.asr.models import ASRModel
    from nemo.collections.tts.models import FastPitchModel, HifiGanModel

    for package, model in (("asr", ASRModel), ("tts", FastPitchModel), ("tts", HifiGanModel)):
        theirs = {info.pretrained_model_name: info.location for info in model.list_available_models()}
        assert listed(f"nemo.collections.{package}.models:{model.__name__}") == theirs
        assert len(theirs) > 5
