"""The bundled digit voice's two models, as NeMo's ``fastpitch_align`` and ``hifigan`` configurations lay them out,
small, and how they are stored."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path
from typing import Any

from infra.demo.clips import SAMPLE_RATE
from infra.demo.voice_data import BANDS, HOP, N_FFT, VOICES, WINDOW

WIDTH = 80
# Deferred: the models are made here without data, which stays outside of NeMo's loaders.
_DATASET = {"defer_setup": True, "dataset": {"_target_": "nemo.collections.tts.data.dataset.TTSDataset"}}


def _preprocessor() -> dict[str, Any]:
    return {
        "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
        "sample_rate": SAMPLE_RATE,
        "features": BANDS,
        "lowfreq": 0,
        "highfreq": SAMPLE_RATE // 2,
        "n_fft": N_FFT,
        "n_window_size": WINDOW,
        "n_window_stride": HOP,
        "window_size": False,
        "window_stride": False,
        "window": "hann",
        "pad_to": 1,
        "pad_value": 0,
        "normalize": None,
        "log": True,
        "log_zero_guard_type": "add",
        "log_zero_guard_value": 1e-5,
        "dither": 0.0,
        "preemph": None,
        "mag_power": 1.0,
        "frame_splicing": 1,
        "nb_augmentation_prob": 0.0,
        "mel_norm": "slaney",
        "exact_pad": True,
    }


def _filterbank() -> dict[str, Any]:
    """The same as :func:`_preprocessor`, as HiFi-GAN wants it."""
    other = {"features": "nfilt"}
    left_out = ("window_size", "window_stride")
    settings = {other.get(name, name): value for name, value in _preprocessor().items() if name not in left_out}
    target = "nemo.collections.asr.parts.preprocessing.features.FilterbankFeatures"
    return {**settings, "_target_": target, "use_grads": False}


def _transformer(target: str, layers: int) -> dict[str, Any]:
    return {
        "_target_": f"nemo.collections.tts.modules.transformer.{target}",
        "n_layer": layers,
        "n_head": 1,
        "d_model": WIDTH,
        "d_head": 48,
        "d_inner": 2 * WIDTH,
        "kernel_size": 3,
        "dropout": 0.05,
        "dropatt": 0.05,
        "dropemb": 0.0,
    }


def _predictor() -> dict[str, Any]:
    return {
        "_target_": "nemo.collections.tts.modules.fastpitch.TemporalPredictor",
        "input_size": WIDTH,
        "filter_size": WIDTH,
        "kernel_size": 3,
        "dropout": 0.05,
        "n_layers": 2,
    }


def fastpitch_config(speakers: int = len(VOICES)) -> dict[str, Any]:
    return {
        "sample_rate": SAMPLE_RATE,
        "learn_alignment": True,
        "n_speakers": speakers,
        "speaker_emb_condition_prosody": speakers > 1,
        "speaker_emb_condition_decoder": speakers > 1,
        "n_mel_channels": BANDS,
        "max_token_duration": 75,
        "symbols_embedding_dim": WIDTH,
        "pitch_embedding_kernel_size": 3,
        "text_tokenizer": {
            "_target_": "nemo.collections.common.tokenizers.text_to_speech.tts_tokenizers.EnglishCharsTokenizer",
            "punct": True,
            "apostrophe": True,
            "pad_with_space": True,
        },
        "train_ds": _DATASET,
        "preprocessor": _preprocessor(),
        "input_fft": _transformer("FFTransformerEncoder", 2),
        "output_fft": _transformer("FFTransformerDecoder", 3),
        "duration_predictor": _predictor(),
        "pitch_predictor": _predictor(),
        "alignment_module": {
            "_target_": "nemo.collections.tts.modules.aligner.AlignmentEncoder",
            "n_text_channels": WIDTH,
        },
    }


def hifigan_config(channels: int = 64) -> dict[str, Any]:
    return {
        "train_ds": _DATASET,
        "preprocessor": _filterbank(),
        "generator": {
            "_target_": "nemo.collections.tts.modules.hifigan_modules.Generator",
            "resblock": 2,
            "upsample_rates": [8, 8, 4],
            "upsample_kernel_sizes": [16, 16, 8],
            "upsample_initial_channel": channels,
            "resblock_kernel_sizes": [3, 5, 7],
            "resblock_dilation_sizes": [[1, 2], [2, 6], [3, 12]],
        },
        "debug": True,  # small discriminators
        "max_steps": 1,
        "l1_loss_factor": 45,
    }


def fastpitch(**changes: Any) -> Any:
    """An untrained ``FastPitchModel``. Imports NeMo, which takes a while."""
    from nemo.collections.tts.models import FastPitchModel
    from nemo.utils import logging
    from omegaconf import OmegaConf

    logging.setLevel(logging.ERROR)
    return FastPitchModel(cfg=OmegaConf.create(fastpitch_config(**changes)))


def hifigan(**changes: Any) -> Any:
    """An untrained ``HifiGanModel``."""
    from nemo.collections.tts.models import HifiGanModel
    from nemo.utils import logging
    from omegaconf import OmegaConf

    logging.setLevel(logging.ERROR)
    return HifiGanModel(cfg=OmegaConf.create(hifigan_config(**changes)))


UNSPOKEN = ("fastpitch.aligner.", "aligner.", "mpd.", "msd.")  # parts that only training uses


def save(model: Any, path: Path) -> None:
    """Write ``model`` as NeMo's ``save_to`` does, small: half precision, zeros for what only training uses (NeMo wants
    the tensors there), and the tar compressed, which NeMo reads as well."""
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name, tensor in model.state_dict().items():
        if name.startswith(UNSPOKEN):
            tensor.zero_()
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "model.nemo"
        model.half().save_to(str(plain))
        model.float().load_state_dict(state)
        with open(path, "wb") as raw, gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as out:
            out.write(plain.read_bytes())
