"""When words are said: the path through a window's cross-attention, with openai-whisper's own rules on top of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from whisper import timing
from whisper.model import Whisper, disable_sdpa
from whisper.timing import TOKENS_PER_SECOND, WordTiming, dtw, median_filter
from whisper.tokenizer import Tokenizer

_MEDIAN_PLACES = 7  # whisper.timing.find_alignment


class Alignment(NamedTuple):
    """How a text lies in its window: pairs of an index into its tokens and a place of 20 ms, neither of which ever
    falls, and the probability of each token."""

    tokens: np.ndarray
    places: np.ndarray
    probabilities: Sequence[float]


def paths(
    model: Whisper,
    features: Tensor,
    starts: Sequence[Sequence[int]],
    texts: Sequence[Sequence[int]],
    frames: Sequence[int],
    tokenizer: Tokenizer,
) -> list[Alignment]:
    """What ``whisper.timing.find_alignment`` finds, for a batch of windows that are encoded already.

    ``features`` (batch, places, n_audio_state) hold ``frames`` mel frames of audio each; ``texts`` are tokens without
    timestamps, ``starts`` those that decoding began with. The library encodes every window anew, and takes one at a
    time.
    """
    rows = [[*start, tokenizer.no_timestamps, *text, tokenizer.eot] for start, text in zip(starts, texts, strict=True)]
    longest = max(map(len, rows))
    tokens = torch.tensor([row + [tokenizer.eot] * (longest - len(row)) for row in rows], device=features.device)
    with disable_sdpa(), _attention(model) as heard:
        logits = model.decoder(tokens, features)
    attention = torch.cat(heard, dim=1)  # (batch, heads, tokens, places)
    found = []
    for i, (start, text) in enumerate(zip(starts, texts, strict=True)):
        weights = attention[i, :, : len(rows[i]), : frames[i] // 2].softmax(dim=-1)
        std, mean = torch.std_mean(weights, dim=-2, keepdim=True, unbiased=False)
        matrix = median_filter((weights - mean) / std, _MEDIAN_PLACES).mean(dim=0)[len(start) : -1]
        said = logits[i, len(start) : len(start) + len(text), : tokenizer.eot].softmax(dim=-1)
        at, places = dtw(-matrix)
        found.append(Alignment(at, places, said[np.arange(len(text)), list(text)].tolist()))
    return found


@contextmanager
def _attention(model: Whisper) -> Iterator[list[Tensor]]:
    """What the heads that tell times attend to, (batch, heads, tokens, places) of each layer that has any."""
    heard: list[Tensor] = []
    heads = model.alignment_heads.indices().T.tolist()

    def keep(own: list[int], outputs: Any) -> None:
        heard.append(outputs[-1][:, own])

    hooks = []
    for layer, block in enumerate(model.decoder.blocks):
        if own := [head for at, head in heads if at == layer]:
            hooks.append(block.cross_attn.register_forward_hook(lambda _, ins, outs, own=own: keep(own, outs)))
    try:
        yield heard
    finally:
        for hook in hooks:
            hook.remove()


def add_words(
    segments: list[dict[str, Any]], text: list[int], path: Alignment, tokenizer: Tokenizer, last_speech_s: float
) -> None:
    """Fill ``words`` of ``segments`` in place and move their times, as ``whisper.timing.add_word_timestamps`` does.

    ``path`` leads through ``text``, the tokens of all segments without timestamps.
    """
    words = _timings(tokenizer, text, path)
    own, timing.find_alignment = timing.find_alignment, lambda *_, **__: words
    try:
        timing.add_word_timestamps(
            segments=segments,
            model=None,
            tokenizer=tokenizer,
            mel=None,
            num_frames=0,
            last_speech_timestamp=last_speech_s,
        )
    finally:
        timing.find_alignment = own


def _timings(tokenizer: Tokenizer, text: list[int], path: Alignment) -> list[WordTiming]:
    """The words of ``text``, each from the place where the path comes to its first token to where it leaves it."""
    words, pieces = tokenizer.split_to_word_tokens([*text, tokenizer.eot])
    if len(pieces) < 2:
        return []
    ends = np.cumsum([0, *map(len, pieces[:-1])])
    times = path.places[np.searchsorted(path.tokens, ends)] / TOKENS_PER_SECOND
    return [
        WordTiming(word, piece, times[i], times[i + 1], np.mean(path.probabilities[ends[i] : ends[i + 1]]))
        for i, (word, piece) in enumerate(zip(words[:-1], pieces[:-1], strict=True))
    ]
