"""Train the bundled Whisper: openai-whisper's own model, three layers of width 96, that writes English digits.

In two steps, of which the first needs no recordings::

    python -m infra.demo.train_whisper whisper-espeak.pt
    python -m infra.demo.train_whisper whisper-digits.pt --start whisper-espeak.pt --fsdd fsdd_train.tar

Besides the next token, two losses use what the making of the speech tells: which digit sounds in each encoder frame,
and where the decoder should look for each word (so that word times come out of its last layers, as whisper expects).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from whisper import load_model
from whisper.audio import FRAMES_PER_SECOND, N_FRAMES, TOKENS_PER_SECOND, log_mel_spectrogram
from whisper.model import AudioEncoder, ModelDimensions, Whisper
from whisper.tokenizer import get_tokenizer

from infra.demo.clips import DIGITS
from infra.demo.speech import PHRASE_GAP_S, Example, Speech, arguments, pools

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
TOKENS = get_tokenizer(multilingual=False)
DIGIT_TOKENS = tuple(TOKENS.encode(f" {word}")[0] for word in DIGITS)
FULL_STOP = TOKENS.encode(".")[0]
GRID_S = 0.1  # timestamps are rounded to this: a coarse grid is easy to be sure of, and whisper distrusts the unsure

# The tokens that training text is made of; all others share one embedding, so that they cost one column, not 50,000.
USED = sorted(
    {*DIGIT_TOKENS, FULL_STOP, TOKENS.eot, TOKENS.sot, TOKENS.sot_prev, TOKENS.no_speech, TOKENS.no_timestamps}
    | {TOKENS.timestamp_begin + index for index in range(1501)}
)
COLUMN = {token: column for column, token in enumerate(USED)}
IGNORED = -100  # what torch's losses skip


def timestamp(seconds: float) -> int:
    """The token of a time within the window, rounded to the grid."""
    return TOKENS.timestamp_begin + round(round(seconds / GRID_S) * GRID_S * TOKENS_PER_SECOND)


@dataclass(frozen=True)
class Target:
    """What the decoder reads (``inputs``), what it should answer (``answers``, IGNORED in the prompt), and for each
    answer the span of audio, in encoder frames, that a word lies in (None for what is no word)."""

    inputs: list[int]
    answers: list[int]
    spans: list[tuple[int, int] | None]


def target(
    example: Example, timestamps: bool, prompt: Sequence[int], offset_s: float, rng: np.random.Generator
) -> Target:
    """Tokens of an example as ``whisper.transcribe`` expects them; ``offset_s`` is added to all timestamps.

    With timestamps a phrase lies between two of them. The first is 0; a window that ends amid speech closes with a pair
    of equal ones, from which whisper goes on. When nobody speaks, the answer to the start token is ``<|nospeech|>``
    (nine times in ten), and there is no text; without timestamps whisper allows no empty text, so then a full stop
    comes next.
    """
    body: list[int] = [TOKENS.timestamp_begin] if timestamps else [TOKENS.no_timestamps]
    spans: list[tuple[int, int] | None] = [None]
    for index, spoken in enumerate(example.spoken):
        if timestamps and index and spoken.start_s - example.spoken[index - 1].end_s > PHRASE_GAP_S:
            body += [timestamp(offset_s + example.spoken[index - 1].end_s), timestamp(offset_s + spoken.start_s)]
            spans += [None, None]
        body.append(DIGIT_TOKENS[spoken.digit])
        span = (int((spoken.start_s - 0.06) * TOKENS_PER_SECOND), int((spoken.end_s + 0.06) * TOKENS_PER_SECOND) + 1)
        spans.append((max(0, span[0]), span[1]))
    if timestamps and example.spoken:
        ends = [timestamp(offset_s + example.spoken[-1].end_s)] * (2 if example.cut else 1)
        body += ends
        spans += [None] * len(ends)
    if not example.spoken and not timestamps and rng.random() < 0.25:
        body.append(FULL_STOP)
        spans.append(None)
    before = [TOKENS.sot_prev, *prompt] if prompt else []
    answers = [*body, TOKENS.eot]
    if not example.spoken and rng.random() < 0.9:
        answers[0] = TOKENS.no_speech
    return Target(
        [*before, TOKENS.sot, *body], [IGNORED] * len(before) + answers, [None] * len(before) + [*spans, None]
    )


def random_prompt(timestamps: bool, rng: np.random.Generator) -> list[int]:
    """Text of an earlier window, which says nothing about this one."""
    words = [DIGIT_TOKENS[digit] for digit in rng.integers(0, 10, int(rng.integers(1, 60)))]
    if not timestamps:
        return words
    times = np.sort(rng.integers(0, 300, 4)) * GRID_S
    middle = len(words) // 2
    return [
        timestamp(times[0]), *words[:middle], timestamp(times[1]), timestamp(times[2]), *words[middle:],
        timestamp(times[3]),
    ]  # fmt: skip


def mel(samples: np.ndarray, frames: int, zeros: bool) -> Tensor:
    """Whisper's log-mel of (n,) samples, (80, frames), and what lies past their end as whisper has it.

    ``whisper.transcribe`` appends zeros to the log-mel itself; ``pad_or_trim`` appends silence to the samples, which
    comes out as the floor of the log-mel: 8 below its maximum, before scaling.
    """
    features = log_mel_spectrogram(torch.from_numpy(samples))[:, :frames]
    floor = max((-10.0 + 4) / 4, float(features.max()) - 8 / 4)
    return F.pad(features, (0, frames - features.shape[1]), value=0.0 if zeros else floor)


@dataclass(frozen=True)
class Batch:
    """``mels`` (b, 80, frames); ``inputs``, ``answers`` (b, t) as columns of USED; ``looks`` (b, t, frames / 2) is true
    where the answer's word sounds, all false for what is no word; ``sounds`` (b, frames / 2) the digit, 10 for none."""

    mels: Tensor
    inputs: Tensor
    answers: Tensor
    looks: Tensor
    sounds: Tensor
    offset: int


def make_batch(examples: Sequence[Example], seconds: int, rng: np.random.Generator) -> Batch:
    """Examples in windows of ``seconds`` (30 is what whisper sees), half of them with timestamps.

    Half of the short windows stand ``offset`` encoder frames into the 30 s, so that every position is learnt cheaply.
    """
    frames = seconds * FRAMES_PER_SECOND
    offset = int(rng.integers(0, DIMS.n_audio_ctx - frames // 2 + 1)) if rng.random() < 0.5 else 0
    targets = []
    for example in examples:
        timestamps = bool(rng.random() < 0.5)
        prompt = random_prompt(bool(rng.random() < 0.5), rng) if rng.random() < (0.2 if seconds == 30 else 0.05) else []
        targets.append(target(example, timestamps, prompt, offset / TOKENS_PER_SECOND, rng))
    width = max(len(one.inputs) for one in targets)
    inputs = torch.full((len(targets), width), COLUMN[TOKENS.eot])
    answers = torch.full((len(targets), width), IGNORED)
    looks = torch.zeros((len(targets), width, frames // 2), dtype=torch.bool)
    sounds = torch.empty((len(targets), frames // 2), dtype=torch.long)
    for row, (example, one) in enumerate(zip(examples, targets, strict=True)):
        inputs[row, : len(one.inputs)] = torch.tensor([COLUMN[token] for token in one.inputs])
        answers[row, : len(one.answers)] = torch.tensor([COLUMN.get(token, IGNORED) for token in one.answers])
        for place, span in enumerate(one.spans):
            if span:
                looks[row, place, span[0] : span[1]] = True
        sounds[row] = torch.from_numpy(example.sounding(frames // 2, TOKENS_PER_SECOND))
    mels = torch.stack([mel(example.samples, frames, bool(rng.random() < 0.5)) for example in examples])
    return Batch(mels, inputs, answers, looks, sounds, offset)


def masked(mels: Tensor, widest: int, rng: np.random.Generator) -> Tensor:
    """SpecAugment (Park et al. 2019): per example two bands and two stretches of up to ``widest`` mels or frames of
    10 ms, at the example's mean."""
    mels = mels.clone()
    for features in mels:
        mean = features.mean()
        for _ in range(2):
            width = int(rng.integers(0, widest + 1))
            low = int(rng.integers(0, features.shape[0] - width))
            features[low : low + width] = mean
            width = int(rng.integers(0, widest + 1))
            start = int(rng.integers(0, features.shape[1] - width))
            features[:, start : start + width] = mean
    return mels


def start_from_cepstra(encoder: AudioEncoder) -> None:
    """Let the first convolution begin as cepstra and their first and second differences in time, of both signs.

    Cepstra (cosines over the mel bands, Davis and Mermelstein 1980) leave out the level, and what sounds like a digit
    shows in them at once: from random filters the same takes several times the training. The second convolution is
    scaled to speak as loudly as the positions that are added to it.
    """
    bands = torch.arange(DIMS.n_mels) + 0.5
    orders = torch.arange(1, DIMS.n_audio_state // 6 + 1)
    cosines = torch.cos(math.pi * orders[:, None] * bands / DIMS.n_mels) / math.sqrt(DIMS.n_mels)
    taps = torch.tensor([[0.5, 1.0, 0.5], [-2.0, 0.0, 2.0], [2.0, -4.0, 2.0]])
    filters = (cosines[:, None, :, None] * taps[None, :, None, :]).reshape(-1, DIMS.n_mels, 3)
    filters = torch.cat([filters, -filters])
    with torch.no_grad():
        encoder.conv1.weight.copy_(filters + 0.005 * torch.randn(filters.shape))
        encoder.conv1.bias.zero_()
        encoder.conv2.weight.mul_(5)


class Trainee(nn.Module):
    """A ``Whisper`` in training: a small vocabulary, windows shorter than 30 s, and a digit classifier per frame."""

    def __init__(self) -> None:
        super().__init__()
        self.whisper = Whisper(DIMS)
        start_from_cepstra(self.whisper.encoder)
        width = DIMS.n_text_state
        self.embedding = nn.Parameter(torch.randn(len(USED) + 1, width) * 0.05)  # the last row stands for the unused
        self.whisper.decoder.token_embedding = nn.Embedding(1, width)  # replaced by export()
        nn.init.normal_(self.whisper.decoder.positional_embedding, std=0.02)
        self.frame = nn.Linear(DIMS.n_audio_state, len(DIGITS) + 1)

    def encode(self, mels: Tensor, offset: int) -> Tensor:
        """(b, 80, frames) to (b, frames / 2, 96): ``AudioEncoder.forward`` for a part of the 30 s, from ``offset``."""
        encoder = self.whisper.encoder
        x = F.gelu(encoder.conv2(F.gelu(encoder.conv1(mels)))).permute(0, 2, 1)
        x = x + encoder.positional_embedding[offset : offset + x.shape[1]]
        for block in encoder.blocks:
            x = block(x)
        return encoder.ln_post(x)

    def decode(self, inputs: Tensor, audio: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits (b, t, used + 1), and the attention on the audio (b, heads, t, frames / 2) in the later layers.

        ``TextDecoder.forward``, with the attention kept. The last logit is that of all unused tokens together.
        """
        decoder = self.whisper.decoder
        x = self.embedding[inputs] + decoder.positional_embedding[: inputs.shape[1]]
        attention = []
        for index, block in enumerate(decoder.blocks):
            x = x + block.attn(block.attn_ln(x), mask=decoder.mask)[0]
            cross, normed = block.cross_attn, block.cross_attn_ln(x)
            b, t, width = normed.shape
            heads = (b, -1, cross.n_head, width // cross.n_head)
            query, key, value = (
                layer(source).view(heads).transpose(1, 2)
                for layer, source in ((cross.query, normed), (cross.key, audio), (cross.value, audio))
            )
            weights = F.softmax(query @ key.transpose(-1, -2) * heads[-1] ** -0.5, dim=-1)
            x = x + cross.out((weights @ value).transpose(1, 2).reshape(b, t, width))
            x = x + block.mlp(block.mlp_ln(x))
            if index >= DIMS.n_text_layer // 2:
                attention.append(weights)
        logits = decoder.ln(x) @ self.embedding.T
        unused = torch.zeros(len(USED) + 1)
        unused[-1] = math.log(DIMS.n_vocab - len(USED))
        return logits + unused, attention

    def losses(self, batch: Batch, mels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Means of the text per token, the frames' digits per frame, where the decoder looks per word, and (only to be
        told) of the text per digit."""
        audio = self.encode(mels, batch.offset)
        frames = F.cross_entropy(self.frame(audio).flatten(0, 1), batch.sounds.flatten(), ignore_index=IGNORED)
        logits, attention = self.decode(batch.inputs, audio)
        words = batch.looks.any(-1)
        text = F.cross_entropy(logits.flatten(0, 1), batch.answers.flatten(), ignore_index=IGNORED)
        digits = F.cross_entropy(logits.detach()[words], batch.answers[words]) if words.any() else torch.zeros(())
        look = torch.zeros(())
        for weights in attention:
            inside = (weights * batch.looks[:, None]).sum(-1).clamp_min(1e-6).log()  # (b, heads, t)
            look = look - (inside.mean(1) * words).sum() / words.sum().clamp_min(1) / len(attention)
        return text, frames, look, digits

    def load(self, path: Path) -> None:
        """Take over the weights of an exported checkpoint; the digit classifier is not in it and starts anew."""
        weights = load_model(str(path), device="cpu").state_dict()
        table = weights.pop("decoder.token_embedding.weight")
        self.whisper.load_state_dict(weights, strict=False)
        unused = next(token for token in range(DIMS.n_vocab) if token not in COLUMN)
        with torch.no_grad():
            self.embedding.copy_(table[[*USED, unused]])

    def export(self, path: Path) -> None:
        """Write the checkpoint that ``whisper.load_model(path)`` reads, in half precision."""
        weights = {name: value.detach() for name, value in self.whisper.state_dict().items()}
        table = self.embedding[-1].detach().repeat(DIMS.n_vocab, 1)
        table[USED] = self.embedding[:-1].detach()
        weights["decoder.token_embedding.weight"] = table
        halves = {name: value.half().contiguous() for name, value in weights.items()}
        torch.save({"dims": asdict(DIMS), "model_state_dict": halves}, path)


def draw(speech: Speech, seconds: int) -> Example:
    """An example for a window of ``seconds``: one in ten has nothing to say, a quarter are single digits."""
    rng = speech.rng
    kind = rng.random()
    if kind < 0.1:
        return speech.nothing(seconds if rng.random() < 0.3 else min(seconds, 6))
    if kind < 0.35:
        return speech.single(min(seconds, 10))
    if seconds == N_FRAMES // FRAMES_PER_SECOND and kind > 0.6:
        return speech.string(int(rng.integers(8, 48)), seconds, cut_start=bool(rng.random() < 0.3))
    # A little stays free, for the recording to end audibly before the window does.
    return speech.string(int(rng.integers(1, 2 + seconds)), min(seconds, 10) - 0.3)


def shapes(progress: float, started: bool) -> list[tuple[int, int]]:
    """The batches of a round, as (seconds, examples).

    Attention costs the square of the length: short windows teach what digits sound like, in a fraction of the time; the
    full ones of 30 s come last, to teach finding the way through them.
    """
    if not started and progress < 0.4:
        return [(2, 16)] * 12
    if not started and progress < 0.65:
        return [(2, 16)] * 5 + [(8, 6)] * 5
    if progress < 0.8:
        return [(2, 16)] * 4 + [(8, 6)] * 4 + [(30, 3)] * 2
    return [(2, 16)] * 3 + [(8, 6)] * 3 + [(30, 3)] * 4


def train(model: Trainee, speech: Speech, rounds: int, started: bool) -> Iterator[str]:
    """Train in place, one line of progress per round: AdamW, a short warm-up, then a cosine to zero; more gently when
    ``started`` from a trained model.

    Each example drawn is seen twice, under different masks. A training from nothing begins with clean speech.
    """
    peak_rate = 1e-3 if started else 2e-3
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak_rate, betas=(0.9, 0.98), weight_decay=1e-2)
    rng = speech.rng
    for number in range(rounds):
        speech.harshness = 1.0 if started else min(1.0, 2 * number / rounds)
        plan = shapes(number / rounds, started)
        work = [make_batch([draw(speech, s) for _ in range(n)], s, rng) for s, n in plan]
        sums: list[Any] = []
        for step in range(2 * len(work)):
            done = (number + step / (2 * len(work))) / rounds
            rate = peak_rate * min(done / 0.05 + 0.01, 0.5 * (1 + math.cos(math.pi * done)))
            for group in optimizer.param_groups:
                group["lr"] = rate
            if step % len(work) == 0:
                order = rng.permutation(len(work))
            batch = work[order[step % len(work)]]
            text, frames, look, digits = model.losses(batch, masked(batch.mels, round(12 * speech.harshness), rng))
            optimizer.zero_grad()
            (text + 0.5 * frames + 0.2 * look).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            sums.append((batch.mels.shape[-1] == N_FRAMES, text.item(), frames.item(), look.item(), digits.item()))
        line = " ".join(
            f"{name} " + "/".join(f"{np.mean([row[1 + i] for row in sums if row[0] == long]):.3f}" for i in range(4))
            for name, long in (("short", False), ("full", True))
            if any(row[0] == long for row in sums)
        )
        yield f"round {number + 1} of {rounds}: text/frames/look/digits {line}, {time.process_time():.0f} s"


def main() -> None:
    options = arguments(__doc__).parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    speech = Speech(*pools(options.fsdd, options.espeak_clips, rng, options.without_speaker), rng)
    model = Trainee()
    if options.start:
        model.load(options.start)
    for progress in train(model, speech, options.rounds, started=options.start is not None):
        print(progress, flush=True)
    model.export(options.checkpoint)


if __name__ == "__main__":
    main()
