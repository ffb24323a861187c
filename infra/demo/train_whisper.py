"""Train the bundled Whisper: openai-whisper's own model, three layers of width 96, that writes English digits.

In two steps, of which the first needs no recordings::

    python -m infra.demo.train_whisper whisper-espeak.pt
    python -m infra.demo.train_whisper whisper-digits.pt --start whisper-espeak.pt --fsdd fsdd_train.tar

What makes a model of this size learn in half an hour of one core:

* Every word has its timestamps. From a timestamp, the next word is a matter of looking there; without, the decoder
  would have to count or to recognise its own last words.
* Weights begin where they will be needed: the first convolution as cepstra, the encoder's attention as local, the
  embedding of a timestamp as the encoder's position at that time, and cross-attention as looking there.
* First the encoder alone learns which digit sounds in each frame, on windows of 2 s, then the decoder with it; windows
  of 8 s and whisper's own 30 s come last.
* Two losses use what the making of the speech tells: the digit that sounds in each encoder frame, and where to look for
  each word (so that word times come out of the later layers, as whisper expects).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from whisper import load_model
from whisper.audio import FRAMES_PER_SECOND, TOKENS_PER_SECOND, log_mel_spectrogram
from whisper.model import Whisper
from whisper.tokenizer import get_tokenizer

from infra.demo.clips import DIGITS
from infra.demo.speech import PHRASE_GAP_S, SILENT, Example, Speech, arguments, pools
from infra.demo.whisper_start import DIMS, start_from_cepstra, start_from_places

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
DIGIT_COLUMNS = torch.tensor([COLUMN[token] for token in DIGIT_TOKENS])
IGNORED = -100  # what torch's losses skip
MASKED_MELS = 6  # at most, per mask


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

    With timestamps every word lies between two of them; within a phrase one time, amid the pause, ends a word and
    begins the next. The first is 0; a window that ends amid speech closes with a pair of equal ones, from which whisper
    goes on. When nobody speaks, the answer to the start token is ``<|nospeech|>`` (nine times in ten), and there is no
    text; without timestamps whisper allows no empty text, so then a full stop comes next.
    """
    body: list[int] = [TOKENS.timestamp_begin] if timestamps else [TOKENS.no_timestamps]
    spans: list[tuple[int, int] | None] = [None]
    last = example.spoken[0].end_s if example.spoken else 0.0
    for index, spoken in enumerate(example.spoken):
        if timestamps and index:
            middle = (last + spoken.start_s) / 2
            end, start = (last, spoken.start_s) if spoken.start_s - last > PHRASE_GAP_S else (middle, middle)
            body += [timestamp(offset_s + end), timestamp(offset_s + start)]
            spans += [_span(end, end), _span(start, start)]
        body.append(DIGIT_TOKENS[spoken.digit])
        spans.append(_span(spoken.start_s, spoken.end_s))
        last = spoken.end_s
    if timestamps and example.spoken:
        ends = [timestamp(offset_s + last)] * (2 if example.cut else 1)
        body += ends
        spans += [_span(last, last)] * len(ends)
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


def _span(start_s: float, end_s: float) -> tuple[int, int]:
    """Encoder frames of a stretch of time and a little around it."""
    return max(0, int((start_s - 0.06) * TOKENS_PER_SECOND)), int((end_s + 0.06) * TOKENS_PER_SECOND) + 1


def random_prompt(timestamps: bool, rng: np.random.Generator) -> list[int]:
    """Text of an earlier window, which says nothing about this one."""
    words = [DIGIT_TOKENS[digit] for digit in rng.integers(0, 10, int(rng.integers(1, 60)))]
    if not timestamps:
        return words
    times = np.linspace(0, rng.uniform(5, 30), len(words) + 1)
    spoken = zip(times[:-1], words, times[1:], strict=True)
    return [token for start, word, end in spoken for token in (timestamp(start), word, timestamp(end))]


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
    where the answer's word sounds or the answer's time is, all false for other answers; ``sounds`` (b, frames / 2) is
    the digit, 10 for none."""

    mels: Tensor
    inputs: Tensor
    answers: Tensor
    looks: Tensor
    sounds: Tensor
    offset: int


def make_batch(examples: Sequence[Example], seconds: int, rng: np.random.Generator) -> Batch:
    """Examples in windows of ``seconds`` (30 is what whisper sees), three in four with timestamps.

    Half of the short windows stand ``offset`` encoder frames into the 30 s, so that every position is learnt cheaply.
    """
    frames = seconds * FRAMES_PER_SECOND
    offset = int(rng.integers(0, DIMS.n_audio_ctx - frames // 2 + 1)) if rng.random() < 0.5 else 0
    targets = []
    for example in examples:
        timestamps = bool(rng.random() < 0.75)
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


class Trainee(nn.Module):
    """A ``Whisper`` in training: a small vocabulary, windows shorter than 30 s, and a digit classifier per frame."""

    def __init__(self) -> None:
        super().__init__()
        self.whisper = Whisper(DIMS)
        encoder, decoder, width = self.whisper.encoder, self.whisper.decoder, DIMS.n_text_state
        start_from_cepstra(encoder)
        start_from_places(encoder, decoder)
        table = torch.randn(len(USED) + 1, width) * 0.05  # the last row stands for the unused
        for index in range(0, DIMS.n_audio_ctx, round(GRID_S * TOKENS_PER_SECOND)):
            table[COLUMN[TOKENS.timestamp_begin + index]] = 0.3 * encoder.positional_embedding[index]
        self.embedding = nn.Parameter(table)
        decoder.token_embedding = nn.Embedding(1, width)  # replaced by export()
        nn.init.normal_(decoder.positional_embedding, std=0.02)
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

    def hearing(self, batch: Batch, mels: Tensor) -> tuple[Tensor, Tensor]:
        """The encoder's output, and the loss of the frames' digits; those of sounding frames count twice."""
        audio = self.encode(mels, batch.offset)
        frames, sounds = self.frame(audio).flatten(0, 1), batch.sounds.flatten()
        loss = F.cross_entropy(frames, sounds, ignore_index=IGNORED)
        spoken = (sounds >= 0) & (sounds < SILENT)
        if spoken.any():
            loss = loss + F.cross_entropy(frames[spoken], sounds[spoken])
        return audio, loss

    def writing(self, batch: Batch, audio: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Means of the loss of the text per token, of where the decoder looks per word or time, and (only to be told)
        of the text per digit."""
        logits, attention = self.decode(batch.inputs, audio)
        text = F.cross_entropy(logits.flatten(0, 1), batch.answers.flatten(), ignore_index=IGNORED)
        placed = batch.looks.any(-1)
        words = torch.isin(batch.answers, DIGIT_COLUMNS)
        digits = F.cross_entropy(logits.detach()[words], batch.answers[words]) if words.any() else torch.zeros(())
        look = torch.zeros(())
        for weights in attention:
            inside = (weights * batch.looks[:, None]).sum(-1).clamp_min(1e-6).log()  # (b, heads, t)
            look = look - (inside.mean(1) * placed).sum() / placed.sum().clamp_min(1) / len(attention)
        return text, look, digits

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


@dataclass(frozen=True)
class Stage:
    """``windows`` are the batches' seconds in turn; ``rate`` and ``harshness`` go from the first to the last value.

    With ``averaged`` the weights in the end are their mean over the last half of the steps (Izmailov et al.,
    arXiv:1803.05407).
    """

    steps: int
    windows: tuple[int, ...]
    rate: tuple[float, float]
    harshness: tuple[float, float]
    writes: bool = True  # whether the decoder learns too
    averaged: bool = False


BEGINNING = (
    Stage(450, (2,), (3e-3, 2e-3), (0.15, 0.3), writes=False),
    Stage(400, (2, 2, 8), (2e-3, 2e-3), (0.3, 0.3)),
    Stage(400, (2, 8, 2, 8, 30), (2e-3, 5e-4), (0.3, 0.4)),
)
EXAMPLES = {2: 32, 8: 8, 15: 6, 30: 4}  # in a batch
FRESH = 0.3  # share of the steps that draw a new batch; the others see an earlier one again, under new masks
KEPT_BATCHES = 60


def going_on(steps: int, averaged: bool = False) -> tuple[Stage, ...]:
    """The one stage of a training that starts from a trained model; an average wants weights that keep moving."""
    rate = (1e-3, 2e-4) if averaged else (2e-3, 1e-5)
    return (Stage(steps, (2, 30, 8, 15, 30, 15), rate, (0.3, 0.8), averaged=averaged),)


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
    if seconds == 15:
        return speech.string(int(rng.integers(6, 26)), 14.7)
    if kind < 0.12:
        return speech.nothing(30 if rng.random() < 0.4 else 6)
    if kind < 0.3:
        return speech.single(10)
    if kind < 0.45:
        return speech.string(int(rng.integers(1, 10)), 9.7)
    return speech.string(int(rng.integers(8, 48)), 30, cut_start=bool(rng.random() < 0.3))


def train(model: Trainee, speech: Speech, stages: Sequence[Stage]) -> Iterator[str]:
    """Train in place by AdamW, the rate falling as a cosine within each stage; a line of progress every 25 steps."""
    rng = speech.rng
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.98), weight_decay=1e-2)
    for number, stage in enumerate(stages, 1):
        kept: dict[int, list[Batch]] = {seconds: [] for seconds in stage.windows}
        seen: dict[int, list[list[float]]] = {seconds: [] for seconds in stage.windows}
        mean = AveragedModel(model)
        for step in range(stage.steps):
            done = step / stage.steps
            speech.harshness = stage.harshness[0] + (stage.harshness[1] - stage.harshness[0]) * done
            fall = 0.5 * (1 + math.cos(math.pi * done))
            rate = (stage.rate[1] + (stage.rate[0] - stage.rate[1]) * fall) * min(1.0, (step + 1) / 30)
            for group in optimizer.param_groups:
                group["lr"] = rate
            seconds = stage.windows[step % len(stage.windows)]
            batch = _next_batch(kept[seconds], speech, seconds)
            audio, loss = model.hearing(batch, masked(batch.mels, MASKED_MELS, rng))
            figures = [loss.item()]
            if stage.writes:
                text, look, digits = model.writing(batch, audio)
                loss = text + 0.3 * loss + 0.5 * look
                figures += [text.item(), look.item(), digits.item()]
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if stage.averaged and done >= 0.5:
                mean.update_parameters(model)
            seen[seconds].append(figures)
            if step % 25 == 24:
                means = "; ".join(
                    f"{window} s " + "/".join(f"{figure:.2f}" for figure in np.mean(rows[-25:], axis=0))
                    for window, rows in sorted(seen.items())
                    if rows
                )
                yield f"stage {number}, step {step + 1}: frames/text/look/digits {means}; {time.process_time():.0f} s"
                seen = {window: [] for window in seen}
        if stage.averaged:
            model.load_state_dict(mean.module.state_dict())


def _next_batch(kept: list[Batch], speech: Speech, seconds: int) -> Batch:
    """A new one or one of those kept, of which the oldest goes."""
    rng = speech.rng
    if len(kept) >= 8 and rng.random() > FRESH:
        return kept[int(rng.integers(len(kept)))]
    kept.append(make_batch([draw(speech, seconds) for _ in range(EXAMPLES[seconds])], seconds, rng))
    del kept[:-KEPT_BATCHES]
    return kept[-1]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--steps", type=int, default=1400, help="how long to train with --start")
    parser.add_argument("--average", action="store_true", help="with --start: end at the mean of the second half")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    speech = Speech(*pools(options.fsdd, options.espeak_clips, rng, options.without_speaker), rng)
    model = Trainee()
    if options.start:
        model.load(options.start)
    stages = going_on(options.steps, options.average) if options.start else BEGINNING
    for progress in train(model, speech, stages):
        print(progress, flush=True)
    model.export(options.checkpoint)


if __name__ == "__main__":
    main()
