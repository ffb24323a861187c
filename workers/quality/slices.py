"""The ``quality`` table: pooled errors with intervals for every slice of the corpus, engine and input.

Rows are brought down to sums per slice and block by sorting integer codes; intervals are drawn from those sums. The
cost is linear in the rows, up to the sort.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from schemas.tables import schema_of
from workers.quality.bins import SLICES, value_order
from workers.quality.bootstrap import MIN_BLOCKS, wer_intervals
from workers.quality.score import scorer
from workers.quality.scored import COUNTS, Coded, Scored, scored

CHOSEN = "chosen"
MIXED = "mixed"  # input of the chosen transcripts where some are heard from raw audio and some from denoised
SMALL_WORDS, SMALL_BLOCKS = 200, MIN_BLOCKS  # of 200 words one is half a point; without blocks, no interval


@dataclass(frozen=True)
class Blocks:
    """Sums over blocks, sorted by group: ``group`` (b,), ``sums`` (b, k); ``starts`` and ``kinds`` per group."""

    group: np.ndarray
    sums: np.ndarray
    starts: np.ndarray
    kinds: list[str]

    def of(self, group: int) -> np.ndarray:
        """The (blocks, k) sums of one group."""
        end = self.starts[group + 1] if group + 1 < len(self.starts) else len(self.group)
        return self.sums[self.starts[group] : end]


def blocks_of(group: np.ndarray, speaker: np.ndarray, recording: np.ndarray, columns: np.ndarray) -> Blocks:
    """Sum ``columns`` (n, k) over the independent blocks of each group (codes 0..g-1, none of them empty).

    Blocks are speakers where a group has enough of them for an interval (MIN_BLOCKS), and the recordings of those of
    unknown speaker. With fewer speakers blocks are recordings: the interval then holds for these speakers, and
    ``kinds`` says so.
    """
    groups = int(group.max()) + 1 if len(group) else 0
    known = speaker >= 0
    speakers = int(speaker.max()) + 1 if known.any() else 0
    pairs = np.unique(group[known] * max(speakers, 1) + speaker[known])
    by_speaker = np.bincount(pairs // max(speakers, 1), minlength=groups) >= MIN_BLOCKS
    speaks = by_speaker[group] & known
    block = np.where(speaks, speaker, speakers + recording)
    span = int(block.max()) + 1 if len(block) else 1
    keys, inverse = np.unique(group * span + block, return_inverse=True)
    sums = np.column_stack(
        [np.bincount(inverse, weights=columns[:, at], minlength=len(keys)) for at in range(columns.shape[1])]
    )
    all_speak = np.bincount(group, weights=speaks, minlength=groups) == np.bincount(group, minlength=groups)
    kinds = ["speaker" if all_speak[g] else "mixed" if by_speaker[g] else "recording" for g in range(groups)]
    owner = keys // span
    return Blocks(owner, sums, np.searchsorted(owner, np.arange(groups)), kinds)


def _groups(rows: Scored, value: Coded) -> tuple[np.ndarray, np.ndarray]:
    """Dense group codes (n,) by value, engine and input, and the three codes of every group (g, 3)."""
    sizes = (len(value.names), len(rows.engine.names), len(rows.input.names))
    keys = np.ravel_multi_index((value.codes, rows.engine.codes, rows.input.codes), sizes)
    found, group = np.unique(keys, return_inverse=True)
    return group, np.column_stack(np.unravel_index(found, sizes))


def _slice_rows(rows: Scored, name: str) -> list[dict[str, object]]:
    value = rows.slices[name]
    group, codes = _groups(rows, value)
    blocks = blocks_of(group, rows.speaker, rows.recording, np.column_stack([rows.errors, rows.words]))

    def total(column: np.ndarray) -> np.ndarray:
        return np.bincount(group, weights=column, minlength=len(codes))

    counts = {key: total(rows.counts[:, at]).astype(np.int64) for at, key in enumerate(COUNTS)}
    rated = ~np.isnan(rows.wer)
    words, utterances = total(rows.words).astype(np.int64), np.bincount(group)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = total(np.where(rated, rows.wer, 0)) / total(rated)
        cer = counts["char_errors"] / counts["reference_chars"]
    hours, no_hyp, no_ref = total(rows.duration_s) / 3600, total(rows.empty_hypothesis), total(rows.empty_reference)
    small = [bool(words[g] < SMALL_WORDS or len(blocks.of(g)) < SMALL_BLOCKS) for g in range(len(codes))]
    # Speakers can be very many: those with little speech are marked small, and get no interval.
    asked = [g for g in range(len(codes)) if not (name == "speaker" and small[g])]
    intervals = dict(zip(asked, wer_intervals([blocks.of(g) for g in asked]), strict=True))
    table = []
    for g, (value_code, engine, input_code) in enumerate(codes.tolist()):
        interval = intervals.get(g)
        table.append({
            "slice": name, "value": value.names[value_code], "engine": rows.engine.names[engine],
            "input": rows.input.names[input_code], "utterances": int(utterances[g]), "hours": float(hours[g]),
            "blocks": len(blocks.of(g)), "block_kind": blocks.kinds[g], "words": int(words[g]),
            **{key: int(counts[key][g]) for key in COUNTS[:4]},
            "wer": float((counts["substitutions"][g] + counts["deletions"][g] + counts["insertions"][g]) / words[g])
            if words[g] else None,
            "wer_low": interval.low if interval else None, "wer_high": interval.high if interval else None,
            "mean_utterance_wer": None if np.isnan(mean[g]) else float(mean[g]),
            "cer": float(cer[g]) if np.isfinite(cer[g]) else None,
            "empty_hypotheses": int(no_hyp[g]), "empty_references": int(no_ref[g]), "small": small[g],
            "scorer": scorer(),
        })  # fmt: skip
    return table


def quality_of(rows: Scored) -> pa.Table:
    """The ``quality`` table of scored rows: every slice by engine and input, then the chosen transcripts likewise."""
    chosen = rows.take(rows.chosen)
    one = np.zeros(len(chosen.wer), dtype=np.int64)
    inputs = [chosen.input.names[code] for code in np.unique(chosen.input.codes)]
    alike = {"engine": Coded(one, [CHOSEN]), "input": Coded(one, [inputs[0] if len(inputs) == 1 else MIXED])}
    chosen = Scored(**{**chosen.__dict__, **alike})
    table: list[dict[str, object]] = []
    for part in (chosen, rows):
        for name in SLICES:
            found = _slice_rows(part, name) if len(part.wer) else []
            table += sorted(found, key=lambda row: (value_order(name, str(row["value"])), row["engine"], row["input"]))
    return pa.Table.from_pylist(table, schema=schema_of("quality"))


def quality_table(utterances: pa.Table, transcripts: pa.Table) -> pa.Table:
    """The ``quality`` table of a run from its ``utterances`` and ``transcripts`` (see :func:`scored` for columns).

    No rows where nothing has a reference.
    """
    return quality_of(scored(utterances, transcripts))
