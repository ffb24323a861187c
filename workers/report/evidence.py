"""How well what is known without a reference predicts the true error, measured where there are references.

Each sign alone, and all of them together in one estimate of an utterance's WER. A curve shows, for every share of the
corpus kept in order of a sign, the WER of what is kept: from it a team picks a threshold (the risk-coverage curve of
selective prediction, El-Yaniv & Wiener 2010).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import stats

from schemas.ids import seed_of
from workers.quality.scored import Scored

MIN_UTTERANCES = 30  # fewer give no curve worth reading
MIN_ESTIMATED = 100  # fewer teach no estimate
MIN_LEARNT_BLOCKS = 5  # speakers or recordings: of fewer, what is learnt from some is not tried on others
LEARNT = 50_000  # utterances the estimate is learnt from, drawn at random where there are more
FOLDS = 5
GROUPS = 10  # of utterances alike in estimate, in which it is compared with what was measured
SIGNS = {
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
    """``rank_correlation`` (Spearman) with the utterances' WER; ``kept_wer`` the pooled WER at each share kept.

    ``limits`` holds the value at each share: the threshold that keeps it, from above where ``sign`` is 1 and from below
    where it is -1. ``column`` is empty for the estimate, which stands in no table.
    """

    column: str
    name: str
    sign: int
    utterances: int
    rank_correlation: float
    shares: list[float]
    kept_wer: list[float]
    limits: list[float]


@dataclass(frozen=True)
class Estimate:
    """All signs together. ``predictor`` and ``groups`` are of utterances whose speaker (or recording) it had not seen.

    ``groups`` are (estimated, measured) pooled WERs of equally many utterances, the best first. ``unreferenced`` is the
    pooled WER estimated for the ``utterances`` without a reference, None where there are none. In all of these no
    utterance counts for more than 100%: a few that loop would drown the rest.
    """

    predictor: Predictor
    groups: list[tuple[float, ...]]
    utterances: int
    unreferenced: float | None


def signs_of(utterances: pa.Table, transcripts: pa.Table, regenerated: pa.Table) -> dict[str, np.ndarray]:
    """The columns of :data:`SIGNS` for every row of ``utterances``, NaN where not measured.

    ``transcripts`` gives the decoder's columns of the chosen transcripts, ``regenerated`` the round trips. Only one of
    a transcript says something of it: a voice that speaks the reference is heard alike whatever the transcript was.
    """
    signs = {name: utterances[name] for name in ("agreement_wer", "speech_ratio", "snr_db")}
    signs |= _decoder_columns(utterances, transcripts)
    spoken = regenerated.filter(pc.field("text_source") != "reference").group_by("utterance_id")
    trips = spoken.aggregate([("round_trip_wer", "mean")])
    at = pc.index_in(utterances["utterance_id"], value_set=trips["utterance_id"].combine_chunks())
    signs["round_trip_wer"] = trips["round_trip_wer_mean"].take(at)
    return {name: signs[name].cast(pa.float64()).to_numpy(zero_copy_only=False) for name in SIGNS}


def predictors(rows: Scored, signs: dict[str, np.ndarray]) -> list[Predictor]:
    """What each sign says of the chosen transcripts' WER, the best first; those not measured are left out.

    ``rows`` are the scored chosen transcripts of the utterances that ``signs`` (:func:`signs_of`) belong to.
    """
    found = []
    for column, (name, sign) in SIGNS.items():
        measured = signs[column][rows.utterance]
        usable = ~np.isnan(rows.wer) & ~np.isnan(measured)
        if usable.sum() >= MIN_UTTERANCES and np.ptp(measured[usable]) > 0 and np.ptp(rows.wer[usable]) > 0:
            found.append(_predictor(rows.take(usable), measured[usable], column, name, sign))
    return sorted(found, key=lambda one: -one.rank_correlation)


def _predictor(rows: Scored, measured: np.ndarray, column: str, name: str, sign: int) -> Predictor:
    risk = sign * measured
    correlation = float(stats.spearmanr(risk, rows.wer).statistic)
    order = np.argsort(risk, kind="stable")
    errors, words = np.cumsum(rows.errors[order]), np.cumsum(rows.words[order])
    at = np.maximum(1, np.round(SHARES * len(order))).astype(int) - 1
    kept, limits = errors[at] / np.maximum(words[at], 1), measured[order][at]
    shares = SHARES.tolist()
    return Predictor(column, name, sign, len(order), correlation, shares, kept.tolist(), limits.tolist())


def estimate(rows: Scored, signs: dict[str, np.ndarray], seconds: np.ndarray) -> Estimate | None:
    """The WER that all signs together tell, and how well they do; None where there is too little to learn from.

    Boosted trees with a Poisson deviance, in which more of a sign never lowers the estimate where more means worse.
    Utterances are estimated by what was learnt from other speakers (or recordings) only. ``seconds`` (utterances,) of
    audio stand for the unknown numbers of words where there is no reference; 0 leaves an utterance out.
    """
    rated = np.flatnonzero(~np.isnan(rows.wer))
    if len(rated) > LEARNT:
        rated = np.sort(np.random.default_rng(seed_of("estimate", len(rated))).choice(rated, LEARNT, replace=False))
    learnt = rows.take(rated)
    block = np.where(learnt.speaker >= 0, learnt.speaker, len(rows.slices["speaker"].names) + learnt.recording)
    _, block = np.unique(block, return_inverse=True)
    columns = [name for name in SIGNS if not np.isnan(signs[name][learnt.utterance]).all()]
    blocks = int(block.max()) + 1 if len(block) else 0
    if len(rated) < MIN_ESTIMATED or blocks < MIN_LEARNT_BLOCKS or not columns:
        return None
    table = np.column_stack([signs[name] for name in columns])
    known, directions = table[learnt.utterance], [SIGNS[name][1] for name in columns]
    order = np.random.default_rng(seed_of("folds", blocks)).permutation(blocks)
    fold = order[block] % FOLDS
    if len(np.unique(fold[learnt.errors > 0])) < 2:  # nothing, or one fold alone, to learn errors from
        return None
    told = np.empty(len(rated))
    for one in range(FOLDS):
        told[fold == one] = _fitted(known, learnt, fold != one, directions).predict(known[fold == one])
    if not np.ptp(told):  # the signs tell nothing: everything is estimated alike
        return None
    predictor = _predictor(learnt, told, "", "all signs together", 1)
    parts = np.array_split(np.argsort(told, kind="stable"), GROUPS)
    measured = np.minimum(learnt.wer, 1)
    groups = [tuple(float(np.average(of[p], weights=learnt.words[p])) for of in (told, measured)) for p in parts]
    without = np.setdiff1d(np.flatnonzero(seconds > 0), rows.utterance)
    rest = None
    if len(without):
        model = _fitted(known, learnt, np.ones(len(rated), dtype=bool), directions)
        rest = float(np.average(model.predict(table[without]), weights=seconds[without]))
    return Estimate(predictor, groups, len(without), rest)


def _fitted(known: np.ndarray, rows: Scored, part: np.ndarray, directions: list[int]):  # type: ignore[no-untyped-def]
    """The regression of WER (at most 1) on the signs ``known`` (n, signs), learnt from the rows of ``part``."""
    from sklearn.ensemble import HistGradientBoostingRegressor  # a second to import, for large corpora only

    model = HistGradientBoostingRegressor(
        loss="poisson", max_iter=60, learning_rate=0.1, max_leaf_nodes=15, min_samples_leaf=10, early_stopping=False,
        monotonic_cst=directions, random_state=0,
    )  # fmt: skip
    return model.fit(known[part], np.minimum(rows.wer[part], 1), sample_weight=np.maximum(rows.words[part], 1))


def _decoder_columns(utterances: pa.Table, transcripts: pa.Table) -> dict[str, pa.ChunkedArray]:
    """Decoder columns of the chosen transcripts, in the order of ``utterances``."""
    at = pc.index_in(transcripts["utterance_id"], value_set=utterances["utterance_id"].combine_chunks())
    transcripts, at = transcripts.filter(pc.is_valid(at)), at.drop_null()
    chosen = pc.and_(
        pc.equal(transcripts["engine"], utterances["transcript_engine"].take(at)),
        pc.equal(transcripts["input"], utterances["transcript_input"].take(at)),
    )
    mask = pc.fill_null(chosen, False)
    transcripts, owner = transcripts.filter(mask), at.filter(mask)
    rows = pa.array(np.arange(utterances.num_rows))
    position = pc.index_in(rows, value_set=owner.combine_chunks().cast(pa.int64()))
    return {name: transcripts[name].take(position) for name in ("avg_logprob", "no_speech_prob", "compression_ratio")}
