"""What the flow costs a voice: real-time factor through the data plane against the bare engine with the same batches.

    python -m benchmarks.synthesis espeak:en-us [--texts 400] [--shard 50] [--rounds 3]

The engine is loaded once and speaks the texts in a loop, a shard at a time; the stage does the same, with all that it
does beside (text, pieces, loudness, blocks unpacked and packed as between Ray's workers); in turns.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial

import numpy as np
import pyarrow as pa

from benchmarks.paired import in_turns
from infra.demo.clips import DIGITS
from schemas.config import Recipe
from schemas.records import Archive, Layout, Member, Shard
from workers.block import pack, unpack
from workers.engines.base import Synthesis, Synthesizer
from workers.engines.registry import load_synthesizer
from workers.synthesize import Synthesize
from workers.work import Recording, Utterance, Work

Texts = Sequence[str]


def shard_of(texts: Texts, index: int) -> Work:
    """A shard as ``regenerate`` cuts it: utterances with a reference and no audio."""
    members = tuple(Member(f"{index}-{n}", 0, "file:///bench", text=text) for n, text in enumerate(texts))
    shard = Shard(f"bench-{index}", Archive("file:///bench", Layout.FOLDER), "bench", members=members, index=index)
    recording = Recording("WAV", 16_000, 1, 1.0)
    utterances = [Utterance(one, recording, None, 0.0, 1.0, np.zeros(0, np.float32)) for one in members]
    return Work(shard=shard, sample_rate=16_000, utterances=utterances)


def bare(engine: Synthesizer, texts: Texts) -> float:
    """Seconds of speech made."""
    answers = engine.synthesize(texts, [None] * len(texts), range(len(texts)))
    return sum(len(one.samples) / one.sample_rate for one in answers if isinstance(one, Synthesis))


def through(stage: Synthesize, block: pa.Table) -> None:
    """The same through the stage."""
    work = stage(unpack(block))
    if not all(utterance.regenerations for utterance in work.utterances):
        raise SystemExit("a text was not spoken: the two do not do the same work")
    pack(work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec")
    parser.add_argument("--texts", type=int, default=400)
    parser.add_argument("--shard", type=int, default=50, help="texts of a shard; the flow has up to 200")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    rng = np.random.default_rng(4)
    texts = [" ".join(DIGITS[d] for d in rng.integers(0, 10, int(rng.integers(2, 12)))) for _ in range(options.texts)]
    shards = [texts[at : at + options.shard] for at in range(0, len(texts), options.shard)]
    recipe = Recipe.model_validate({"tts": {"synthesizer": options.spec}})
    engine = load_synthesizer(options.spec, options.device, recipe.tts)
    stage = Synthesize(engine, recipe)
    work = [
        (partial(bare, engine, some), partial(through, stage, pack(shard_of(some, index))))
        for index, some in enumerate(shards)
    ]
    pairs = in_turns(work, options.rounds, options.device)
    speech_s = options.rounds * sum(bare(engine, some) for some in shards)
    for name, taken in (("bare engine", pairs.peer_s), ("through the stage", pairs.ours_s)):
        print(f"{name:18} {speech_s / taken.sum():7.1f} x real time")
    print(f"{options.spec}: {pairs}")


if __name__ == "__main__":
    main()
