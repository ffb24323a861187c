"""Score the bundled checkpoints through their libraries' own loaders and decoders, with default options.

``python -m infra.demo.evaluate whisper-digits.pt fsdd_test.tar``, or the same with a ``.nemo``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
from whisper.normalizers import BasicTextNormalizer

from infra.demo.clips import DIGITS, Clip, espeak_clips, read_fsdd
from infra.demo.speech import Speech

Recogniser = Callable[[Sequence[np.ndarray]], list[str]]


def conformer(checkpoint: Path) -> Recogniser:
    """``ASRModel.restore_from`` and its ``transcribe``."""
    from nemo.collections.asr.models import ASRModel
    from nemo.utils import logging

    logging.setLevel(logging.ERROR)
    model = ASRModel.restore_from(str(checkpoint), map_location="cpu")

    def recognise(clips: Sequence[np.ndarray]) -> list[str]:
        # Batch composition changes a Conformer's output a little: one clip at a time has none.
        answers = model.transcribe(list(clips), batch_size=1, verbose=False)
        return [answer.text for answer in answers]

    return recognise


def whisper(checkpoint: Path, **options: Any) -> Recogniser:
    """``whisper.load_model`` and ``whisper.transcribe``."""
    import whisper as library

    model = library.load_model(str(checkpoint), device="cpu")

    def recognise(clips: Sequence[np.ndarray]) -> list[str]:
        return [str(library.transcribe(model, clip, fp16=False, **options)["text"]) for clip in clips]

    return recognise


def load(checkpoint: Path) -> Recogniser:
    """The recogniser that a checkpoint's suffix asks for. Raises ValueError for another suffix."""
    families = {".nemo": conformer, ".pt": whisper}
    if checkpoint.suffix not in families:
        raise ValueError(f"{checkpoint}: a checkpoint ends in .nemo or .pt")
    return families[checkpoint.suffix](checkpoint)


def wer(recognise: Recogniser, clips: Sequence[np.ndarray], references: Sequence[Sequence[int]]) -> float:
    """Word errors over all words of all clips, after Whisper's basic normaliser.

    The English one would write ``one two three`` as the one word ``123``: one wrong digit, and all of it is wrong.
    """
    normalise = BasicTextNormalizer()
    truth = [" ".join(DIGITS[digit] for digit in digits) for digits in references]
    return float(jiwer.wer(truth, [normalise(text).strip() for text in recognise(clips)]))


def on_clips(recognise: Recogniser, clips: Sequence[Clip]) -> float:
    """WER over clips as they were recorded."""
    return wer(recognise, [clip.samples for clip in clips], [clip.digits for clip in clips])


def report(recognise: Recogniser, clips: Sequence[Clip], seed: int = 7) -> dict[str, float]:
    """WER on the clips and on strings of them, and the words heard per minute where nobody speaks."""
    rng = np.random.default_rng(seed)
    recorded = Speech([clips], [1], rng)
    synthetic = Speech([espeak_clips(300, rng)], [1], rng)
    figures = {"clips": on_clips(recognise, clips)}
    for name, speech, count, seconds in (
        ("strings of 5 s", recorded, 40, 5),
        ("strings of 28 s", recorded, 12, 28),
        ("strings of 60 s", recorded, 4, 60),
        ("espeak strings of 10 s", synthetic, 25, 10),
    ):
        examples = [speech.string(2 * seconds, seconds) for _ in range(count)]
        figures[name] = wer(recognise, [e.samples for e in examples], [e.digits for e in examples])
    silent = [recorded.nothing(20) for _ in range(40)]
    heard = sum(len(text.split()) for text in recognise([example.samples for example in silent]))
    figures["words per minute of noise"] = heard / (sum(len(example.samples) for example in silent) / 16_000 / 60)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("fsdd_tar", type=Path)
    options = parser.parse_args()
    for name, figure in report(load(options.checkpoint), read_fsdd(options.fsdd_tar)).items():
        print(f"{name}: {figure:.1f}" if "minute" in name else f"WER on {name}: {figure:.1%}")


if __name__ == "__main__":
    main()
