"""Do batches hear what the library itself hears, one recording at a time? Every difference is listed.

    python -m benchmarks.faithful conformer:infra/demo/checkpoints/conformer-digits.nemo ../shared/data
    python -m benchmarks.faithful whisper:infra/demo/checkpoints/whisper-digits.pt ../shared/data --windows 64

Hears every recording under a folder, in its tars too, of at most a window's length: first in batches through the
engine, then one by one by ``ASRModel.transcribe``, ``whisper.transcribe`` (temperature 0, no fallback) or a CTC model
and processor of transformers.
"""

from __future__ import annotations

import argparse
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from infra.demo import evaluate
from schemas.config import AsrSettings, AudioSettings
from schemas.errors import MemberError
from workers.decoding.decoder import Decoder
from workers.engines.base import Transcription
from workers.engines.batching import Capacity
from workers.engines.registry import load_transcriber
from workers.engines.whisper_loop import WhisperLoop

RATE = 16_000
LONGEST_S = 30.0


def files(folder: Path) -> Iterator[tuple[str, bytes, None]]:
    """Names and bytes of all files under ``folder`` and of the members of its tars."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = str(path.relative_to(folder))
        if path.suffix != ".tar":
            yield name, path.read_bytes(), None
            continue
        with tarfile.open(path) as tar:
            for member in tar:
                if (stream := tar.extractfile(member)) is not None:
                    yield f"{name}/{member.name}", stream.read(), None


def recordings(folder: Path, every: int) -> tuple[list[str], list[np.ndarray]]:
    """Names and samples, float32 mono at 16 kHz, of every so many of the recordings that fit a window."""
    names, clips = [], []
    found = list(files(folder))
    with Decoder(AudioSettings(sample_rate=RATE)) as decoder:
        for (name, _, _), answer in zip(found, decoder.decode_many(iter(found)), strict=True):
            if not isinstance(answer, MemberError) and len(answer.samples[0]) <= LONGEST_S * RATE:
                names.append(name)
                clips.append(answer.samples[0])
    return names[::every], clips[::every]


def library(spec: str) -> Callable[[list[np.ndarray]], list[str]]:
    """The library's own way to hear clips, one at a time."""
    family, _, path = spec.partition(":")
    if family == "whisper":
        return evaluate.whisper(Path(path), temperature=0.0, condition_on_previous_text=False, language="en")
    return transformers_ctc(path) if family in ("wav2vec2", "hubert") else evaluate.conformer(Path(path))


def transformers_ctc(path: str) -> Callable[[list[np.ndarray]], list[str]]:
    """The documented way of transformers: each clip alone, so without padding or mask."""
    import torch
    from transformers import AutoModelForCTC, Wav2Vec2Processor

    processor, model = Wav2Vec2Processor.from_pretrained(path), AutoModelForCTC.from_pretrained(path).eval()

    def hear(clip: np.ndarray) -> str:
        values = processor(clip, sampling_rate=RATE, return_tensors="pt")["input_values"]
        with torch.inference_mode():
            return str(processor.batch_decode(model(values).logits.argmax(dim=-1))[0])

    return lambda clips: [hear(clip) for clip in clips]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("spec")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--every", type=int, default=1, help="only every so many recordings")
    parser.add_argument("--windows", type=int, help="of 30 s in one of Whisper's batches, instead of its own choice")
    options = parser.parse_args()
    names, clips = recordings(options.folder, options.every)
    settings = AsrSettings(fallback_temperatures=())  # what a fallback draws at random cannot agree
    engine = load_transcriber(options.spec, "cpu", settings)
    if options.windows and isinstance(engine, WhisperLoop):
        engine.capacity = Capacity(options.windows, max_waste=0.0)
    answers = engine.transcribe(clips, ["en"] * len(clips))
    ours = [answer.text.strip() if isinstance(answer, Transcription) else f"({answer.message})" for answer in answers]
    theirs = [text.strip() for text in library(options.spec)(clips)]
    differing = [triple for triple in zip(names, ours, theirs, strict=True) if triple[1] != triple[2]]
    for name, our, their in differing:
        print(f"{name}\n  batch:   {our}\n  library: {their}")
    print(f"{len(names) - len(differing)} of {len(names)} alike: {1 - len(differing) / len(names):.2%}")


if __name__ == "__main__":
    main()
