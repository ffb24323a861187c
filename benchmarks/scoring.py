"""Scoring, quality table and report of many synthetic utterances: seconds, peak memory, and how both grow.

    python -m benchmarks.scoring --utterances 100000 --processes 2

Texts are drawn from a vocabulary of English words; hypotheses err at known rates. What matters: seconds and peak memory
at a million utterances (at most 300 s and 4 GB on two cores), and the ratio of seconds between sizes. Scoring is spread
over the processes, quality table and report are not.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.config import Layout, Storage
from schemas.manifest import PublishedFile, RunManifest
from schemas.tables import schema_of
from workers.quality.score import score_many
from workers.quality.slices import quality_table
from workers.report import write_report
from workers.report.data import Reader

CHUNK = 20_000  # utterances scored per task: a shard's worth and more, so that overhead does not show
ENGINES = ("whisper:large-v3", "conformer:stt_en_conformer_ctc_large")
RATES = {ENGINES[0]: 0.06, ENGINES[1]: 0.09}
WORDS_PER_SPEAKER = 1000


def vocabulary() -> list[str]:
    """The words of this project's own documentation: English, with numbers and contractions among them."""
    text = " ".join(path.read_text() for path in sorted(Path(__file__).parents[1].glob("[a-z]*/**/*.py"))[:80])
    return (
        sorted({word for word in text.split() if word.isalpha() and len(word) < 14}) + ["twenty", "don't", "it's"] * 20
    )


def texts(start: int, count: int, pool: list[str]) -> tuple[list[str], dict[str, list[str]]]:
    """References of 4 to 20 words and what each engine heard."""
    rng = random.Random(start)
    references = [" ".join(rng.choices(pool, k=rng.randint(4, 20))) for _ in range(count)]
    heard: dict[str, list[str]] = {}
    for engine, rate in RATES.items():
        heard[engine] = []
        for reference in references:
            words = reference.split()
            if rng.random() < 0.5:  # half of what is heard is right, as in a real corpus
                words = [rng.choice(pool) if rng.random() < 2 * rate else word for word in words]
            heard[engine].append(" ".join(words))
    return references, heard


def shard(task: tuple[int, int, str, list[str]]) -> dict[str, Any]:
    """Score one chunk and write its rows; returns seconds spent scoring and what was written."""
    start, count, destination, pool = task
    references, heard = texts(start, count, pool)
    began = time.process_time()
    scores = {engine: score_many(references, heard[engine], "en") for engine in ENGINES}
    agreement = score_many(heard[ENGINES[0]], heard[ENGINES[1]], "en")
    scoring = time.process_time() - began
    rng = np.random.default_rng(start)
    ids = [f"{start + at:020x}" for at in range(count)]
    keys = {"utterance_id": ids, "archive": [f"s3://corpus/{start // 100_000}.tar"] * count,
            "member": [f"{one}.wav" for one in ids]}  # fmt: skip
    duration = rng.gamma(4, 1.2, count)
    tables: dict[str, list[dict[str, Any]]] = {"transcripts": []}
    utterances = keys | {
        "start_s": np.zeros(count), "end_s": duration, "duration_s": duration, "recording_s": duration,
        "format": ["FLAC/PCM_16"] * count, "language": ["en"] * count,
        "speaker": [f"speaker-{one}" for one in rng.integers(0, max(5, start // WORDS_PER_SPEAKER + 20), count)],
        "reference": references, "transcript": heard[ENGINES[0]], "transcript_engine": [ENGINES[0]] * count,
        "transcript_input": ["raw"] * count, "wer": [one.wer for one in scores[ENGINES[0]]],
        "agreement_wer": [one.wer for one in agreement], "snr_db": rng.normal(18, 7, count),
        "snr_denoised_db": rng.normal(26, 6, count), "flags": [[]] * count,
    }  # fmt: skip
    pieces = []
    for engine, mine in scores.items():
        columns = {name: [getattr(one, name) for one in mine] for name in (
            "hits", "substitutions", "deletions", "insertions", "wer", "cer", "reference_chars", "char_errors",
            "normalized_reference")}  # fmt: skip
        pieces.append(_table("transcripts", keys | columns | {
            "engine": [engine] * count, "input": ["raw"] * count, "text": heard[engine],
            "normalized_text": [one.normalized_hypothesis for one in mine], "duration_s": duration,
            "avg_logprob": rng.normal(-0.3, 0.1, count), "compression_ratio": rng.normal(1.3, 0.1, count),
        }))  # fmt: skip
    tables = {"utterances": _table("utterances", utterances), "transcripts": pa.concat_tables(pieces)}
    files = []
    for name, table in tables.items():
        path = f"{Layout(destination='').partition(name, '2026-03-01', 'bench').lstrip('/')}/part-{start:09d}.parquet"
        url = Path(destination) / path
        url.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, url, compression="zstd")
        files.append(PublishedFile(table=name, path=path, rows=table.num_rows, bytes=url.stat().st_size).model_dump())
    return {"scoring_s": scoring, "files": files}


def _table(name: str, columns: dict[str, Any]) -> pa.Table:
    schema = schema_of(name)
    rows = len(columns["utterance_id"])
    arrays = [
        pa.array(columns[field.name], from_pandas=True).cast(field.type) if field.name in columns
        else pa.nulls(rows, field.type)
        for field in schema
    ]  # fmt: skip
    return pa.table(arrays, schema=schema)


def manifest_of(files: list[PublishedFile], utterances: int) -> RunManifest:
    """A manifest that names the files; what the report does not compute from is left at zero."""
    return RunManifest(
        run_id="bench", run_date="2026-03-01", status="published", fingerprint="0" * 16, parameters={}, started_at="",
        finished_at="", members_in=utterances, members_published=utterances, members_rejected=0, utterances=utterances,
        hours=utterances * 4.8 / 3600, wall_s=1.0, real_time_factor=1.0, archives=[], reject_reasons={},
        word_errors=[], stages={}, files=files, digests={}, versions={},
    )  # fmt: skip


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """The result of ``call`` and the CPU seconds it took, which other work on the machine hardly changes."""
    began = time.process_time()
    return call(), time.process_time() - began


def measure(utterances: int, processes: int) -> dict[str, float]:
    """CPU seconds per step and peak memory of one process, MB, for one size."""
    pool = vocabulary()
    with tempfile.TemporaryDirectory() as destination:
        tasks = [(at, min(CHUNK, utterances - at), destination, pool) for at in range(0, utterances, CHUNK)]
        with multiprocessing.get_context("spawn").Pool(processes) as workers:
            done = workers.map(shard, tasks, chunksize=1)
        files = [PublishedFile(**file) for one in done for file in one["files"]]
        manifest, storage = manifest_of(files, utterances), Storage()
        reader = Reader(manifest, destination, storage)
        table, quality_s = timed(lambda: quality_table(reader.utterances(), reader.transcripts()))
        path = Path(destination) / "quality.parquet"
        pq.write_table(table, path)
        files.append(PublishedFile(table="quality", path=path.name, rows=table.num_rows, bytes=path.stat().st_size))
        _, report_s = timed(lambda: write_report(manifest_of(files, utterances), destination, storage))
    scoring_s = sum(one["scoring_s"] for one in done)
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024
    return {
        "utterances": utterances, "scored_pairs": 3 * utterances, "scoring_s": round(scoring_s, 1),
        "us_per_pair": round(1e6 * scoring_s / (3 * utterances), 1), "quality_s": round(quality_s, 1),
        "report_s": round(report_s, 1),
        "on_these_cores_s": round(scoring_s / processes + quality_s + report_s, 1), "peak_mb": round(peak),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", type=int, nargs="+", default=[20_000, 200_000])
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    for utterances in given.utterances:
        print(json.dumps(measure(utterances, given.processes)), flush=True)


if __name__ == "__main__":
    main()
