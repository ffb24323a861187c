"""Round-trip WER of a voice on digit strings, heard by a transcriber, both through the project's own engines.

``python -m infra.demo.evaluate_voice fastpitch:A.nemo+hifigan:B.nemo conformer:conformer-digits.nemo --voices 0,1,2,3``
"""

from __future__ import annotations

import argparse

import jiwer
import numpy as np
from whisper.normalizers import BasicTextNormalizer

from infra.demo.clips import DIGITS
from schemas.config import AsrSettings
from workers.engines.base import Synthesis, Transcription
from workers.engines.registry import load_synthesizer, load_transcriber
from workers.transcribe import resample


def round_trip(
    voice: str, hears: str, voices: list[str | None], strings: int, seed: int = 11
) -> dict[str | None, float]:
    """WER of each voice over ``strings`` strings of one to seven digits; a refused text counts as silence."""
    speaker, listener = load_synthesizer(voice, "cpu"), load_transcriber(hears, "cpu", AsrSettings())
    normalise, rng = BasicTextNormalizer(), np.random.default_rng(seed)
    texts = [" ".join(DIGITS[d] for d in rng.integers(0, 10, int(rng.integers(1, 8)))) for _ in range(strings)]
    found = {}
    for name in voices:
        spoken = speaker.synthesize(texts, [name] * strings, range(strings))
        silence = Synthesis(np.zeros(listener.sample_rate, np.float32), listener.sample_rate)
        sounds = [one if isinstance(one, Synthesis) else silence for one in spoken]
        clips = [resample(one.samples, one.sample_rate, listener.sample_rate) for one in sounds]
        heard = listener.transcribe(clips, [None] * strings)
        answers = [normalise(one.text).strip() if isinstance(one, Transcription) else "" for one in heard]
        found[name] = float(jiwer.wer(texts, answers))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("voice")
    parser.add_argument("hears")
    parser.add_argument("--voices", default="", help="commas between; the engine's own voice where none is given")
    parser.add_argument("--strings", type=int, default=60)
    options = parser.parse_args()
    voices: list[str | None] = [*options.voices.split(",")] if options.voices else [None]
    figures = round_trip(options.voice, options.hears, voices, options.strings)
    for name, wer in figures.items():
        print(f"voice {name}: WER {wer:.1%}")
    print(f"mean: {sum(figures.values()) / len(figures):.1%}")


if __name__ == "__main__":
    main()
