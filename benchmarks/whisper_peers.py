"""The peers of :mod:`benchmarks.whisper`, each with the same weights: transformers in batches, and faster-whisper's."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import whisper
from whisper.model import Whisper
from whisper.tokenizer import Tokenizer, get_tokenizer

from workers.engines.whisper_ctranslate2 import convert

Heard = Callable[[list[np.ndarray], int], list[str]]  # clips at 16 kHz and windows per batch -> texts

# transformers' names of openai-whisper's parts (transformers.models.whisper), the longer parts first
_NAMES = {
    r"\.blocks\.": ".layers.",
    r"\.cross_attn_ln\.": ".encoder_attn_layer_norm.",
    r"\.attn_ln\.": ".self_attn_layer_norm.",
    r"\.mlp_ln\.": ".final_layer_norm.",
    r"\.cross_attn\.": ".encoder_attn.",
    r"\.attn\.": ".self_attn.",
    r"\.query\.": ".q_proj.",
    r"\.key\.": ".k_proj.",
    r"\.value\.": ".v_proj.",
    r"\.out\.": ".out_proj.",
    r"\.mlp\.0\.": ".fc1.",
    r"\.mlp\.2\.": ".fc2.",
    r"\.positional_embedding$": ".embed_positions.weight",
    r"\.token_embedding\.": ".embed_tokens.",
    r"^encoder\.ln_post\.": "encoder.layer_norm.",
    r"^decoder\.ln\.": "decoder.layer_norm.",
}


def transformers_batched(model: Whisper, device: str, tokens: int) -> Heard:
    """transformers' Whisper, half precision on CUDA: ``generate`` on batches, as in its pipeline, less the glue."""
    from transformers import GenerationConfig, WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

    dims, tokenizer = model.dims, get_tokenizer(model.is_multilingual, num_languages=model.num_languages)
    dtype = torch.float32 if device == "cpu" else torch.float16
    config = WhisperConfig(
        vocab_size=dims.n_vocab,
        num_mel_bins=dims.n_mels,
        d_model=dims.n_audio_state,
        encoder_layers=dims.n_audio_layer,
        decoder_layers=dims.n_text_layer,
        encoder_attention_heads=dims.n_audio_head,
        decoder_attention_heads=dims.n_text_head,
        encoder_ffn_dim=4 * dims.n_audio_state,
        decoder_ffn_dim=4 * dims.n_text_state,
        max_source_positions=dims.n_audio_ctx,
        max_target_positions=dims.n_text_ctx,
    )
    peer = WhisperForConditionalGeneration(config)
    weights = {}
    for name, weight in model.state_dict().items():
        for pattern, replacement in _NAMES.items():
            name = re.sub(pattern, replacement, name)
        weights[f"model.{name}"] = weight
    missing, unexpected = peer.load_state_dict(weights, strict=False)
    if unexpected or any(name != "proj_out.weight" for name in missing):
        raise SystemExit(f"transformers names its weights otherwise: {missing} missing, {unexpected} not known")
    peer.tie_weights()
    peer = peer.to(device, dtype).eval()
    peer.generation_config = GenerationConfig(
        bos_token_id=tokenizer.eot,
        eos_token_id=tokenizer.eot,
        pad_token_id=tokenizer.eot,
        decoder_start_token_id=tokenizer.sot,
        no_timestamps_token_id=tokenizer.no_timestamps,
        is_multilingual=True,
        lang_to_id={"<|en|>": tokenizer.to_language_token("en")},
        task_to_id={"transcribe": tokenizer.transcribe},
        suppress_tokens=[*tokenizer.non_speech_tokens, *_unspoken(tokenizer)],
        begin_suppress_tokens=[*tokenizer.encode(" "), tokenizer.eot],
        max_initial_timestamp_index=50,
    )
    extractor = WhisperFeatureExtractor(feature_size=dims.n_mels)

    def heard(clips: list[np.ndarray], batch: int) -> list[str]:
        texts: list[str] = []
        for at in range(0, len(clips), batch):
            features: Any = extractor(clips[at : at + batch], sampling_rate=16_000, return_tensors="pt", device=device)
            ids = peer.generate(
                features.input_features.to(device, dtype),
                language="en",
                task="transcribe",
                return_timestamps=True,
                max_new_tokens=tokens,
            )
            texts += [tokenizer.decode([int(token) for token in row if token < tokenizer.eot]).strip() for row in ids]
        return texts

    return heard


def _unspoken(tokenizer: Tokenizer) -> list[int]:
    """As ``whisper.decoding.DecodingTask._get_suppress_tokens``."""
    return [
        tokenizer.transcribe,
        tokenizer.translate,
        tokenizer.sot,
        tokenizer.sot_prev,
        tokenizer.sot_lm,
        tokenizer.no_speech,
    ]


def _save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write openai-whisper's own vocabulary as the tokenizer.json that faster-whisper reads."""
    from transformers.convert_slow_tokenizer import TikTokenConverter

    vocabulary = Path(whisper.__file__).parent / "assets" / "multilingual.tiktoken"
    special = sorted(tokenizer.special_tokens, key=lambda token: tokenizer.special_tokens[token])
    pattern = tokenizer.encoding._pat_str
    TikTokenConverter(str(vocabulary), pattern, extra_special_tokens=special).converted().save(
        str(folder / "tokenizer.json")
    )


def faster_whisper_batched(model: Whisper, device: str, tokens: int, folder: Path) -> Heard:
    """faster-whisper's ``BatchedInferencePipeline`` over the clips laid end to end, cut where they meet."""
    from faster_whisper import BatchedInferencePipeline, WhisperModel

    folder.mkdir()
    convert(model, folder)
    _save_tokenizer(get_tokenizer(model.is_multilingual, num_languages=model.num_languages), folder)
    peer = WhisperModel(str(folder), device=device, compute_type="float32" if device == "cpu" else "float16")
    pipeline = BatchedInferencePipeline(peer)

    def heard(clips: list[np.ndarray], batch: int) -> list[str]:
        ends = np.cumsum([len(clip) for clip in clips]) + 0.5  # half a sample: it rounds towards zero
        cuts = [
            {"start": (end - len(clip)) / 16_000, "end": end / 16_000} for clip, end in zip(clips, ends, strict=True)
        ]
        segments, _ = pipeline.transcribe(
            np.concatenate(clips),
            language="en",
            batch_size=batch,
            temperature=0.0,
            beam_size=1,
            max_new_tokens=tokens,
            vad_filter=False,
            clip_timestamps=cuts,
            without_timestamps=False,
            log_prob_threshold=None,
            no_speech_threshold=None,
            compression_ratio_threshold=None,
        )
        return [segment.text.strip() for segment in segments]

    return heard
