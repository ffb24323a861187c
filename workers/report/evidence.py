"""How well what is known without a reference predicts the true error, measured where there are references.

A curve shows, for every share of the corpus kept in order of a predictor, the WER of what is kept: from it a team picks
a threshold (the risk-coverage curve of selective prediction, El-Yaniv & Wiener 2010).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import stats

from workers.quality.scored import Scored

MIN_UTTERANCES = 30  # fewer give no curve worth reading
PREDICTORS = {
    "agreement_wer": ("agreement of the engines", 1),
    "avg_logprob": ("decoder confidence", -1),
    "round_trip_wer": ("round trip of the transcript", 1),
    "no_speech_prob": ("probability of no speech", 1),
    "compression_ratio": ("compression ratio", 1),
    "speech_ratio": ("share of speech", -1),
    "snr_db": ("signal-to-noise ratio", -1),
}
"""Column -> (name for people, sign that makes larger mean worse)."""

SHARES = np.linspace(0.05, 1.0, 20)


@dataclass(frozen=True)
class Predictor:
    """``rank_correlation`` (Spearman) with the utterances' WER; ``kept_wer`` the pooled WER at each share kept."""

    column: str
    name: str
    utterances: int
    rank_correlation: float
    shares: list[float]
    kept_wer: list[float]
    limits: list[float]  # the predictor's value at each share: the threshold that keeps it


def predictors(rows: Scored, utterances: pa.Table, transcripts: pa.Table, regenerated: pa.Table) -> list[Predictor]:
    """The predictors of the chosen transcripts' WER, the best first; those not measured are left out.

    ``rows`` are the scored chosen transcripts of ``utterances``; ``transcripts`` holds the decoder's columns,
    ``regenerated`` the round trips. Only one of a transcript says something of it: a voice that speaks the reference
    is heard alike whatever the transcript was.
    """
    own = pa.array(rows.utterance)
    values = {name: utterances[name].take(own) for name in ("agreement_wer", "speech_ratio", "snr_db")}
    values |= _decoder_columns(rows, utterances, transcripts)
    spoken = regenerated.filter(pc.field("text_source") != "reference").group_by("utterance_id")
    trips = spoken.aggregate([("round_trip_wer", "mean")])
    at = pc.index_in(utterances["utterance_id"].take(own), value_set=trips["utterance_id"].combine_chunks())
    values["round_trip_wer"] = trips["round_trip_wer_mean"].take(at)
    errors, words, found = rows.errors, rows.words, []
    rated = ~np.isnan(rows.wer)
    for column, (name, sign) in PREDICTORS.items():
        measured = values[column].cast(pa.float64()).to_numpy(zero_copy_only=False)
        usable = rated & ~np.isnan(measured)
        if usable.sum() < MIN_UTTERANCES or np.ptp(measured[usable]) == 0 or np.ptp(rows.wer[usable]) == 0:
            continue
        risk = sign * measured[usable]
        correlation = float(stats.spearmanr(risk, rows.wer[usable]).statistic)
        order = np.argsort(risk, kind="stable")
        kept_errors, kept_words = np.cumsum(errors[usable][order]), np.cumsum(words[usable][order])
        at = np.maximum(1, np.round(SHARES * len(order))).astype(int) - 1
        kept = kept_errors[at] / np.maximum(kept_words[at], 1)
        limits = sign * risk[order][at]
        found.append(Predictor(column, name, len(order), correlation, SHARES.tolist(), kept.tolist(), limits.tolist()))
    return sorted(found, key=lambda one: -one.rank_correlation)


def _decoder_columns(rows: Scored, utterances: pa.Table, transcripts: pa.Table) -> dict[str, pa.Array]:
    """Decoder columns of the chosen transcripts, in the order of ``rows``."""
    at = pc.index_in(transcripts["utterance_id"], value_set=utterances["utterance_id"].combine_chunks())
    transcripts, at = transcripts.filter(pc.is_valid(at)), at.drop_null()
    chosen = pc.and_(
        pc.equal(transcripts["engine"], utterances["transcript_engine"].take(at)),
        pc.equal(transcripts["input"], utterances["transcript_input"].take(at)),
    )
    mask = pc.fill_null(chosen, False)
    transcripts, owner = transcripts.filter(mask), at.filter(mask)
    position = pc.index_in(pa.array(rows.utterance), value_set=owner.combine_chunks().cast(pa.int64()))
    names = ("avg_logprob", "no_speech_prob", "compression_ratio")
    return {name: transcripts[name].take(position) for name in names}
