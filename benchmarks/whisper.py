"""Batched Whisper, in full and in fitted windows, against sequential ``whisper.transcribe`` on the same weights.

``python -m benchmarks.whisper --clips 32 --seconds 4 --tokens 24 --threads 2`` on a CPU, ``--device cuda --size
large-v3`` on a GPU: random weights that write a fixed number of tokens. ``--checkpoint x.pt --archive clips.tar`` hears
real speech. ``--peers transformers faster-whisper --batches 16 32 64`` adds batched peers, each at its best batch size.
Prints seconds, times real time, ratios, and how many texts agree with the sequential: all must, in full windows.
"""

from __future__ import annotations

import argparse
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import soundfile as sf
import soxr
import torch
import whisper
from whisper.model import ModelDimensions, Whisper

from benchmarks.whisper_peers import faster_whisper_batched, transformers_batched
from schemas.config import AsrSettings
from workers.engines.base import Transcription
from workers.engines.checkpoints import resolve
from workers.engines.whisper import WhisperTranscriber

# published dimensions: (n_mels, n_vocab, audio state/heads/layers, text state/heads/layers)
SIZES = {
    "tiny": (80, 51865, (384, 6, 4), (384, 6, 4)),
    "small": (80, 51865, (768, 12, 12), (768, 12, 12)),
    "large-v3": (128, 51866, (1280, 20, 32), (1280, 20, 32)),
    "turbo": (128, 51866, (1280, 20, 32), (1280, 20, 4)),
}
PEERS = ("transformers", "faster-whisper")
EOT, TIMESTAMPS = 50257, 50364


def random_checkpoint(path: Path, size: str, tokens: int) -> Path:
    """Random weights that give ``tokens`` tokens in every window: neither the end nor a later timestamp ever wins."""
    mels, vocabulary, audio, text = SIZES[size]
    torch.manual_seed(0)
    model = Whisper(ModelDimensions(mels, 1500, *audio, vocabulary, 2 * tokens, *text))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, parameter.shape[-1] ** -0.5)
        direction = torch.randn(text[0])
        model.decoder.ln.bias.copy_(direction)
        for first, last in ((EOT, EOT + 1), (TIMESTAMPS, vocabulary)):
            model.decoder.token_embedding.weight[first:last] -= direction
    torch.save({"dims": model.dims.__dict__, "model_state_dict": model.half().state_dict()}, path)
    return path


def speechlike(count: int, seconds: float, seed: int = 0) -> list[np.ndarray]:
    """Noise clips of ``seconds``, half to one and a half times, at 16 kHz: contents do not matter to the time taken."""
    rng = np.random.default_rng(seed)
    return [
        (0.1 * rng.standard_normal(int(16_000 * seconds * rng.uniform(0.5, 1.5)))).astype(np.float32)
        for _ in range(count)
    ]


def timed(function: Callable[[], Any], device: str) -> tuple[float, Any]:
    """Seconds of wall time that ``function`` took, and what it gave."""
    start = time.perf_counter()
    result = function()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def recorded(archive: Path, count: int) -> list[np.ndarray]:
    """The first ``count`` recordings of a tar, float32 mono at 16 kHz."""
    clips = []
    with tarfile.open(archive) as members:
        for member in members:
            if len(clips) < count and member.name.endswith((".wav", ".flac")):
                samples, rate = sf.read(members.extractfile(member), dtype="float32", always_2d=True)
                clips.append(soxr.resample(samples.mean(axis=1), rate, 16_000).astype(np.float32))
    return clips


def _clips(options: argparse.Namespace) -> list[np.ndarray]:
    if options.archive:
        return recorded(options.archive, options.clips)
    return speechlike(options.clips, options.seconds)


def _one_by_one(model: Whisper, device: str, words: bool) -> Callable[[list[np.ndarray]], list[str]]:
    settings = {
        "temperature": 0.0,
        "condition_on_previous_text": False,
        "fp16": device != "cpu",
        "word_timestamps": words,
    }
    return lambda clips: [whisper.transcribe(model, clip, language="en", **settings)["text"].strip() for clip in clips]


def _engine_texts(engine: WhisperTranscriber, clips: list[np.ndarray]) -> list[str]:
    answers = engine.transcribe(clips, ["en"] * len(clips))
    return [answer.text if isinstance(answer, Transcription) else answer.message for answer in answers]


def _settings(window: Literal["full", "fitted"], words: bool) -> AsrSettings:
    """The same work on both sides: random weights fail every guard."""
    return AsrSettings(whisper_window=window, fallback_temperatures=(), word_timestamps=words)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, help="a .pt; random weights of --size when unset")
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--archive", type=Path, help="a tar of recordings to hear; noise clips when unset")
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=4.0, help="mean length of a noise clip")
    parser.add_argument("--tokens", type=int, default=24, help="tokens decoded per clip by random weights")
    parser.add_argument("--words", action="store_true", help="time words as well, without peers")
    parser.add_argument("--batch", type=int, help="windows per batch; the engine's own choice when unset")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=[])
    parser.add_argument("--batches", nargs="*", type=int, default=[16, 32, 64], help="batch sizes of the peers")
    parser.add_argument("--sequential", type=int, help="clips of the sequential run, scaled up; all when unset")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        path = options.checkpoint or random_checkpoint(Path(folder) / "random.pt", options.size, options.tokens)
        checkpoint = resolve(f"whisper:{path}")
        load_s, engine = timed(
            lambda: WhisperTranscriber(checkpoint, options.device, _settings("full", options.words)), options.device
        )
        model = whisper.load_model(str(path), device=options.device)
        clips = _clips(options)
        audio_s = sum(len(clip) for clip in clips) / 16_000
        print(f"whisper on {options.device}, {options.threads} threads, load {load_s:.1f} s")
        print(f"{len(clips)} clips, {audio_s:.0f} s of audio")
        few = clips[: options.sequential]
        sequential = _one_by_one(model, options.device, options.words)
        sequential(few[:1])
        seconds, texts = timed(lambda: sequential(few), options.device)
        sequential_s = seconds * audio_s / (sum(len(clip) for clip in few) / 16_000)
        print(f"sequential            {sequential_s:7.2f} s   {audio_s / sequential_s:8.1f} x real time", flush=True)

        def line(name: str, batch: int | str, heard: Callable[[], list[str]]) -> None:
            taken, other = timed(heard, options.device)
            same = sum(one == two for one, two in zip(texts, other, strict=False))
            alike = "" if name in PEERS else f"   texts alike {same}/{len(texts)}"
            print(
                f"{name:14} {batch:>6} {taken:7.2f} s   {audio_s / taken:8.1f} x real time   "
                f"ratio {sequential_s / taken:6.2f}{alike}",
                flush=True,
            )

        if options.batch:
            engine.capacity.limit = options.batch
        windows: tuple[Literal["full", "fitted"], ...] = ("full", "fitted")
        for window in windows:
            engine.settings = _settings(window, options.words)
            _engine_texts(engine, clips[:2])
            line(window, options.batch or "own", lambda: _engine_texts(engine, clips))
        for name in options.peers:
            peer = (
                transformers_batched(model, options.device, options.tokens)
                if name == "transformers"
                else faster_whisper_batched(model, options.device, options.tokens, Path(folder) / "converted")
            )
            for batch in options.batches:
                peer(clips[:batch], batch)
                line(name, batch, lambda peer=peer, batch=batch: peer(clips, batch))


if __name__ == "__main__":
    main()
