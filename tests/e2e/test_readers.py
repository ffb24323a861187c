"""Every published table, read by the tools that people have: DuckDB, Polars, pandas and Hugging Face ``datasets``."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
import soundfile

from infra.demo.corpus import SOURCES
from infra.ffmpeg import link_libraries
from schemas.tables import BLOB_TABLES, TABLES, schema_of
from tests.e2e.readme import recipes
from tests.e2e.runs import Lake, Mill

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def lake(full_mill: Mill, demo_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """One run over the demo corpus with both engines and a voice: every table has rows."""
    destination = tmp_path_factory.mktemp("readers") / "lake"
    manifest = full_mill.run([demo_corpus / name for name in SOURCES], destination, tts="espeak:en-us")
    assert manifest is not None
    assert manifest.members_in == manifest.members_published + manifest.members_rejected
    assert {"undecodable", "empty_file", "not_audio"} <= set(manifest.reject_reasons)
    return Lake(str(destination))


@pytest.mark.parametrize("table", TABLES)
def test_every_reader_sees_the_same_rows(lake: Lake, table: str) -> None:
    files = lake.files(table)
    rows = sum(file["rows"] for file in lake.manifests()[-1]["files"] if file["table"] == table)
    names = schema_of(table).names
    assert rows > 0
    for file in files:
        stored = pq.ParquetFile(file).schema_arrow
        assert stored.equals(schema_of(table), check_metadata=True)
        assert all(field.metadata[b"description"] for field in stored)

    relation = duckdb.read_parquet(files, hive_partitioning=True)
    assert relation.columns == [*names, "run_date", "run_id"]
    assert len(relation.fetchall()) == rows

    by_polars = pl.scan_parquet(f"{lake.url}/{table}", hive_partitioning=True).collect()
    assert by_polars.columns == [*names, "run_date", "run_id"]
    assert by_polars.height == rows

    by_pandas = pd.read_parquet(f"{lake.url}/{table}")
    assert list(by_pandas.columns) == [*names, "run_date", "run_id"]
    assert len(by_pandas) == rows


def test_features_are_frames_by_bands(lake: Lake) -> None:
    files = lake.files("features")
    wrong = duckdb.execute(
        f"SELECT count(*) FROM read_parquet({files!r}) "
        "WHERE len(mel) <> frames OR list_min(list_transform(mel, lambda frame: len(frame))) <> n_mels"
    ).fetchone()
    assert wrong == (0,)
    shapes = pl.read_parquet(files).select(
        (pl.col("mel").list.len() == pl.col("frames")).all().alias("frames"),
        (pl.col("mel").list.first().list.len() == pl.col("n_mels")).all().alias("bands"),
    )
    assert shapes.row(0) == (True, True)


def test_tables_meet_on_the_utterance(lake: Lake) -> None:
    query = f"""
        SELECT count(*), count(a.audio), count(f.mel), min(t.heard)
        FROM read_parquet({lake.files("utterances")!r}) u
        JOIN read_parquet({lake.files("audio")!r}) a USING (utterance_id)
        JOIN read_parquet({lake.files("features")!r}) f USING (utterance_id)
        JOIN (SELECT utterance_id, count(DISTINCT engine) AS heard
              FROM read_parquet({lake.files("transcripts")!r}) GROUP BY utterance_id) t USING (utterance_id)
    """
    utterances = len(lake.rows("utterances"))
    assert duckdb.execute(query).fetchone() == (utterances, utterances, utterances, 2)


def test_raw_audio_is_there_of_the_worst_utterances(lake: Lake) -> None:
    worst = max((row for row in lake.rows("utterances") if row["wer"]), key=lambda row: row["wer"], default=None)
    kept = {row["utterance_id"]: row for row in lake.rows("audio") if row["raw"]}
    assert worst is None or worst["wer"] > 0
    assert bool(kept) == (worst is not None)
    for row in kept.values():
        raw, denoised = (soundfile.read(io.BytesIO(row[name]["bytes"]))[0] for name in ("raw", "audio"))
        assert raw.shape == denoised.shape
        assert abs(raw - denoised).max() > 0


def test_readme_recipes_read_the_lake(lake: Lake) -> None:
    by_sql, by_slice = recipes("sql", lake.url)
    database = duckdb.connect()
    archives = database.execute(by_sql).fetchall()
    assert [(row[0], row[1]) for row in archives] == sorted(
        Counter(row["archive"] for row in lake.rows("utterances")).items()
    )
    quality = lake.rows("quality")
    chosen = [row for row in quality if row["engine"] == "chosen"]
    answers = [database.execute(one).fetchall() for one in duckdb.extract_statements(by_slice)][2:]
    engines, inputs, archives, languages, _, durations, _, formats, rates = answers
    assert (
        {row[0] for row in engines} == {row[0] for row in inputs} == {*(row["engine"] for row in quality)} - {"chosen"}
    )
    for found_rows, name in zip((archives, languages, formats), ("archive", "language", "format"), strict=True):
        assert {row[0] for row in found_rows} == {row["value"] for row in chosen if row["slice"] == name}
    for found_rows, name in zip((durations, rates), ("duration", "speaking_rate"), strict=True):  # in the bins' order
        assert [row[0] for row in found_rows] == [row["value"] for row in chosen if row["slice"] == name]
    found: dict[str, Any] = {}
    with_torchcodec = "load_dataset"  # run in a process of its own, below
    for recipe in recipes("python", lake.url):
        if with_torchcodec not in recipe:
            exec(recipe, found)
    assert found["files"]("audio") == lake.files("audio")
    assert len(found["slow"]) == sum((row["wer"] or 0) > 0.3 for row in lake.rows("utterances"))
    assert len(found["quality"]) == len(lake.rows("quality"))


# Runs apart from the tests: the loader reads LD_LIBRARY_PATH only when a process starts.
READ_DATASETS = """
import json, sys
from datasets import Audio, load_dataset

files, cache = json.loads(sys.argv[1]), sys.argv[2]
found = {}
for table, paths in files.items():
    data = load_dataset("parquet", data_files=paths, split="train", cache_dir=cache)
    found[table] = {"rows": data.num_rows, "columns": data.column_names, "audio": []}
    if "audio" in data.column_names:
        assert isinstance(data.features["audio"], Audio), data.features
        for row in data:
            samples = row["audio"].get_all_samples()
            assert samples.sample_rate == row["sample_rate"]
            peak = float(samples.data.abs().max())
            found[table]["audio"].append([row["utterance_id"], list(samples.data.shape), peak])
print(json.dumps(found))
"""


def test_hugging_face_datasets_decodes_the_audio(lake: Lake, tmp_path: Path) -> None:
    files = {table: lake.files(table) for table in TABLES}
    environment = {**os.environ, "LD_LIBRARY_PATH": link_libraries(tmp_path / "ffmpeg")}
    done = subprocess.run(
        [sys.executable, "-c", READ_DATASETS, json.dumps(files), str(tmp_path / "cache")],
        capture_output=True, text=True, env=environment, cwd=ROOT, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for table in TABLES:
        rows = lake.rows(table)
        assert found[table]["rows"] == len(rows)
        assert found[table]["columns"] == schema_of(table).names
        if "audio" in schema_of(table).names:
            assert table in BLOB_TABLES
            decoded = []
            for row in rows:
                samples, _ = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32")
                assert len(samples) == round(row["duration_s"] * row["sample_rate"])
                decoded.append([row["utterance_id"], [1, len(samples)], pytest.approx(abs(samples).max(), abs=1e-4)])
            assert found[table]["audio"] == decoded
