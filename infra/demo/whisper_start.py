"""The weights that the bundled Whisper's training begins with, and the model's dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from whisper.model import AudioEncoder, ModelDimensions, TextDecoder

DIMS = ModelDimensions(
    n_mels=80,
    n_audio_ctx=1500,
    n_audio_state=96,
    n_audio_head=3,
    n_audio_layer=3,
    n_vocab=51864,  # English only: whisper takes its other vocabularies for multilingual ones
    n_text_ctx=448,
    n_text_state=96,
    n_text_head=3,
    n_text_layer=3,
)

# The dimensions that carry positions at first: sines and cosines of every second of the sinusoids' frequencies, from
# those that turn within a frame to those that hardly turn in 30 s. What lies between is left to what is heard.
_HALF = DIMS.n_audio_state // 2
TURNS = torch.arange(0, DIMS.n_audio_state // DIMS.n_audio_head, 2)
PLACES = torch.cat([TURNS, _HALF + TURNS])
HEARD = torch.tensor([place for place in range(DIMS.n_audio_state) if place not in PLACES.tolist()])


def start_from_cepstra(encoder: AudioEncoder) -> None:
    """Let the first convolution begin as cepstra and their first and second differences in time, of both signs.

    Cepstra (cosines over the mel bands, Davis and Mermelstein 1980) leave out the level, and what sounds like a digit
    shows in them at once: from random filters the same takes several times the training.
    """
    bands = torch.arange(DIMS.n_mels) + 0.5
    orders = torch.arange(1, DIMS.n_audio_state // 6 + 1)
    cosines = torch.cos(math.pi * orders[:, None] * bands / DIMS.n_mels) / math.sqrt(DIMS.n_mels)
    taps = torch.tensor([[0.5, 1.0, 0.5], [-2.0, 0.0, 2.0], [2.0, -4.0, 2.0]])
    filters = (cosines[:, None, :, None] * taps[None, :, None, :]).reshape(-1, DIMS.n_mels, 3)
    filters = torch.cat([filters, -filters])
    with torch.no_grad():
        encoder.conv1.weight.copy_(2 * filters + 0.01 * torch.randn(filters.shape))
        encoder.conv1.bias.zero_()
        encoder.conv2.weight.mul_(6)


def at_places(scale: float, shifts: Sequence[float]) -> Tensor:
    """A (96, 96) projection in which every head sees the position, moved by its own of ``shifts`` encoder frames."""
    rate = torch.exp(-math.log(10_000) / (_HALF - 1) * TURNS)
    projection = torch.zeros(DIMS.n_audio_state, DIMS.n_audio_state)
    for head, shift in enumerate(shifts):
        sines, cosines = torch.cos(rate * shift), torch.sin(rate * shift)
        first = head * len(PLACES) + torch.arange(len(TURNS))
        second = first + len(TURNS)
        projection[first, TURNS], projection[first, _HALF + TURNS] = sines, cosines
        projection[second, TURNS], projection[second, _HALF + TURNS] = -cosines, sines
    return scale * projection


def start_from_places(encoder: AudioEncoder, decoder: TextDecoder) -> None:
    """Let attention begin where it will be needed, as in mimetic initialisation (Trockman and Kolter 2023).

    In the encoder each head attends to its neighbourhood, at once, before or after. In the decoder a timestamp, which
    is embedded as its position, attends to that position, and what is found there is copied: sounds and position.
    No layer of the encoder ever writes where positions stand, or it would soon write over them.
    """
    order = torch.cat([PLACES, HEARD])  # by heads: the first carries positions, the others what is heard
    copy = torch.eye(DIMS.n_audio_state)[order]
    with torch.no_grad():
        encoder.positional_embedding *= 0.5
        quiet = [encoder.conv2.weight, encoder.conv2.bias]
        for depth, block in enumerate(encoder.blocks):
            reach = 4.0 * 2**depth
            block.attn.query.weight.mul_(0.5).add_(at_places(2.4, (-reach, 0.0, reach)))
            block.attn.key.weight.mul_(0.5).add_(at_places(2.4, (0.0, 0.0, 0.0)))
            quiet += [block.attn.out.weight, block.attn.out.bias, block.mlp[2].weight, block.mlp[2].bias]
        for rows in quiet:
            rows[PLACES] = 0
        for block in decoder.blocks:
            for layer in (block.attn.out, block.mlp[2]):
                layer.weight.mul_(0.15)  # so that the token itself is heard beside what the layers add
                layer.bias.mul_(0.15)
            block.cross_attn.query.weight.mul_(0.5).add_(at_places(2.0, (0.0, 0.0, 0.0)))
            block.cross_attn.key.weight.mul_(0.5).add_(at_places(2.0, (0.0, 0.0, 0.0)))
            block.cross_attn.value.weight.mul_(0.3).add_(0.6 * copy)
            block.cross_attn.out.weight.mul_(0.3).add_(0.6 * copy.T)
    for rows in quiet:
        rows.register_hook(_but_places)


def _but_places(gradient: Tensor) -> Tensor:
    gradient = gradient.clone()
    gradient[PLACES] = 0
    return gradient
