"""CPU cost of the front end (decode, resample, denoise, mel) against the plain per-file recipe that many projects use.

Both do the same work with the same parameters. The recipe is ``librosa.load(sr=16000)``, ``noisereduce.reduce_noise``
and ``librosa.feature.melspectrogram``. CPU seconds are those of this process and its decoder, user and system, after a
warm-up. Run on one thread:

    OMP_NUM_THREADS=1 python -m benchmarks.front_end digits.tar reading.mp3
"""

from __future__ import annotations

import argparse
import io
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from schemas.config import Recipe
from schemas.errors import MemberError
from workers.decoding.decoder import Decoder
from workers.denoise import denoise
from workers.features import FLOOR, log_mel
from workers.stage import Clock

RATE = 16_000
Clip = tuple[str, bytes]
Result = list[tuple[np.ndarray, np.ndarray, np.ndarray]]  # per clip: samples, denoised, mel (frames, bands)


def read(path: Path, most: int) -> list[Clip]:
    """Up to ``most`` recordings of a tar, or the one recording."""
    if path.suffix != ".tar":
        return [(path.name, path.read_bytes())]
    with tarfile.open(path) as archive:
        files = [member for member in archive if member.isfile()][:most]
        opened = [(member.name, archive.extractfile(member)) for member in files]
        return [(name, file.read()) for name, file in opened if file is not None]


def ours(decoder: Decoder, clips: list[Clip]) -> Result:
    """Through voxmill's own stages, as a shard of the pipeline goes; a worker's decoder serves many shards."""
    recipe = Recipe()
    answers = decoder.decode_many((name, data, None) for name, data in clips)
    raw = []
    for (name, _), answer in zip(clips, answers, strict=True):
        if isinstance(answer, MemberError):
            raise SystemExit(f"{name}: {answer}")
        raw.append(answer.samples[0])
    denoised = denoise(raw, RATE, recipe.denoise)
    return list(zip(raw, denoised, log_mel(denoised, RATE, recipe.features), strict=True))


def plain(clips: list[Clip]) -> Result:
    """File by file through the libraries."""
    import librosa
    from noisereduce import reduce_noise

    found = []
    for _, data in clips:
        samples, rate = librosa.load(io.BytesIO(data), sr=RATE)
        denoised = reduce_noise(y=samples, sr=rate)
        power = librosa.feature.melspectrogram(y=denoised, sr=rate, n_fft=1024, hop_length=256, n_mels=80)
        found.append((samples, denoised, np.log(np.maximum(power, FLOOR)).T))
    return found


def timed(work: Callable[[list[Clip]], Result], clips: list[Clip], repeats: int) -> tuple[float, Result]:
    """Smallest CPU seconds of ``repeats`` runs, and the last result."""
    spent = []
    for _ in range(repeats):
        clock = Clock()
        result = work(clips)
        spent.append(clock.read().cpu_s)
    return min(spent), result


def differences(a: Result, b: Result) -> Iterator[str]:
    """Largest differences: samples relative to the clip's peak, mel in nats where power is over 1e-6 of its peak."""
    rows = []
    for (x, dx, mx), (y, dy, my) in zip(a, b, strict=True):
        n, frames = min(len(x), len(y)), min(len(mx), len(my))
        peak = np.abs(y).max()
        loud = my[:frames] > my.max() + np.log(1e-6)
        rows.append(
            (
                abs(len(x) - len(y)),
                np.abs(x[:n] - y[:n]).max() / peak,
                np.abs(dx[:n] - dy[:n]).max() / peak,
                np.abs(mx[:frames] - my[:frames])[loud].max(),
            )
        )
    length, decoded, denoised, mel = np.max(rows, axis=0)
    yield f"length {length:.0f} samples"
    yield f"decoded {decoded:.1e} of peak"
    yield f"denoised {denoised:.1e} of peak"
    yield f"log-mel {mel:.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path, help="recordings, and tars of recordings")
    parser.add_argument("--most", type=int, default=250, help="recordings taken from a tar")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each; the fastest counts")
    arguments = parser.parse_args()
    with Decoder(Recipe().audio) as decoder:
        compare(arguments, partial(ours, decoder))


def compare(arguments: argparse.Namespace, ours: Callable[[list[Clip]], Result]) -> None:
    for path in arguments.paths:
        clips = read(path, arguments.most)
        ours(clips[:2])
        plain(clips[:2])  # numba compiles on first use
        our_s, our_result = timed(ours, clips, arguments.repeats)
        plain_s, plain_result = timed(plain, clips, arguments.repeats)
        audio_s = sum(len(samples) for samples, _, _ in plain_result) / RATE
        print(f"{path.name}: {len(clips)} recordings, {audio_s:.0f} s of audio")
        print(f"  voxmill {audio_s / our_s:6.0f} audio seconds per CPU second")
        print(f"  plain   {audio_s / plain_s:6.0f}")
        print(f"  ratio   {plain_s / our_s:6.1f}")
        print(f"  largest differences: {', '.join(differences(our_result, plain_result))}")


if __name__ == "__main__":
    main()
