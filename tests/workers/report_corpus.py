"""A published run made by hand: real speech with its references, hypotheses perturbed at known rates, real schemas.

Tests of quality and report read it as they would read a night's run, without the minutes a run takes.
"""

from __future__ import annotations

import io
import json
import random
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from schemas.config import AsrSettings, Layout, Recipe, Storage
from schemas.ids import stable_id
from schemas.manifest import ArchiveCounts, PublishedFile, RunManifest, WordErrors
from schemas.tables import TABLES, schema_of
from workers.quality.slices import quality_table
from workers.rows import audio_struct
from workers.sample import worst_ids
from workers.scoring import score_rows
from workers.storage import open_filesystem, put_bytes

ENGINES = ("whisper:large-v3", "conformer:/models/speech/english/2026/conformer-ctc-large-calls.nemo")
RECIPE = Recipe(asr=AsrSettings(transcribers=ENGINES, denoised="all"))
RATES = {(ENGINES[0], "raw"): 0.06, (ENGINES[0], "denoised"): 0.09, (ENGINES[1], "raw"): 0.10,
         (ENGINES[1], "denoised"): 0.10}  # fmt: skip
REJECTS = (
    ("notes.pdf", "not_audio", "application/pdf"),
    ("cut.wav", "undecodable", "no frames"),
    ("empty.wav", "empty_file", "zero bytes"),
)
HOSTILE = (
    "<script>window.hacked = 1</script> </script><img src=x onerror='window.hacked=2'>",
    "{{ 7 * 7 }} {% raw %} ]]> <!-- --> &amp; \"' `${1}`",
    "\u202eright to left override\u202c \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 \U0001f600 "
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "</style><style>body{display:none}</style><a href='javascript:alert(1)'>x</a>",
)


def _perturb(text: str, rate: float, pool: Sequence[str], rng: random.Random) -> str:
    """Delete, replace and insert words at ``rate`` errors per word, in the proportions 1 : 2 : 1."""
    words: list[str] = []
    for word in text.split():
        draw = rng.random()
        if draw < rate / 4:
            continue
        words.append(rng.choice(pool) if draw < 3 * rate / 4 else word)
        if draw > 1 - rate / 4:
            words.append(rng.choice(pool))
    return " ".join(words)


def clips(data: Path, digits: int = 60) -> list[dict[str, Any]]:
    """Referenced speech: archive, member, text, language, speaker, samples (float32 mono), rate and format."""
    found = []
    for metadata in sorted(data.glob("*/metadata.jsonl")):
        folder = metadata.parent
        taken = 0
        for line in metadata.read_text().splitlines():
            one = json.loads(line)
            if not one.get("text") or one.get("broken") or one["decoder"] != "soundfile" or one.get("raw"):
                continue
            if one.get("member"):
                if folder.name != "fsdd" or "test" not in one["audio"] or taken >= digits:
                    continue
                taken += 1
                source: Any = _member(folder / one["audio"], one["member"])
            else:
                source = folder / one["audio"]
            samples, rate = soundfile.read(source, dtype="float32", always_2d=True)
            found.append({
                "archive": f"/corpus/{folder.name}.tar", "member": one.get("member") or one["audio"],
                "text": one["text"], "language": one.get("language"), "speaker": one.get("speaker"),
                "samples": samples.mean(axis=1), "rate": rate, "format": one["format"],
            })  # fmt: skip
    return found


def _member(tar: Path, name: str) -> io.BytesIO:
    with tarfile.open(tar) as archive:
        file = archive.extractfile(name)
        if file is None:
            raise FileNotFoundError(f"{tar}: {name}")
        return io.BytesIO(file.read())


def rows_of(speech: Sequence[dict[str, Any]], seed: int = 0, rate: float = 1.0, references: bool = True,
            hostile: bool = False) -> dict[str, list[dict[str, Any]]]:  # fmt: skip
    """Rows of utterances, transcripts, audio and rejects, scored as the pipeline scores them.

    ``rate`` scales the error rates; every speaker (or recording) also has an ease of its own.
    """
    pool = sorted({word for clip in speech for word in clip["text"].split()})
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
    for at, clip in enumerate(speech):
        keys = {"archive": clip["archive"], "member": (HOSTILE[0] if hostile and at % 2 else "") + clip["member"]}
        keys["utterance_id"] = stable_id("utterance", keys["archive"], keys["member"])
        rng = random.Random(f"{seed}|{keys['utterance_id']}")
        ease = random.Random(f"{seed}|{clip['speaker'] or clip['member']}").gammavariate(2, 0.5)
        text = HOSTILE[at % len(HOSTILE)] if hostile and at < 2 * len(HOSTILE) else clip["text"]
        samples = clip["samples"]
        snr = float(rng.gauss(16, 7))
        looping = at % 41 == 40
        for (engine, heard), base in RATES.items():
            errors = (
                0.9 if hostile and at < 2 * len(HOSTILE) else min(0.9, base * rate * ease * (2 - min(snr, 30) / 20))
            )
            hypothesis = _perturb(text, errors, pool, rng)
            if looping and engine == ENGINES[0]:
                hypothesis = "thank you " * 40
            rows["transcripts"].append(keys | {
                "engine": engine, "input": heard, "text": hypothesis, "language": clip["language"],
                "avg_logprob": -0.15 - 2.5 * errors + rng.gauss(0, 0.05), "temperature": 0.0,
                "no_speech_prob": 0.02 if engine == ENGINES[0] else None,
                "compression_ratio": 6.0 if looping and engine == ENGINES[0] else 1.1 + 0.4 * rng.random(),
                "duration_s": len(samples) / clip["rate"], "model_digest": f"blake3:{stable_id(engine)}",
            })  # fmt: skip
        rows["utterances"].append(keys | {
            "member_key": stable_id("member", keys["member"]), "shard_id": stable_id(clip["archive"]), "channel": None,
            "start_s": 0.0, "end_s": len(samples) / clip["rate"], "duration_s": len(samples) / clip["rate"],
            "recording_s": len(samples) / clip["rate"], "format": clip["format"], "source_sample_rate": clip["rate"],
            "source_channels": 1, "language": clip["language"], "speaker": clip["speaker"],
            "reference": text if references else None, "reference_scope": "utterance" if references else None,
            "transcript": rows["transcripts"][-4]["text"], "transcript_engine": ENGINES[0], "transcript_input": "raw",
            "snr_db": snr, "snr_denoised_db": snr + abs(rng.gauss(8, 2)), "peak": float(np.abs(samples).max()),
            "rms_dbfs": -22.0, "clipped_ratio": float(np.mean(np.abs(samples) >= 0.999)), "speech_ratio": 0.8,
        })  # fmt: skip
        rows["audio"].append(keys | {
            "audio": audio_struct(samples, clip["rate"], keys["utterance_id"]), "sample_rate": clip["rate"],
            "duration_s": len(samples) / clip["rate"],
        })  # fmt: skip
    for name, reason, message in REJECTS:
        rows["rejects"].append({
            "archive": speech[0]["archive"], "member": name, "stage": "decode", "reason": reason,
            "message": f"{message} <script>window.hacked = 3</script>" if hostile else message,
        })  # fmt: skip
    score_rows(rows["utterances"], rows["transcripts"], RECIPE)
    raw = set(worst_ids(rows["utterances"], rows["transcripts"]))
    for row, clip in zip(rows["audio"], speech, strict=True):
        if row["utterance_id"] in raw:
            noise = np.random.default_rng(seed).normal(0, 0.02, len(clip["samples"]))
            row["raw"] = audio_struct(clip["samples"] + noise, clip["rate"], f"{row['utterance_id']}.raw")
    return rows


def publish(
    rows: dict[str, list[dict[str, Any]]], destination: str, run_id: str = "20260301T020000-aaaa"
) -> RunManifest:
    """Write the tables and the manifest of one run under ``destination``."""
    storage, layout, date = Storage(), Layout(destination=destination), "2026-03-01"
    tables = {name: pa.Table.from_pylist(rows[name], schema=schema_of(name)) for name in TABLES if name != "quality"}
    tables["quality"] = quality_table(tables["utterances"], tables["transcripts"])
    files = []
    for name, table in tables.items():
        if not table.num_rows:
            continue
        sink = io.BytesIO()
        pq.write_table(table, sink, compression="zstd")
        url = f"{layout.partition(name, date, run_id)}/part-00000.parquet"
        fs, path = open_filesystem(url, storage)
        put_bytes(fs, path, sink.getvalue())
        files.append(PublishedFile(table=name, path=url.removeprefix(f"{destination}/"), rows=table.num_rows,
                                   bytes=len(sink.getvalue())))  # fmt: skip
    manifest = _manifest(rows, tables["quality"], files, run_id, date)
    fs, path = open_filesystem(layout.manifest(run_id), storage)
    put_bytes(fs, path, manifest.model_dump_json().encode())
    return manifest


def _manifest(
    rows: dict[str, list[dict[str, Any]]], quality: pa.Table, files: list[PublishedFile], run_id: str, date: str
) -> RunManifest:
    utterances, rejects = rows["utterances"], rows["rejects"]
    hours = sum(row["duration_s"] for row in utterances) / 3600
    reasons: dict[str, int] = {}
    for row in rejects:
        reasons[row["reason"]] = reasons.get(row["reason"], 0) + 1
    archives = []
    for uri in sorted({row["archive"] for row in utterances}):
        mine = [row for row in utterances if row["archive"] == uri]
        refused = sum(row["archive"] == uri for row in rejects)
        archives.append(ArchiveCounts(
            uri=uri, id=stable_id(uri), layout="tar", whole=True, members_in=len(mine) + refused,
            members_published=len(mine), members_rejected=refused, utterances=len(mine),
            hours=sum(row["duration_s"] for row in mine) / 3600,
        ))  # fmt: skip
    errors = [
        WordErrors(engine=row["engine"], input=row["input"], utterances=row["utterances"], words=row["words"],
                   errors=row["substitutions"] + row["deletions"] + row["insertions"], wer=row["wer"],
                   wer_low=row["wer_low"], wer_high=row["wer_high"], block_kind=row["block_kind"])
        for row in quality.to_pylist() if row["slice"] == "all"
    ]  # fmt: skip
    return RunManifest(
        run_id=run_id, run_date=date, status="published", fingerprint="f" * 16,
        parameters={"sources": [one.uri for one in archives], "recipe": RECIPE.model_dump(mode="json")},
        started_at=f"{date}T02:00:00+00:00", finished_at=f"{date}T02:10:00+00:00",
        members_in=len(utterances) + len(rejects), members_published=len(utterances), members_rejected=len(rejects),
        utterances=len(utterances), hours=hours, wall_s=600.0, real_time_factor=hours * 6, archives=archives,
        reject_reasons=reasons, word_errors=errors,
        stages={"decode": {"wall_s": 12.0, "cpu_s": 11.0}, "denoise": {"wall_s": 48.0, "cpu_s": 47.0},
                "features": {"wall_s": 9.0, "cpu_s": 8.0}, ENGINES[0]: {"wall_s": 430.0, "cpu_s": 700.0},
                ENGINES[1]: {"wall_s": 160.0, "cpu_s": 250.0}, "write": {"wall_s": 8.0, "cpu_s": 7.0}},
        files=files, digests={engine: f"blake3:{stable_id(engine)}" for engine in ENGINES},
        versions={"voxmill": "0.1.0", "jiwer": "4.0.0"},
    )  # fmt: skip
