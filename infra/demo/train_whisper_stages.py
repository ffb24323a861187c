"""Train the bundled Whisper in stages: what digits sound like first, then what to write, then where to look in 30 s.

``python -m infra.demo.train_whisper_stages whisper-digits.pt --fsdd fsdd_train.tar --espeak-clips 1200``

It uses the model, batches and losses of :mod:`infra.demo.train_whisper` with another start and schedule: attention in
the encoder begins as local (queries and keys copy the positional sinusoids), the first stage trains the encoder alone
on its frames' digits, and recordings stay gentle, with each batch kept and seen several times under new masks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from infra.demo.speech import Example, Speech, arguments, pools
from infra.demo.train_whisper import DIMS, IGNORED, Batch, Trainee, make_batch, masked

KEPT_BATCHES = 60
MASK_MELS = 6


@dataclass(frozen=True)
class Stage:
    """``windows`` are the batches' seconds in turn, ``rate`` and ``harshness`` go from the first to the last value."""

    steps: int
    windows: tuple[int, ...]
    fresh: float  # share of the steps that draw a new batch
    rate: tuple[float, float]
    harshness: tuple[float, float]
    writes: bool  # whether the decoder learns too


STAGES = (
    Stage(450, (2,), 0.25, (3e-3, 2e-3), (0.15, 0.3), writes=False),
    Stage(350, (2, 2, 8), 0.3, (2e-3, 1.5e-3), (0.3, 0.45), writes=True),
    Stage(750, (2, 2, 2, 8, 2, 2, 8, 30), 0.3, (2.5e-3, 2e-5), (0.3, 0.3), writes=True),
)
EXAMPLES = {2: 32, 8: 8, 30: 4}


def localize(model: Trainee) -> None:
    """Let every encoder layer begin by attending to its neighbourhood.

    Queries and keys start near a copy of the positions, as in mimetic initialisation (Trockman and Kolter 2023), each
    head on one band of the sinusoids' frequencies.
    """
    encoder, width, heads = model.whisper.encoder, DIMS.n_audio_state, DIMS.n_audio_head
    band = width // heads // 2
    copy = torch.zeros(width, width)
    for row in range(width // 2):
        head, place = divmod(row, band)
        copy[head * 2 * band + place, row] = 1
        copy[head * 2 * band + band + place, width // 2 + row] = 1
    with torch.no_grad():
        encoder.conv1.weight *= 2
        encoder.conv2.weight *= 2
        encoder.positional_embedding *= 0.5
        for block in encoder.blocks:
            for layer in (block.attn.query, block.attn.key):
                layer.weight.mul_(0.5).add_(0.8 * copy)


def draw(speech: Speech, seconds: int) -> Example:
    """An example for a window of ``seconds``: some say nothing, many of the short ones are single digits."""
    rng = speech.rng
    kind = rng.random()
    if seconds == 2:
        if kind < 0.06:
            return speech.nothing(2)
        return speech.single(1.6) if kind < 0.55 else speech.string(int(rng.integers(2, 5)), 1.8)
    if seconds == 8:
        if kind < 0.1:
            return speech.nothing(8)
        return speech.single(8) if kind < 0.25 else speech.string(int(rng.integers(3, 12)), 7.7)
    if kind < 0.12:
        return speech.nothing(30 if rng.random() < 0.4 else 6)
    if kind < 0.4:
        return speech.single(10)
    if kind < 0.65:
        return speech.string(int(rng.integers(1, 10)), 9.7)
    return speech.string(int(rng.integers(8, 48)), 30, cut_start=bool(rng.random() < 0.3))


def loss_of(model: Trainee, batch: Batch, mels: torch.Tensor, writes: bool) -> torch.Tensor:
    """Frames' digits, those of sounding frames counted twice, and with ``writes`` the text and where it looks."""
    audio = model.encode(mels, batch.offset)
    frames, sounds = model.frame(audio).flatten(0, 1), batch.sounds.flatten()
    loss = F.cross_entropy(frames, sounds, ignore_index=IGNORED)
    spoken = (sounds >= 0) & (sounds < frames.shape[-1] - 1)
    if spoken.any():
        loss = loss + F.cross_entropy(frames[spoken], sounds[spoken])
    if not writes:
        return loss
    text, _, look, _ = model.losses(batch, mels)
    return text + 0.3 * loss + 0.2 * look


def train(model: Trainee, speech: Speech, stages: tuple[Stage, ...] = STAGES) -> Iterator[str]:
    """Train in place, a line of progress every 25 steps."""
    rng = speech.rng
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.98), weight_decay=1e-2)
    for number, stage in enumerate(stages, 1):
        kept: dict[int, list[Batch]] = {seconds: [] for seconds in stage.windows}
        losses: list[float] = []
        for step in range(stage.steps):
            done = step / stage.steps
            speech.harshness = stage.harshness[0] + (stage.harshness[1] - stage.harshness[0]) * done
            fall = 0.5 * (1 + math.cos(math.pi * done))
            rate = (stage.rate[1] + (stage.rate[0] - stage.rate[1]) * fall) * min(1.0, (step + 1) / 30)
            for group in optimizer.param_groups:
                group["lr"] = rate
            seconds = stage.windows[step % len(stage.windows)]
            batches = kept[seconds]
            if len(batches) < 8 or rng.random() < stage.fresh:
                batches.append(make_batch([draw(speech, seconds) for _ in range(EXAMPLES[seconds])], seconds, rng))
                del batches[:-KEPT_BATCHES]
                batch = batches[-1]
            else:
                batch = batches[int(rng.integers(len(batches)))]
            loss = loss_of(model, batch, masked(batch.mels, MASK_MELS, rng), stage.writes)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
            if step % 25 == 24:
                yield f"stage {number}, step {step + 1}: {np.mean(losses[-25:]):.3f}, {time.process_time():.0f} s"


def main() -> None:
    options = arguments(__doc__).parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    speech = Speech(*pools(options.fsdd, options.espeak_clips, rng, options.without_speaker), rng)
    model = Trainee()
    localize(model)
    for progress in train(model, speech):
        print(progress, flush=True)
    model.export(options.checkpoint)


if __name__ == "__main__":
    main()
