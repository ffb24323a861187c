"""Differences judged by paired bootstrap: engines, raw and denoised input, this run and the one before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from workers.quality.bins import BINS
from workers.quality.bootstrap import Interval, paired_interval
from workers.quality.scored import TRANSCRIPT_COLUMNS, UTTERANCE_COLUMNS, Scored, scored
from workers.quality.slices import blocks_of


@dataclass(frozen=True)
class Comparison:
    """WER of ``first`` minus WER of ``other``, with its 95% interval, over ``utterances`` that both were scored on."""

    first: str
    other: str
    first_wer: float
    other_wer: float
    difference: Interval
    utterances: int
    block_kind: str

    @property
    def shown(self) -> str:
        """``higher`` or ``lower`` where the interval excludes zero, ``none`` where it does not, else ``unknown``."""
        if self.difference.low is None or self.difference.high is None:
            return "unknown"
        if self.difference.low > 0:
            return "higher"
        return "lower" if self.difference.high < 0 else "none"


def _compare(first: str, other: str, columns: np.ndarray, speaker: np.ndarray, recording: np.ndarray,
             utterances: int) -> Comparison | None:  # fmt: skip
    """``columns`` (n, 4): errors and words of first, then of other."""
    total = columns.sum(axis=0)
    if not len(columns) or not total[1] or not total[3]:
        return None
    blocks = blocks_of(np.zeros(len(columns), dtype=np.int64), speaker, recording, columns)
    return Comparison(
        first, other, float(total[0] / total[1]), float(total[2] / total[3]), paired_interval(*blocks.sums.T),
        utterances, blocks.kinds[0],
    )  # fmt: skip


def _pair(rows: Scored, first: np.ndarray, other: np.ndarray, names: tuple[str, str]) -> Comparison | None:
    """Compare two masks of ``rows`` over the utterances that are in both."""
    a, b = np.flatnonzero(first), np.flatnonzero(other)
    _, at, bt = np.intersect1d(rows.utterance[a], rows.utterance[b], return_indices=True)
    a, b = a[at], b[bt]
    columns = np.column_stack([rows.errors[a], rows.words[a], rows.errors[b], rows.words[b]])
    return _compare(*names, columns, rows.speaker[a], rows.recording[a], len(a))


def _is(rows: Scored, engine: str | None, heard: str) -> np.ndarray:
    mask = rows.input.codes == rows.input.names.index(heard)
    return mask if engine is None else mask & (rows.engine.codes == rows.engine.names.index(engine))


def engines(rows: Scored, names: list[str]) -> list[Comparison]:
    """Each later engine of ``names`` against the first, on raw audio."""
    if "raw" not in rows.input.names:
        return []
    known = [name for name in names if name in rows.engine.names]
    found = [_pair(rows, _is(rows, name, "raw"), _is(rows, known[0], "raw"), (name, known[0])) for name in known[1:]]
    return [one for one in found if one]


def denoising(rows: Scored) -> dict[str, list[tuple[str, Comparison]]]:
    """Denoised minus raw per engine: over all, then per SNR bin: engine -> [(``all`` or bin, comparison)]."""
    if not {"raw", "denoised"} <= set(rows.input.names):
        return {}
    found: dict[str, list[tuple[str, Comparison]]] = {}
    snr = rows.slices["snr"]
    everything = np.ones(len(rows.wer), dtype=bool)
    parts = [("all", everything), *((label, snr.codes == at) for at, label in enumerate(BINS["snr"].labels))]
    for engine in rows.engine.names:
        denoised, raw = _is(rows, engine, "denoised"), _is(rows, engine, "raw")
        for label, part in parts:
            one = _pair(rows, denoised & part, raw & part, ("denoised", "raw"))
            if one:
                found.setdefault(engine, []).append((label, one))
    return found


def runs(now: tuple[pa.Table, pa.Table], before: tuple[pa.Table, pa.Table]) -> Comparison | None:
    """Chosen transcripts of two runs (utterances, transcripts), paired by speaker (or recording).

    Runs need not hold the same utterances: a block that one of them lacks counts nothing there.
    """

    def renamed(tables: tuple[pa.Table, pa.Table], prefix: str) -> tuple[pa.Table, pa.Table]:
        def rename(table: pa.Table, columns: tuple[str, ...]) -> pa.Table:
            table = table.select(columns)
            ids = pc.binary_join_element_wise(pa.scalar(prefix), table["utterance_id"], pa.scalar(""))
            return table.set_column(0, "utterance_id", ids)

        return rename(tables[0], UTTERANCE_COLUMNS), rename(tables[1], TRANSCRIPT_COLUMNS)

    first, other = renamed(now, "a"), renamed(before, "b")
    rows = scored(pa.concat_tables([first[0], other[0]]), pa.concat_tables([first[1], other[1]]))
    rows = rows.take(rows.chosen)
    mine = rows.utterance < first[0].num_rows
    columns = np.column_stack([rows.errors * mine, rows.words * mine, rows.errors * ~mine, rows.words * ~mine])
    return _compare("this run", "the run before", columns, rows.speaker, rows.recording, len(rows.wer))
