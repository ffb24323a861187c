"""Train the bundled digit voice: NeMo's FastPitch and HiFi-GAN, small, on digits that espeak-ng's demo speakers read.

``python -m infra.demo.train_voice fastpitch-digits.nemo hifigan-digits.nemo`` takes some 21 minutes of one core.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from infra.demo.voice_data import HOP, Reading, readings
from infra.demo.voice_models import fastpitch, hifigan, save

REPORTED = 25  # steps between two lines of progress
HIFIGAN_RATE = 2e-3  # highest learning rate
CROP = 32  # frames of a piece that HiFi-GAN learns from: half a second
RESOLUTIONS = ((512, 128), (1024, 256), (256, 64))  # (n_fft, hop) of the spectra that waveforms are compared in


def prepared(model: Any, some: Sequence[Reading]) -> list[dict[str, Tensor]]:
    """Readings as tensors: ``mel`` (bands, frames), ``text``, ``durs`` and ``pitch`` (letters,), ``audio`` (samples,).

    Pitch is normalised with the mean and deviation over all voiced letters, which the model keeps.
    """
    voiced = np.concatenate([one.pitch_hz[one.pitch_hz > 0] for one in some])
    model.fastpitch.pitch_mean.fill_(float(voiced.mean()))
    model.fastpitch.pitch_std.fill_(float(voiced.std()))
    items = []
    for one in some:
        audio = torch.from_numpy(one.samples)
        mel, _ = model.preprocessor(input_signal=audio[None], length=torch.tensor([len(audio)]))
        pitch = np.where(one.pitch_hz > 0, (one.pitch_hz - voiced.mean()) / voiced.std(), 0.0)
        text = torch.tensor(model.vocab.encode(one.text))
        if len(text) != len(one.frames):
            raise ValueError(f"{one.text!r}: {len(text)} tokens, but {len(one.frames)} durations")
        items.append(
            {
                "mel": mel[0, :, : int(one.frames.sum())],
                "text": text,
                "durs": torch.from_numpy(one.frames).long(),
                "pitch": torch.from_numpy(pitch).float(),
                "audio": audio,
                "speaker": torch.tensor(one.speaker),
            }
        )
    return items


def batch_of(items: Sequence[dict[str, Tensor]], pad: int) -> dict[str, Tensor]:
    stacked = {
        name: pad_sequence([item[name] for item in items], batch_first=True, padding_value=value)
        for name, value in (("text", pad), ("durs", 0), ("pitch", 0.0))
    }
    stacked["mel"] = pad_sequence([item["mel"].T for item in items], batch_first=True).transpose(1, 2)
    stacked["speaker"] = torch.stack([item["speaker"] for item in items])
    stacked["frames"] = torch.tensor([item["mel"].shape[1] for item in items])
    return stacked


def rate_at(done: float, peak: float) -> float:
    """Warm-up over the first 3%, then a cosine to a fiftieth."""
    return peak * min(done / 0.03 + 0.01, 0.02 + 0.49 * (1 + math.cos(math.pi * done)))


def shown(sums: np.ndarray) -> str:
    """Means over the steps since the last line."""
    return "/".join(f"{one / REPORTED:.3f}" for one in sums)


def train_fastpitch(model: Any, items: Sequence[dict[str, Tensor]], seconds: float, rng: Any) -> Iterator[str]:
    """L1 of the mel, and of log durations and pitch their squared error, with the durations and pitch that are true."""
    model.train()
    with torch.no_grad():  # begin at the mean spectrum: the way there from zero takes hundreds of steps
        model.fastpitch.proj.bias.copy_(torch.cat([item["mel"] for item in items], dim=1).mean(dim=1))
    optimizer = torch.optim.AdamW(model.fastpitch.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=1e-4)
    began, step, sums = time.process_time(), 0, np.zeros(3)
    while (done := (time.process_time() - began) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = rate_at(done, 2e-3)
        chosen = [items[index] for index in rng.integers(0, len(items), 12)]
        batch = batch_of(chosen, model.vocab.pad)
        mel, _, _, log_durs, pitch, *_ = model(
            text=batch["text"], durs=batch["durs"], pitch=batch["pitch"], speaker=batch["speaker"]
        )
        inside = (torch.arange(mel.shape[2])[None] < batch["frames"][:, None])[:, None].float()
        letters = (batch["text"] != model.vocab.pad).float()
        mel_loss = ((mel - batch["mel"]).abs() * inside).sum() / inside.sum() / mel.shape[1]
        dur_loss = ((log_durs - torch.log1p(batch["durs"].float())) ** 2 * letters).sum() / letters.sum()
        pitch_loss = ((pitch - batch["pitch"]) ** 2 * letters).sum() / letters.sum()
        optimizer.zero_grad()
        (mel_loss + 0.2 * dur_loss + 0.1 * pitch_loss).backward()
        torch.nn.utils.clip_grad_norm_(model.fastpitch.parameters(), 1.0)
        optimizer.step()
        step += 1
        sums += np.array([mel_loss.item(), dur_loss.item(), pitch_loss.item()])
        if step % REPORTED == 0:
            yield f"FastPitch step {step}, {done:.0%}: mel/duration/pitch {shown(sums)}"
            sums = np.zeros(3)
    model.eval()


def spectra_loss(made: Tensor, true: Tensor) -> Tensor:
    """Mean over RESOLUTIONS of spectral convergence plus L1 of log magnitudes (Yamamoto et al., arXiv:1910.11480).

    ``made`` and ``true`` are (b, samples).
    """
    losses = []
    for n_fft, hop in RESOLUTIONS:
        window = torch.hann_window(n_fft)
        made_s, true_s = (
            torch.stft(x, n_fft, hop, window=window, return_complex=True).abs().clamp_min(1e-4) for x in (made, true)
        )
        losses.append((true_s - made_s).norm() / true_s.norm() + (true_s.log() - made_s.log()).abs().mean())
    return torch.stack(losses).mean()


def train_hifigan(model: Any, items: Sequence[dict[str, Tensor]], seconds: float, rng: Any) -> Iterator[str]:
    """The generator on random pieces of ``mel`` and ``audio``: L1 of the mel and :func:`spectra_loss`. The adversarial
    losses are left out: on one core they bring less in the time than more steps do."""
    model.train()
    optimizer = torch.optim.AdamW(model.generator.parameters(), lr=HIFIGAN_RATE, betas=(0.8, 0.99))
    began, step, sums = time.process_time(), 0, np.zeros(2)
    while (done := (time.process_time() - began) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = rate_at(done, HIFIGAN_RATE)
        mels, audios = [], []
        for index in rng.integers(0, len(items), 8):
            mel, audio = items[index]["mel"], items[index]["audio"]
            start = int(rng.integers(0, max(1, mel.shape[1] - CROP)))
            piece = mel[:, start : start + CROP]
            sound = audio[start * HOP : (start + CROP) * HOP]
            mels.append(F.pad(piece, (0, CROP - piece.shape[1]), value=math.log(1e-5)))
            audios.append(F.pad(sound, (0, CROP * HOP - len(sound))))
        true = torch.stack(audios)
        made = model.generator(x=torch.stack(mels))[:, 0]
        length = torch.full((len(true),), true.shape[1])
        (made_mel, _), (true_mel, _) = (model.trg_melspec_fn(x, length) for x in (made, true))
        mel_loss, spectra = (made_mel - true_mel).abs().mean(), spectra_loss(made, true)
        optimizer.zero_grad()
        (mel_loss + spectra).backward()
        torch.nn.utils.clip_grad_norm_(model.generator.parameters(), 10.0)
        optimizer.step()
        step += 1
        sums += np.array([mel_loss.item(), spectra.item()])
        if step % REPORTED == 0:
            yield f"HiFi-GAN step {step}, {done:.0%}: mel/spectra {shown(sums)}"
            sums = np.zeros(2)
    model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fastpitch", type=Path, help="where to write it")
    parser.add_argument("hifigan", type=Path, help="where to write it")
    parser.add_argument("--readings", type=int, default=800)
    parser.add_argument("--minutes", type=float, default=20, help="of one core, in all")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    speaker, vocoder = fastpitch(), hifigan()
    items = prepared(speaker, readings(options.readings, rng))
    print(f"{len(items)} readings, {time.process_time():.0f} s", flush=True)
    seconds = options.minutes * 60
    for progress in train_fastpitch(speaker, items, 0.44 * seconds, rng):
        print(progress, flush=True)
    save(speaker, options.fastpitch)
    for progress in train_hifigan(vocoder, items, 0.56 * seconds, rng):
        print(progress, flush=True)
    save(vocoder, options.hifigan)


if __name__ == "__main__":
    main()
