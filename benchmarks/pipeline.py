"""The whole data plane: wall time against the stages' own CPU time, start-up, and peak memory as the corpus grows.

    python -m benchmarks.pipeline --data ../shared/data --hours 1
    python -m benchmarks.pipeline --data ../shared/data --hours 0.5 --grow 10 --whisper-window fitted

Sources are FSDD's tars and the folders of speech beside them, linked as often as the hours ask for. The first command
prints wall seconds (after start-up: from the moment the first shard is in work to the last receipt) over the stages'
summed CPU seconds divided by the cores, that part of the loading of models among them that falls into the wall time;
the second one the peak of the process tree's memory for a corpus and for one ``--grow`` times as long (measuring
it takes CPU itself, so the first does not). On a virtual machine, CPU that the host took away meanwhile is told too.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from pathlib import Path

import psutil

from schemas.config import AsrSettings, Cluster, CorpusParameters, Recipe, Sharding, TtsSettings
from schemas.records import Published, StageTime

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINTS = ROOT / "infra/demo/checkpoints"
FOLDERS = ("librispeech-test-other", "ljspeech", "common-voice", "cmu-arctic", "long", "librivox-sonnet", "mfa", "jfk")
FSDD_S, FOLDERS_S = 18.6 * 60, 12 * 60  # audio per round, seconds, as their README tells


def link_sources(data: Path, folder: Path, hours: float) -> list[str]:
    """Link rounds of the test data under new names until they hold ``hours`` of audio; returns the sources."""
    sources: list[str] = []
    left, turn = hours * 3600, 0
    while left > 0:
        place = folder / f"round{turn:03d}"
        place.mkdir(parents=True)
        for tar in sorted((data / "fsdd").iterdir()):
            (place / tar.name).symlink_to(tar)
        sources += [str(tar) for tar in sorted(place.glob("*.tar"))]
        left -= FSDD_S
        if left > 0:
            for name in FOLDERS:
                (place / name).symlink_to(data / name)
                sources.append(str(place / name))
            left -= FOLDERS_S
        turn += 1
    return sources


class Memory(threading.Thread):
    """Samples the proportional (PSS) memory of this process and all its descendants, in bytes; ``parts`` of the peak
    are by the names of processes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self.parts: Counter[str] = Counter()
        self.stopped = threading.Event()

    def run(self) -> None:
        me = psutil.Process()
        while not self.stopped.wait(1.0):
            parts = Counter[str]()
            for process in (me, *me.children(recursive=True)):
                with suppress(psutil.Error):
                    parts[process.cmdline()[0].rsplit("/", 1)[-1][:60]] += process.memory_full_info().pss
            if parts.total() > self.peak:
                self.peak, self.parts = parts.total(), parts


def _stolen_s() -> float:
    """CPU seconds since boot that the host of this virtual machine gave to others; 0 where it does not tell."""
    return float(getattr(psutil.cpu_times(), "steal", 0.0))


@contextmanager
def measured_memory(really: bool) -> Iterator[Memory]:
    memory = Memory()
    if not really:
        yield memory
        return
    memory.start()
    try:
        yield memory
    finally:
        memory.stopped.set()
        memory.join()


def _share_after(begin: float, spent: StageTime) -> float:
    """How much of a stage's time, 0 to 1, came after ``begin`` (seconds since 1970)."""
    return min(1.0, max(0.0, (spent.started_at + spent.wall_s - begin) / max(spent.wall_s, 1e-6)))


def run(sources: list[str], destination: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Process ``sources`` once; figures in seconds and bytes."""
    from workers.cluster import connect
    from workers.engines.checkpoints import checkpoint_digest
    from workers.pipeline import Job, process_shards
    from workers.sources.discover import discover
    from workers.sources.planning import make_plan

    recipe = Recipe(
        asr=AsrSettings(
            transcribers=(
                f"whisper:{CHECKPOINTS / 'whisper-digits.pt'}",
                f"conformer:{CHECKPOINTS / 'conformer-digits.nemo'}",
            ),
            whisper_window=arguments.whisper_window,
        ),
        tts=TtsSettings(synthesizer="espeak:en-us" if arguments.tts else None),
    )
    parameters = CorpusParameters(
        sources=sources,
        destination=destination,
        recipe=recipe,
        sharding=Sharding(minutes=arguments.minutes),
        cluster=Cluster(cpus=arguments.cpus),
    )
    begun = time.time()
    digests = {spec: digest for spec in recipe.asr.transcribers if (digest := checkpoint_digest(spec))}
    planned = make_plan(discover(sources, parameters.storage), recipe.fingerprint(digests), parameters, Published())
    job = Job(recipe, parameters.storage, parameters.sharding, planned.fingerprint, f"{destination}/_staging/x")
    stolen_s = _stolen_s()
    with measured_memory(arguments.grow > 0) as memory, connect(parameters.cluster, parameters.storage):
        receipts = []
        for receipt in process_shards(planned.shards, job, parameters.cluster, Published(), frozenset()):
            if receipt.failed:
                sys.exit(f"shard {receipt.shard_id} failed: {receipt.failed}")
            receipts.append(receipt)
        ended = time.time()
        stolen_s = _stolen_s() - stolen_s
    first = min(receipt.stages["decode"].started_at for receipt in receipts if "decode" in receipt.stages)
    stages: dict[str, float] = {}
    for receipt in receipts:
        for name, spent in receipt.stages.items():
            stages[name] = stages.get(name, 0.0) + spent.cpu_s * _share_after(first, spent)
    for name, spent_s in stages.items():
        print(f"  {name:45s} {spent_s:8.1f} CPU s")
    for name, size in memory.parts.most_common(12):
        print(f"  {name:60s} {size / 2**20:8.0f} MiB at the peak")
    return {
        "audio_s": sum(receipt.audio_s for receipt in receipts),
        "start_up_s": first - begun,
        "wall_s": ended - first,
        "cpu_s": sum(stages.values()),
        "stolen_s": stolen_s,
        "peak_bytes": float(memory.peak),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--minutes", type=float, default=1.0, help="audio per shard")
    parser.add_argument("--grow", type=int, default=0)
    parser.add_argument("--cpus", type=float, default=float(os.cpu_count() or 1))
    parser.add_argument("--whisper-window", choices=("full", "fitted"), default="full")
    parser.add_argument("--tts", action="store_true")
    arguments = parser.parse_args()
    for hours in [arguments.hours, *([arguments.hours * arguments.grow] if arguments.grow else [])]:
        with tempfile.TemporaryDirectory() as folder:
            sources = link_sources(arguments.data.resolve(), Path(folder) / "in", hours)
            with ProcessPoolExecutor(1, get_context("spawn")) as fresh:  # which starts as that of a nightly run does
                found = fresh.submit(run, sources, str(Path(folder) / "out"), arguments).result()
        ideal = found["cpu_s"] / arguments.cpus
        peak = f", peak {found['peak_bytes'] / 2**30:.2f} GiB" if arguments.grow else ""
        print(
            f"{found['audio_s'] / 3600:.2f} h of audio: start-up {found['start_up_s']:.1f} s, "
            f"wall {found['wall_s']:.1f} s, "
            f"stages' CPU / cores {ideal:.1f} s, ratio {found['wall_s'] / ideal:.3f}, "
            f"{found['audio_s'] / found['wall_s']:.1f} times real time{peak}, "
            f"{found['stolen_s']:.0f} CPU s taken away by the host"
        )


if __name__ == "__main__":
    main()
