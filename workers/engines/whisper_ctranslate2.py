"""openai-whisper's checkpoints in CTranslate2's format, converted on first use and cached by digest."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import torch
from ctranslate2.converters.utils import fuse_linear
from ctranslate2.specs.common_spec import LayerNormSpec, LinearSpec
from ctranslate2.specs.whisper_spec import WhisperSpec
from torch import nn
from whisper.model import MultiHeadAttention, ResidualAttentionBlock, Whisper
from whisper.tokenizer import get_tokenizer


def cached(load: Callable[[], Whisper], digest: str, folder: Path) -> Path:
    """The converted model, whose checkpoint has ``digest``, under ``folder``; only one not converted yet is loaded.

    Raises OSError where there is no room for it.
    """
    made = folder / f"ctranslate2-{digest.removeprefix('blake3:')[:40]}"
    if not made.is_dir():
        temporary = made.with_name(f"{made.name}.{uuid4().hex}.tmp")  # no other node's that has the same home either
        try:
            temporary.mkdir(parents=True)
            convert(load(), temporary)
            with suppress(OSError):  # another process was first
                temporary.replace(made)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return made


def convert(model: Whisper, folder: Path) -> None:
    """Write ``model`` into ``folder``. Half precision is kept where it holds every weight, as in all published ones;
    the compute type is chosen when the model is loaded."""
    dims = model.dims
    spec = WhisperSpec(dims.n_audio_layer, dims.n_audio_head, dims.n_text_layer, dims.n_text_head)
    halved = all(torch.equal(weight.half().to(weight.dtype), weight) for weight in model.parameters())

    encoder, source = spec.encoder, model.encoder
    for target, convolution in ((encoder.conv1, source.conv1), (encoder.conv2, source.conv2)):
        target.weight, target.bias = convolution.weight, convolution.bias
    encoder.position_encodings.encodings = source.positional_embedding
    _norm(encoder.layer_norm, source.ln_post)
    for layer, block in zip(encoder.layer, source.blocks, strict=True):
        _block(layer, block)

    decoder, written = spec.decoder, model.decoder
    decoder.embeddings.weight = decoder.projection.weight = written.token_embedding.weight
    decoder.position_encodings.encodings = written.positional_embedding
    _norm(decoder.layer_norm, written.ln)
    for layer, block in zip(decoder.layer, written.blocks, strict=True):
        _block(layer, block)

    tokenizer = get_tokenizer(model.is_multilingual, num_languages=model.num_languages)
    names = [tokenizer.encoding.decode_single_token_bytes(token).decode("latin-1") for token in range(dims.n_vocab)]
    spec.register_vocabulary(names)
    spec.config.suppress_ids = list(tokenizer.non_speech_tokens)
    spec.config.suppress_ids_begin = [*tokenizer.encode(" "), tokenizer.eot]
    spec.config.lang_ids = list(tokenizer.all_language_tokens) if model.is_multilingual else []
    spec.config.alignment_heads = model.alignment_heads.indices().T.tolist()
    spec.config.add_attribute("n_text_ctx", dims.n_text_ctx)
    spec.validate()
    spec.optimize("float16" if halved else None)
    spec.save(str(folder))


def _block(layer, block: ResidualAttentionBlock) -> None:  # type: ignore[no-untyped-def]
    _attention(layer.self_attention, block.attn)
    _norm(layer.self_attention.layer_norm, block.attn_ln)
    if block.cross_attn is not None:
        _attention(layer.attention, block.cross_attn, fused=1)
        _norm(layer.attention.layer_norm, block.cross_attn_ln)
    _linear(layer.ffn.linear_0, block.mlp[0])
    _linear(layer.ffn.linear_1, block.mlp[2])
    _norm(layer.ffn.layer_norm, block.mlp_ln)


def _attention(target, source: MultiHeadAttention, fused: int = 3) -> None:  # type: ignore[no-untyped-def]
    """Queries, keys and values as one matrix (``fused`` 3), or the queries apart from the other two (1)."""
    parts = [_linear(LinearSpec(), part) for part in (source.query, source.key, source.value)]
    fuse_linear(target.linear[0], parts[:fused])
    if fused < len(parts):
        fuse_linear(target.linear[1], parts[fused:])
    _linear(target.linear[-1], source.out)


def _linear(target: LinearSpec, source: nn.Linear) -> LinearSpec:
    target.weight = source.weight
    if source.bias is not None:
        target.bias = source.bias
    return target


def _norm(target: LayerNormSpec, source: nn.LayerNorm) -> None:
    target.gamma, target.beta = source.weight, source.bias
