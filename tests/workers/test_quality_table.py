"""The quality table against plain sums over the rows it is made from. CPU: about 4 s."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from schemas.tables import schema_of
from tests.workers import report_corpus
from workers.quality.bins import BINS
from workers.quality.bootstrap import wer_interval
from workers.quality.slices import quality_table

Tables = tuple[pa.Table, pa.Table]


@pytest.fixture(scope="module")
def tables(shared_data: Path) -> Tables:
    rows = report_corpus.rows_of(report_corpus.clips(shared_data, digits=30))
    for row in rows["utterances"][:7]:  # neither speaker, language nor SNR known
        row["speaker"] = row["language"] = row["snr_db"] = None
    return tuple(pa.Table.from_pylist(rows[name], schema=schema_of(name)) for name in ("utterances", "transcripts"))


@pytest.fixture(scope="module")
def quality(tables: Tables) -> list[dict[str, Any]]:
    table = quality_table(*tables)
    assert table.schema.equals(schema_of("quality"), check_metadata=True)
    return table.to_pylist()


def test_every_slice_adds_up(tables: Tables, quality: list[dict[str, Any]]) -> None:
    utterances, transcripts = tables
    expressions = {"all": "'all'", "archive": "archive", "language": "coalesce(language, 'unknown')",
                   "speaker": "coalesce(speaker, 'unknown')", "format": "format"}  # fmt: skip
    database = duckdb.connect()
    database.register("u", utterances)
    database.register("t", transcripts.drop_columns(["archive", "member", "duration_s", "language"]).rename_columns(
        [f"t_{name}" if name == "wer" else name for name in transcripts.drop_columns(
            ["archive", "member", "duration_s", "language"]).schema.names]))  # fmt: skip
    for name, expression in expressions.items():
        for engine, where in (
            ("engine", "true"),
            ("'chosen'", "engine = transcript_engine AND input = transcript_input"),
        ):
            expected = database.sql(f"""
                SELECT {expression} AS value, {engine} AS engine, input, count(*) AS utterances, sum(hits) AS hits,
                    sum(substitutions) AS substitutions, sum(deletions) AS deletions,
                    sum(insertions) AS insertions,
                    sum(duration_s) / 3600 AS hours, avg(t_wer) AS mean,
                    sum(char_errors)::DOUBLE / sum(reference_chars) AS cer
                FROM t JOIN u USING (utterance_id) WHERE {where} GROUP BY ALL""")
            expected = expected.to_arrow_table().to_pylist()
            chosen = engine != "engine"
            found = {
                (row["value"], row["engine"], row["input"]): row
                for row in quality
                if row["slice"] == name and (row["engine"] == "chosen") == chosen
            }
            assert len(found) == len(expected)
            for want in expected:
                row = found[want["value"], want["engine"], want["input"]]
                for key in ("utterances", "hits", "substitutions", "deletions", "insertions"):
                    assert row[key] == int(want[key]), (name, key, want)
                words = int(want["hits"] + want["substitutions"] + want["deletions"])
                errors = int(want["substitutions"] + want["deletions"] + want["insertions"])
                assert row["words"] == words
                assert row["wer"] == pytest.approx(errors / words)
                assert row["mean_utterance_wer"] == pytest.approx(want["mean"])
                assert row["cer"] == pytest.approx(want["cer"])
                assert row["hours"] == pytest.approx(want["hours"])


def test_bins_cover_everything_once(tables: Tables, quality: list[dict[str, Any]]) -> None:
    for name, bins in BINS.items():
        rows = [row for row in quality if row["slice"] == name and row["engine"] == "chosen"]
        assert sum(row["utterances"] for row in rows) == tables[0].num_rows
        assert [row["value"] for row in rows] == [one for one in bins.labels if one in {row["value"] for row in rows}]
    snr = {row["value"]: row["utterances"] for row in quality if row["slice"] == "snr" and row["engine"] == "chosen"}
    values = tables[0]["snr_db"].to_pylist()
    assert snr["not measured"] == 7
    assert snr["5 to 10 dB"] == sum(one is not None and 5 <= one < 10 for one in values)


def test_blocks_are_speakers_where_they_are_known(tables: Tables, quality: list[dict[str, Any]]) -> None:
    utterances, transcripts = tables
    overall = next(row for row in quality if row["slice"] == "all" and row["engine"] == "chosen")
    assert overall["block_kind"] == "mixed"
    blocks: dict[str, list[int]] = {}
    chosen = {
        row["utterance_id"]: row
        for row in transcripts.to_pylist()
        if row["engine"] == report_corpus.ENGINES[0] and row["input"] == "raw"
    }
    for row in utterances.to_pylist():
        mine = chosen[row["utterance_id"]]
        words = mine["hits"] + mine["substitutions"] + mine["deletions"]
        block = blocks.setdefault(row["speaker"] or f"{row['archive']}/{row['member']}", [0, 0])
        block[0] += mine["substitutions"] + mine["deletions"] + mine["insertions"]
        block[1] += words
    assert overall["blocks"] == len(blocks)
    columns = np.array(list(blocks.values()))
    rough = wer_interval(columns[:, 0], columns[:, 1])  # in another order of blocks: other draws, nearly the same ends
    assert overall["wer_low"] == pytest.approx(rough.low, abs=0.25 * (rough.high - rough.low))  # type: ignore[operator]
    one_speaker = [row for row in quality if row["slice"] == "speaker" and row["value"] == "LJ"]
    assert {row["block_kind"] for row in one_speaker} == {"recording"}


def test_rows_in_any_order_give_the_same_table(tables: Tables, quality: list[dict[str, Any]]) -> None:
    rng = np.random.default_rng(0)
    shuffled = [table.take(rng.permutation(table.num_rows)) for table in tables]
    again = quality_table(*shuffled).to_pylist()
    for row, other in zip(quality, again, strict=True):
        for key, value in row.items():
            assert other[key] == (pytest.approx(value) if isinstance(value, float) else value), key


def test_chosen_transcripts_of_both_inputs_are_one_corpus(tables: Tables, quality: list[dict[str, Any]]) -> None:
    utterances, transcripts = tables
    at, half = utterances.schema.get_field_index("transcript_input"), utterances.num_rows // 2
    inputs = pa.array(["denoised"] * half + ["raw"] * (utterances.num_rows - half))
    mixed = quality_table(utterances.set_column(at, "transcript_input", inputs), transcripts).to_pylist()
    [overall] = [row for row in mixed if row["slice"] == "all" and row["engine"] == "chosen"]
    assert (overall["input"], overall["utterances"]) == ("mixed", utterances.num_rows)
    assert [row for row in mixed if row["engine"] != "chosen"] == [row for row in quality if row["engine"] != "chosen"]


def test_without_references_there_is_no_row(tables: Tables) -> None:
    empty = pa.nulls(tables[1].num_rows, pa.int64())
    at = tables[1].schema.get_field_index("hits")
    assert quality_table(tables[0], tables[1].set_column(at, "hits", empty)).num_rows == 0


def test_insertions_on_silence_are_counted(tables: Tables) -> None:
    utterances, transcripts = (table.slice(0, 0).to_pylist() for table in tables)
    for at, (hits, insertions) in enumerate([(8, 0), (0, 2)]):
        keys = {"utterance_id": str(at), "archive": "a", "member": str(at)}
        utterances.append(keys | {"duration_s": 1.0, "transcript_engine": "e", "transcript_input": "raw"})
        counts = {"hits": hits, "substitutions": 0, "deletions": 0, "insertions": insertions}
        rate = {"wer": 0.0, "cer": 0.0} if hits else {}
        transcripts.append(keys | {"engine": "e", "input": "raw", "reference_chars": 30 if hits else 0,
                                   "char_errors": 9 * bool(insertions)} | counts | rate)  # fmt: skip
    table = quality_table(
        pa.Table.from_pylist(utterances, schema_of("utterances")),
        pa.Table.from_pylist(transcripts, schema_of("transcripts")),
    )
    row = table.to_pylist()[0]
    assert (row["wer"], row["mean_utterance_wer"], row["cer"]) == (0.25, 0.0, 0.3)
    assert (row["empty_references"], row["empty_hypotheses"], row["small"]) == (1, 0, True)
