"""The Conformer engine against the bare model called in a loop on pre-made tensors: the same batches and weights.

``python -m benchmarks.conformer --clips 200 --threads 2`` on a CPU, ``--device cuda --size large --clips 4000`` on a
GPU. Prints padding waste, times real time (of CPU time on a CPU), and the engine's share of the bare throughput.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.paired import in_turns
from schemas.config import AsrSettings
from workers.engines.batching import padding_waste, plan_batches
from workers.engines.checkpoints import resolve
from workers.engines.conformer import ConformerTranscriber

# (layers, width, heads, convolution kernel) of NeMo's published Conformer-CTC sizes; small for a quick look
SIZES = {"tiny": (3, 64, 4, 15), "small": (16, 176, 4, 31), "large": (18, 512, 8, 31)}
LABELS = [" ", *"abcdefghijklmnopqrstuvwxyz", "'"]


def random_checkpoint(path: Path, size: str) -> Path:
    """A Conformer-CTC of a published size with random weights, saved by NeMo."""
    from nemo.collections.asr.models import EncDecCTCModel
    from nemo.utils import logging
    from omegaconf import OmegaConf

    logging.setLevel(logging.ERROR)
    layers, width, heads, kernel = SIZES[size]
    modules = "nemo.collections.asr.modules"
    torch.manual_seed(0)
    config = {
        "sample_rate": 16_000,
        "labels": LABELS,
        "preprocessor": {
            "_target_": f"{modules}.AudioToMelSpectrogramPreprocessor",
            "sample_rate": 16_000,
            "normalize": "per_feature",
            "window_size": 0.025,
            "window_stride": 0.01,
            "features": 80,
            "n_fft": 512,
        },
        "encoder": {
            "_target_": f"{modules}.ConformerEncoder",
            "feat_in": 80,
            "n_layers": layers,
            "d_model": width,
            "n_heads": heads,
            "conv_kernel_size": kernel,
            "subsampling": "striding",
            "subsampling_factor": 4,
            "subsampling_conv_channels": width,
        },
        "decoder": {
            "_target_": f"{modules}.ConvASRDecoder",
            "feat_in": width,
            "num_classes": len(LABELS),
            "vocabulary": LABELS,
        },
        "decoding": {"strategy": "greedy_batch"},
    }
    EncDecCTCModel(cfg=OmegaConf.create(config)).save_to(str(path))
    return path


def common_voice_like(count: int, seed: int = 0) -> list[np.ndarray]:
    """Noise clips with the length mix of read sentences: log-normal around 4.7 s, 1 to 15 s, at 16 kHz."""
    rng = np.random.default_rng(seed)
    lengths = np.clip(rng.lognormal(np.log(4.7), 0.35, count), 1.0, 15.0)
    return [(0.1 * rng.standard_normal(int(16_000 * length))).astype(np.float32) for length in lengths]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, help="a .nemo; random weights of --size when unset")
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--batch-s", type=float, help="padded audio per batch, seconds; the engine's own when unset")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = options.checkpoint or random_checkpoint(Path(folder) / "random.nemo", options.size)
        engine = ConformerTranscriber(resolve(f"conformer:{path}"), options.device, AsrSettings())
    load_s = time.perf_counter() - start
    if options.batch_s:
        engine.capacity.limit = options.batch_s
    clips = common_voice_like(options.clips)
    lengths = [len(clip) / engine.sample_rate for clip in clips]
    batches = plan_batches(lengths, engine.capacity)
    tensors = [engine._collate([clips[index] for index in batch])[:2] for batch in batches]

    def bare(signals: torch.Tensor, sizes: torch.Tensor) -> None:
        with torch.inference_mode():
            outputs: Any = engine.model.forward(input_signal=signals, input_signal_length=sizes)
            outputs[-1].cpu()  # greedy labels, as the model itself gives them

    def whole(some: list[np.ndarray]) -> None:
        engine.transcribe(some, [None] * len(some))

    # a pair is one batch: the engine plans the clips of one batch as that batch again
    work = [
        (partial(bare, *ready), partial(whole, [clips[index] for index in batch]))
        for batch, ready in zip(batches, tensors, strict=True)
    ]
    pairs = in_turns(work, options.repeats, options.device)
    audio_s = sum(lengths)
    print(f"conformer on {options.device}, {options.threads} threads, import and load {load_s:.1f} s")
    print(
        f"{len(clips)} clips, {audio_s:.0f} s of audio in {len(batches)} batches, "
        f"padding waste {padding_waste(lengths, batches):.1%}"
    )
    for name, taken in (("bare model", pairs.peer_s), ("engine", pairs.ours_s)):
        print(f"{name:11} {audio_s * options.repeats / taken.sum():8.1f} x real time")
    print(pairs)


if __name__ == "__main__":
    main()
