"""Train the bundled Conformer-CTC: NeMo's ``EncDecCTCModelBPE`` with three layers of width 64, whose tokens are the ten
digits as whole words. (Spelling them by letters, a model of this size wrote ``sev`` and ``twoe`` for speakers it had
never met: two errors in three were such.)

In two steps, of which the first needs no recordings::

    python -m infra.demo.train_conformer conformer-espeak.nemo
    python -m infra.demo.train_conformer conformer-digits.nemo --start conformer-espeak.nemo --fsdd fsdd_train.tar
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from infra.demo.clips import DIGITS, SAMPLE_RATE
from infra.demo.speech import Example, Speech, arguments, pools

BATCH_S = 20  # seconds of audio in a batch
MIN_S = 1.0  # NeMo's transcribe puts digital silence around what is shorter
HARSHNESS = 0.35  # more is more than a model of this size learns in half an hour
HOP = 160  # samples between spectrogram frames: 10 ms
SUBSAMPLING = 4
IGNORED = -100  # what torch's losses skip
FRAMES_HZ = SAMPLE_RATE / HOP / SUBSAMPLING  # of the encoder's output


def config(tokenizer: Path) -> dict[str, Any]:
    """The model as NeMo's ``conformer_ctc_bpe.yaml`` lays it out, small, with the tokenizer in that folder."""
    asr = "nemo.collections.asr.modules"
    return {
        "sample_rate": SAMPLE_RATE,
        "tokenizer": {"dir": str(tokenizer), "type": "bpe"},
        "preprocessor": {
            "_target_": f"{asr}.AudioToMelSpectrogramPreprocessor",
            "sample_rate": SAMPLE_RATE,
            # NeMo's "per_feature" takes away each band's mean over the recording. Of a lone word in digital silence
            # that is most of what tells it from others: without it, half the errors on speakers never met are gone.
            "normalize": "none",
            "log_zero_guard_value": 1e-5,
            "window_size": 0.025,
            "window_stride": HOP / SAMPLE_RATE,
            "window": "hann",
            "features": 80,
            "n_fft": 512,
            "log": True,
            "frame_splicing": 1,
            "dither": 0.0,  # it would be there in training only, and fill the empty upper half of 8 kHz recordings
            "pad_to": 0,
        },
        "spec_augment": {
            "_target_": f"{asr}.SpectrogramAugmentation",
            "freq_masks": 2,
            "time_masks": 2,
            "freq_width": 12,
            "time_width": 0.03,
            "mask_value": -6.0,  # about the mean
        },
        "encoder": {
            "_target_": f"{asr}.ConformerEncoder",
            "feat_in": 80,
            "feat_out": -1,
            "n_layers": 3,
            "d_model": 64,
            "subsampling": "dw_striding",
            "subsampling_factor": SUBSAMPLING,
            "subsampling_conv_channels": 64,
            "causal_downsampling": False,
            "ff_expansion_factor": 4,
            "self_attention_model": "rel_pos",
            "n_heads": 4,
            "att_context_size": [-1, -1],
            "xscaling": True,
            "untie_biases": True,
            "pos_emb_max_len": 5000,
            "conv_kernel_size": 15,
            "conv_norm_type": "batch_norm",
            "dropout": 0.05,
            "dropout_pre_encoder": 0.05,
            "dropout_emb": 0.0,
            "dropout_att": 0.05,
        },
        "decoder": {
            "_target_": f"{asr}.ConvASRDecoder",
            "feat_in": None,
            "num_classes": -1,
            "vocabulary": [],
        },
        "decoding": {"strategy": "greedy_batch"},
    }


def new_model(folder: Path) -> Any:
    """An untrained ``EncDecCTCModelBPE``, whose tokenizer lies in ``folder`` until the model is saved. Imports NeMo,
    which takes a while."""
    from nemo.collections.asr.models import EncDecCTCModelBPE
    from nemo.utils import logging
    from omegaconf import OmegaConf

    logging.setLevel(logging.ERROR)
    make_tokenizer(folder)
    return EncDecCTCModelBPE(cfg=OmegaConf.create(config(folder)))


def make_tokenizer(folder: Path) -> None:
    """A SentencePiece model of whole words, with the files that NeMo looks for beside it."""
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(DIGITS),
        model_prefix=str(folder / "tokenizer"),
        model_type="word",
        vocab_size=len(DIGITS) + 1,
        unk_id=0,
        bos_id=-1,
        eos_id=-1,
        minloglevel=2,
    )
    (folder / "vocab.txt").write_text("\n".join(DIGITS) + "\n", encoding="utf-8")


def restore(checkpoint: Path) -> Any:
    """A trained one, as anyone would load it."""
    from nemo.collections.asr.models import ASRModel
    from nemo.utils import logging

    logging.setLevel(logging.ERROR)
    return ASRModel.restore_from(str(checkpoint), map_location="cpu")


def draw(speech: Speech, beginning: bool) -> Example:
    """Single digits or strings, a few of them long and at first only short ones; some with nothing at all."""
    rng = speech.rng
    kind = rng.random()
    if kind < 0.45:
        example = speech.single()
        return example.centred(MIN_S) if rng.random() < 0.7 else example
    if kind < 0.52:
        return speech.nothing(6.0)
    if beginning:
        return speech.string(int(rng.integers(1, 4)), 4.0)
    if kind < 0.98:
        return speech.string(int(rng.integers(1, 9)), 6.0)
    return speech.string(40, float(rng.uniform(10, 30)))


@dataclass(frozen=True)
class Batch:
    """``signal`` (b, samples) and ``text`` (b, tokens) with their lengths (b,); ``sounds`` (b, frames) at 25 Hz is the
    digit that sounds, IGNORED past the end."""

    signal: Tensor
    signal_len: Tensor
    text: Tensor
    text_len: Tensor
    sounds: Tensor


def batches(examples: list[Example], tokens: list[int], rng: np.random.Generator) -> list[Batch]:
    """Examples of like length together, in random order; ``tokens`` are the ten digits'."""
    groups: list[list[Example]] = [[]]
    for example in sorted(examples, key=lambda example: len(example.samples)):
        if len(example.samples) * (len(groups[-1]) + 1) > BATCH_S * SAMPLE_RATE or len(groups[-1]) == 48:
            groups.append([])
        groups[-1].append(example)
    return [_batch(groups[index], tokens) for index in rng.permutation(len(groups))]


def _batch(group: list[Example], tokens: list[int]) -> Batch:
    texts = [torch.tensor([tokens[digit] for digit in example.digits], dtype=torch.long) for example in group]
    signals = [torch.from_numpy(example.samples) for example in group]
    frames = [-(-(len(signal) // HOP + 1) // SUBSAMPLING) for signal in signals]
    sounds = [
        torch.from_numpy(example.sounding(count, FRAMES_HZ)) for example, count in zip(group, frames, strict=True)
    ]
    return Batch(
        pad_sequence(signals, batch_first=True),
        torch.tensor([len(signal) for signal in signals]),
        pad_sequence(texts, batch_first=True),
        torch.tensor([len(text) for text in texts]),
        pad_sequence(sounds, batch_first=True, padding_value=IGNORED),
    )


class Trainee(nn.Module):
    """A model in training with a helper that is thrown away: a digit classifier per encoder frame. It tells the encoder
    at once what it should hear, where CTC alone first spends a while on answering with blanks only."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.frame = nn.Linear(model.cfg.encoder.d_model, len(DIGITS) + 1)

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """CTC per word, and the cross-entropy of the frames' digits."""
        model = self.model
        features, length = model.preprocessor(input_signal=batch.signal, length=batch.signal_len)
        features = model.spec_augmentation(input_spec=features, length=length)
        encoded, length = model.encoder(audio_signal=features, length=length)  # (b, 64, frames)
        words = model.loss(
            log_probs=model.decoder(encoder_output=encoded),
            targets=batch.text,
            input_lengths=length,
            target_lengths=batch.text_len,
        )
        frames = F.cross_entropy(
            self.frame(encoded.transpose(1, 2)).flatten(0, 1),
            batch.sounds[:, : encoded.shape[2]].flatten(),
            ignore_index=IGNORED,
        )
        return words / batch.text_len.float().mean().clamp_min(1), frames


def train(model: Any, speech: Speech, rounds: int, started: bool) -> Iterator[str]:
    """Train in place, one line of progress per round: AdamW, a short warm-up, then a cosine to zero; more gently when
    ``started`` from a trained model, whose batch statistics then stay as they are: batches of single digits and of long
    strings differ so much that what is learnt on their own statistics is lost on the averages that hold in use.

    A round draws 192 examples (some ten minutes of audio) and sees each twice, under different masks (SpecAugment).
    """
    peak_rate = 1.5e-3 if started else 3e-3
    trainee = Trainee(model).train()
    tokens = [model.tokenizer.text_to_ids(word)[0] for word in DIGITS]
    if started:
        for layer in trainee.modules():
            if isinstance(layer, nn.BatchNorm1d):
                layer.eval()
    optimizer = torch.optim.AdamW(trainee.parameters(), lr=peak_rate, betas=(0.9, 0.98), weight_decay=1e-3)
    for number in range(rounds):
        speech.harshness = HARSHNESS if started else HARSHNESS * min(1.0, 0.2 + 2 * number / rounds)
        examples = [draw(speech, beginning=not started and number < 0.1 * rounds) for _ in range(192)]
        work = [batch for _ in range(2) for batch in batches(examples, tokens, speech.rng)]
        sums = np.zeros(2)
        for index, batch in enumerate(work):
            done = (number + index / len(work)) / rounds
            rate = peak_rate * min(done / 0.03 + 0.01, 0.5 * (1 + math.cos(math.pi * done)))
            for group in optimizer.param_groups:
                group["lr"] = rate
            words, frames = trainee.losses(batch)
            optimizer.zero_grad()
            (words + 0.5 * frames).backward()
            torch.nn.utils.clip_grad_norm_(trainee.parameters(), 1.0)
            optimizer.step()
            sums += [words.item(), frames.item()]
        means = "/".join(f"{mean:.3f}" for mean in sums / len(work))
        yield f"round {number + 1} of {rounds}: words/frames {means}, {time.process_time():.0f} s"
    trainee.eval()


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=30, help="how long to train; a round is some 20 s of one core")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    speech = Speech(*pools(options.fsdd, options.espeak_clips, rng, options.without_speaker), rng)
    with tempfile.TemporaryDirectory() as folder:
        model = restore(options.start) if options.start else new_model(Path(folder))
        for progress in train(model, speech, options.rounds, started=options.start is not None):
            print(progress, flush=True)
        model.save_to(str(options.checkpoint))


if __name__ == "__main__":
    main()
