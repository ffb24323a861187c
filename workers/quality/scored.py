"""Scored transcripts as arrays: counts, slices and blocks of every utterance, engine and input with a reference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from workers.quality.bins import BINS, NAMED, UNKNOWN

UTTERANCE_COLUMNS = (
    "utterance_id", "archive", "member", "language", "speaker", "duration_s", "snr_db", "format",
    "transcript_engine", "transcript_input",
)  # fmt: skip
TRANSCRIPT_COLUMNS = (
    "utterance_id", "engine", "input", "hits", "substitutions", "deletions", "insertions", "wer", "reference_chars",
    "char_errors",
)  # fmt: skip
COUNTS = ("hits", "substitutions", "deletions", "insertions", "reference_chars", "char_errors")


@dataclass(frozen=True)
class Coded:
    """A column of names as indices ``codes`` (n,) into ``names``."""

    codes: np.ndarray
    names: list[str]

    def take(self, rows: np.ndarray) -> Coded:
        return Coded(self.codes[rows], self.names)


@dataclass(frozen=True)
class Scored:
    """One row per scored transcript; every array has shape (n,), ``counts`` (n, 6) in the order of :data:`COUNTS`.

    ``utterance`` is the row of the utterances table, ``speaker`` -1 where it is not known; ``chosen`` marks the
    transcript that stands for its utterance; ``rate`` is reference tokens per second.
    """

    counts: np.ndarray
    wer: np.ndarray
    engine: Coded
    input: Coded
    utterance: np.ndarray
    chosen: np.ndarray
    empty_hypothesis: np.ndarray
    empty_reference: np.ndarray
    duration_s: np.ndarray
    speaker: np.ndarray
    recording: np.ndarray
    slices: dict[str, Coded]

    @property
    def words(self) -> np.ndarray:
        return self.counts[:, :3].sum(axis=1)

    @property
    def errors(self) -> np.ndarray:
        return self.counts[:, 1:4].sum(axis=1)

    def take(self, rows: np.ndarray) -> Scored:
        """Rows by index or mask."""
        return Scored(
            self.counts[rows], self.wer[rows], self.engine.take(rows), self.input.take(rows), self.utterance[rows],
            self.chosen[rows], self.empty_hypothesis[rows], self.empty_reference[rows], self.duration_s[rows],
            self.speaker[rows], self.recording[rows], {name: coded.take(rows) for name, coded in self.slices.items()},
        )  # fmt: skip


def coded(column: pa.ChunkedArray | pa.Array, missing: str = UNKNOWN) -> Coded:
    """Codes in the order of the sorted names, so that nothing depends on the order of rows."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    encoded = pc.fill_null(array.cast(pa.large_string()), missing).dictionary_encode()
    names = encoded.dictionary.to_pylist()
    order = sorted(range(len(names)), key=names.__getitem__)
    rank = np.empty(len(names), dtype=np.int64)
    rank[order] = np.arange(len(names))
    return Coded(rank[encoded.indices.to_numpy(zero_copy_only=False)], [names[at] for at in order])


def _floats(column: pa.ChunkedArray) -> np.ndarray:
    return column.cast(pa.float64()).to_numpy()


def scored(utterances: pa.Table, transcripts: pa.Table) -> Scored:
    """Join the two tables (:data:`UTTERANCE_COLUMNS`, :data:`TRANSCRIPT_COLUMNS`; others are ignored).

    Transcripts without a reference (their counts are null), and those whose utterance is not in ``utterances``, have
    no score and are left out.
    """
    transcripts = transcripts.select(TRANSCRIPT_COLUMNS).filter(pc.is_valid(pc.field("hits")))
    row = pc.index_in(transcripts["utterance_id"], value_set=utterances["utterance_id"].combine_chunks())
    transcripts, row = transcripts.filter(pc.is_valid(row)), row.drop_null()
    utterance = row.to_numpy().astype(np.int64)
    counts = np.column_stack([pc.fill_null(transcripts[name], 0).to_numpy() for name in COUNTS]).astype(np.int64)
    duration = _floats(utterances["duration_s"])
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = counts[:, :3].sum(axis=1) / duration[utterance]
    slices = {"all": Coded(np.zeros(len(utterance), dtype=np.int64), ["all"])}
    slices |= {name: coded(utterances[name]).take(utterance) for name in NAMED}
    measured = {"duration": duration[utterance], "snr": _floats(utterances["snr_db"])[utterance], "speaking_rate": rate}
    slices |= {name: Coded(BINS[name].codes(values), BINS[name].labels) for name, values in measured.items()}
    recording = coded(
        pc.binary_join_element_wise(
            utterances["archive"].cast(pa.large_string()),
            utterances["member"].cast(pa.large_string()),
            pa.scalar("\x1f", pa.large_string()),
        )
    )
    known = utterances["speaker"].is_valid().to_numpy()[utterance]
    chosen = pc.and_(
        pc.equal(transcripts["engine"], utterances["transcript_engine"].take(row)),
        pc.equal(transcripts["input"], utterances["transcript_input"].take(row)),
    )
    return Scored(
        counts=counts,
        wer=_floats(transcripts["wer"]),
        engine=coded(transcripts["engine"]),
        input=coded(transcripts["input"]),
        utterance=utterance,
        chosen=pc.fill_null(chosen, False).to_numpy(),
        empty_hypothesis=counts[:, [0, 1, 3]].sum(axis=1) == 0,  # every word heard is a hit, another word or too many
        empty_reference=counts[:, :3].sum(axis=1) == 0,
        duration_s=duration[utterance],
        speaker=np.where(known, slices["speaker"].codes, -1),
        recording=recording.codes[utterance],
        slices=slices,
    )
