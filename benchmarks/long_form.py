"""An hour in one recording against the same words as clips of their own, and against sequential ``whisper.transcribe``.

    python -m benchmarks.long_form conformer:infra/demo/checkpoints/conformer-digits.nemo fsdd_test.tar --minutes 60
    python -m benchmarks.long_form whisper:infra/demo/checkpoints/whisper-digits.pt fsdd_test.tar --minutes 60 --peer

Spoken digits are put one after the other, in random order, with pauses as speakers make them. The recording is cut by
voice activity and heard as the pipeline does it. Prints the WER (after Whisper's basic normaliser) of the clips alone,
of the recording, and of the peer on the recording with the same checkpoint.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from infra.demo import evaluate
from infra.demo.clips import SAMPLE_RATE, Clip, read_fsdd
from schemas.config import AsrSettings, SegmentationSettings
from workers.engines.base import Transcriber, Transcription
from workers.engines.registry import load_transcriber
from workers.segment import Segmenter

LOOPS = 4.0  # of both: half a minute of ten different words compresses by up to 3 without any loop


def splice(clips: list[Clip], minutes: float, rng: np.random.Generator) -> tuple[np.ndarray, list[int]]:
    """A recording of ``minutes``, float32 (n,) at 16 kHz, and the digits in it, in order."""
    pieces: list[np.ndarray] = []
    said: list[int] = []
    left = int(minutes * 60 * SAMPLE_RATE)
    while left > 0:
        for index in rng.permutation(len(clips)):
            pause_s = rng.uniform(0.15, 0.6) if rng.random() < 0.8 else rng.uniform(0.6, 3)
            pieces += [clips[index].samples, np.zeros(int(pause_s * SAMPLE_RATE), np.float32)]
            said += clips[index].digits
            left -= len(pieces[-2]) + len(pieces[-1])
            if left <= 0:
                break
    return np.concatenate(pieces), said


def heard(engine: Transcriber, clips: list[np.ndarray]) -> list[str]:
    """The texts of ``clips``; a refusal is no text."""
    answers = engine.transcribe(clips, ["en"] * len(clips))
    return [answer.text if isinstance(answer, Transcription) else "" for answer in answers]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("spec")
    parser.add_argument("fsdd_tar", type=Path)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1, help="of the order and the pauses")
    parser.add_argument("--peer", action="store_true", help="whisper.transcribe hears the recording too")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    clips = read_fsdd(options.fsdd_tar)
    recording, said = splice(clips, options.minutes, rng)

    def wer_of(text: str) -> float:
        return evaluate.wer(lambda _: [text], [recording], [said])

    engine = load_transcriber(options.spec, "cpu", AsrSettings(compression_ratio_threshold=LOOPS))

    alone = evaluate.on_clips(lambda some: heard(engine, list(some)), clips)
    print(f"clips alone: WER {alone:.2%}, {len(clips)} words")

    begun = time.perf_counter()
    (segments,) = Segmenter(SegmentationSettings()).cut([recording], SAMPLE_RATE)
    pieces = [recording[round(one.start_s * SAMPLE_RATE) : round(one.end_s * SAMPLE_RATE)] for one in segments]
    whole = " ".join(heard(engine, pieces))
    took_s = time.perf_counter() - begun
    minutes = len(recording) / SAMPLE_RATE / 60
    print(
        f"{minutes:.1f} minutes in {len(pieces)} segments: WER {wer_of(whole):.2%}, {len(said)} words, {took_s:.0f} s"
    )
    if options.peer:
        import whisper

        model = whisper.load_model(options.spec.partition(":")[2], device="cpu")
        begun = time.perf_counter()
        result = whisper.transcribe(model, recording, language="en", fp16=False, compression_ratio_threshold=LOOPS)
        text = str(result["text"])
        peer_s = time.perf_counter() - begun
        print(f"whisper.transcribe on the same: WER {wer_of(text):.2%}, {peer_s:.0f} s")


if __name__ == "__main__":
    main()
