"""Differences judged by paired bootstrap: engines, raw and denoised input, this run and the one before."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from workers.quality.bins import BINS
from workers.quality.bootstrap import Interval, paired_intervals
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

    def reversed(self) -> Comparison:
        """The same seen from the other side."""
        low, high = (None if end is None else -end for end in (self.difference.high, self.difference.low))
        difference = Interval(-self.difference.value, low, high, self.difference.blocks)
        return replace(
            self, first=self.other, other=self.first, first_wer=self.other_wer, other_wer=self.first_wer,
            difference=difference,
        )  # fmt: skip


def _compare(first: str, other: str, group: np.ndarray, columns: np.ndarray, speaker: np.ndarray,
             recording: np.ndarray) -> dict[int, Comparison]:  # fmt: skip
    """Comparisons of the groups (codes 0..g-1, (n,)) in which both sides have words, by group.

    ``columns`` (n, 4): errors and words of first, then of other.
    """
    if not len(columns):
        return {}
    blocks, utterances = blocks_of(group, speaker, recording, columns), np.bincount(group)
    sums = {g: blocks.of(g) for g in range(len(utterances))}
    total = {g: one.sum(axis=0) for g, one in sums.items()}
    usable = [g for g in sums if total[g][1] and total[g][3]]
    differences = paired_intervals([sums[g] for g in usable])
    return {
        g: Comparison(
            first, other, float(total[g][0] / total[g][1]), float(total[g][2] / total[g][3]), difference,
            int(utterances[g]), blocks.kinds[g],
        )
        for g, difference in zip(usable, differences, strict=True)
    }  # fmt: skip


def _pair(rows: Scored, first: np.ndarray, other: np.ndarray, names: tuple[str, str]) -> Comparison | None:
    """Compare two masks of ``rows`` over the utterances that are in both."""
    a, b = np.flatnonzero(first), np.flatnonzero(other)
    _, at, bt = np.intersect1d(rows.utterance[a], rows.utterance[b], return_indices=True)
    a, b = a[at], b[bt]
    columns = np.column_stack([rows.errors[a], rows.words[a], rows.errors[b], rows.words[b]])
    return _compare(*names, np.zeros(len(a), dtype=np.int64), columns, rows.speaker[a], rows.recording[a]).get(0)


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


@dataclass(frozen=True)
class TwoRuns:
    """The chosen transcripts of two runs in one set of rows; ``later`` (n,) marks those of the later run.

    Runs need not hold the same utterances: they are paired by speaker (or recording), and a block that one of them
    lacks counts nothing there.
    """

    rows: Scored
    later: np.ndarray

    def change(self) -> Comparison | None:
        """The later run against the earlier one; None where one of them has no reference."""
        return self._compare(np.zeros(len(self.later), dtype=np.int64)).get(0)

    def by_slice(self, name: str) -> list[tuple[str, Comparison]]:
        """The same within every value of a slice that both runs have, in the slice's own order."""
        values = self.rows.slices[name]
        codes, group = np.unique(values.codes, return_inverse=True)
        return [(values.names[codes[g]], one) for g, one in self._compare(group).items()]

    def _compare(self, group: np.ndarray) -> dict[int, Comparison]:
        rows, mine = self.rows, self.later
        columns = np.column_stack([rows.errors * mine, rows.words * mine, rows.errors * ~mine, rows.words * ~mine])
        return _compare("this run", "the run before", group, columns, rows.speaker, rows.recording)


def two_runs(now: tuple[pa.Table, pa.Table], before: tuple[pa.Table, pa.Table]) -> TwoRuns:
    """Two runs (utterances, transcripts) side by side."""

    def renamed(tables: tuple[pa.Table, pa.Table], prefix: str) -> tuple[pa.Table, pa.Table]:
        def rename(table: pa.Table, columns: tuple[str, ...]) -> pa.Table:
            table = table.select(columns)
            ids = pc.binary_join_element_wise(pa.scalar(prefix), table["utterance_id"], pa.scalar(""))
            return table.set_column(0, "utterance_id", ids)

        return rename(tables[0], UTTERANCE_COLUMNS), rename(tables[1], TRANSCRIPT_COLUMNS)

    first, other = renamed(now, "a"), renamed(before, "b")
    rows = scored(pa.concat_tables([first[0], other[0]]), pa.concat_tables([first[1], other[1]]))
    rows = rows.take(rows.chosen)
    return TwoRuns(rows, rows.utterance < first[0].num_rows)
