"""What the flow costs a voice: real-time factor through the data plane against the bare engine with the same batches.

``python -m benchmarks.synthesis SPEC [--texts 400] [--rounds 3]``: the engine is loaded once and speaks the texts in a
loop, shard by shard as the flow cuts them; then the stage does, with all that it does beside (text, pieces, loudness);
in turns. The best of the rounds counts. On a CPU it is CPU time that is measured, so other load weighs little.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import numpy as np

from infra.demo.clips import DIGITS
from schemas.config import Recipe
from schemas.records import Archive, Layout, Member, Shard
from workers.block import pack, unpack
from workers.engines.base import Synthesis, Synthesizer
from workers.engines.registry import load_synthesizer
from workers.regeneration import UTTERANCES_PER_SHARD
from workers.synthesize import Synthesize
from workers.work import Recording, Utterance, Work

Texts = Sequence[str]
clock = time.process_time  # on a CPU: what other processes take of the machine is not counted. On a GPU: perf_counter


def shard_of(texts: Texts, index: int) -> Work:
    """A shard as ``regenerate`` cuts it: utterances with a reference and no audio."""
    members = tuple(Member(f"{index}-{n}", 0, "file:///bench", text=text) for n, text in enumerate(texts))
    shard = Shard(f"bench-{index}", Archive("file:///bench", Layout.FOLDER), "bench", members=members, index=index)
    recording = Recording("WAV", 16_000, 1, 1.0)
    utterances = [Utterance(one, recording, None, 0.0, 1.0, np.zeros(0, np.float32)) for one in members]
    return Work(shard=shard, sample_rate=16_000, utterances=utterances)


def bare(engine: Synthesizer, shards: Sequence[Texts]) -> tuple[float, float]:
    """Seconds of speech and of wall time."""
    start, made = clock(), 0.0
    for texts in shards:
        answers = engine.synthesize(texts, [None] * len(texts), range(len(texts)))
        made += sum(len(one.samples) / one.sample_rate for one in answers if isinstance(one, Synthesis))
    return made, clock() - start


def through(stage: Synthesize, shards: Sequence[Texts]) -> tuple[float, float]:
    """The same through the stage, blocks unpacked and packed as between Ray's workers."""
    blocks = [pack(shard_of(texts, index)) for index, texts in enumerate(shards)]
    start, made = clock(), 0.0
    for block in blocks:
        work = stage(unpack(block))
        sounds = [one.synthesis for utterance in work.utterances for one in utterance.regenerations]
        made += sum(len(one.samples) / one.sample_rate for one in sounds)
        pack(work)
    return made, clock() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec")
    parser.add_argument("--texts", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    if options.device != "cpu":
        global clock
        clock = time.perf_counter
    rng = np.random.default_rng(4)
    texts = [" ".join(DIGITS[d] for d in rng.integers(0, 10, int(rng.integers(2, 12)))) for _ in range(options.texts)]
    shards = [texts[at : at + UTTERANCES_PER_SHARD] for at in range(0, len(texts), UTTERANCES_PER_SHARD)]
    recipe = Recipe.model_validate({"tts": {"synthesizer": options.spec}})
    engine = load_synthesizer(options.spec, options.device, recipe.tts)
    stage = Synthesize(engine, recipe)
    bare(engine, [texts[:8]])
    rates: dict[str, list[float]] = {"bare": [], "flow": []}
    for _ in range(options.rounds):
        for name, (made, wall) in (("bare", bare(engine, shards)), ("flow", through(stage, shards))):
            rates[name].append(made / wall)
    best = {name: max(found) for name, found in rates.items()}
    print(f"{options.spec}: bare {best['bare']:.1f} times real time, through the flow {best['flow']:.1f}")
    print(f"{best['flow'] / best['bare']:.1%} of the bare engine")


if __name__ == "__main__":
    main()
