"""What is known without references predicts errors as well as the report says. CPU: about 4 s."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from schemas.tables import schema_of
from workers.quality.scored import Scored, scored
from workers.report.evidence import SIGNS, estimate, predictors

WORDS, SPEAKERS = 20, 200


def corpus(
    agreement: np.ndarray, logprob: np.ndarray, rate: np.ndarray, referenced: np.ndarray
) -> tuple[Scored, dict[str, np.ndarray]]:
    """Utterances of WORDS words that err at ``rate``, with two signs; all arrays (n,)."""
    errors = np.random.default_rng(1).binomial(WORDS, rate)
    utterances, transcripts = [], []
    for at, (wrong, known) in enumerate(zip(errors.tolist(), referenced.tolist(), strict=True)):
        keys = {"utterance_id": f"{at:05}", "archive": "a", "member": f"{at}.wav"}
        utterances.append(keys | {"duration_s": 5.0, "speaker": f"speaker-{at % SPEAKERS}", "transcript_engine": "e",
                                  "transcript_input": "raw"})  # fmt: skip
        counts = {"hits": WORDS - wrong, "substitutions": wrong, "deletions": 0, "insertions": 0, "wer": wrong / WORDS}
        transcripts.append(keys | {"engine": "e", "input": "raw"} | (counts if known else {}))
    rows = scored(
        pa.Table.from_pylist(utterances, schema_of("utterances")),
        pa.Table.from_pylist(transcripts, schema_of("transcripts")),
    )
    signs = {name: np.full(len(rate), np.nan) for name in SIGNS}
    return rows, signs | {"agreement_wer": agreement, "avg_logprob": logprob}


@pytest.fixture(scope="module")
def draws() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.uniform(0, 1, 2400), rng.uniform(-1, 0, 2400)


def test_all_signs_together_tell_more_than_each(draws: tuple[np.ndarray, np.ndarray]) -> None:
    agreement, logprob = draws
    rate = 0.02 + 0.25 * agreement - 0.25 * logprob
    referenced = np.arange(len(rate)) % 3 > 0
    rows, signs = corpus(agreement, logprob, rate, referenced)
    single = predictors(rows, signs)
    found = estimate(rows, signs, np.full(len(rate), 5.0))
    assert found is not None
    assert {one.column for one in single} == {"agreement_wer", "avg_logprob"}
    assert found.predictor.rank_correlation > max(one.rank_correlation for one in single) + 0.1
    overall = rows.errors.sum() / rows.words.sum()
    for one in [found.predictor, *single]:  # kept whole, the curve ends at the corpus' own WER
        assert one.kept_wer[-1] == pytest.approx(overall)
        assert one.kept_wer[9] < overall
    assert found.predictor.kept_wer[9] < min(one.kept_wer[9] for one in single)
    for estimated, measured in found.groups:
        assert estimated == pytest.approx(measured, abs=0.03)
    assert found.utterances == 800
    assert found.unreferenced == pytest.approx(rate[~referenced].mean(), abs=0.015)
    at = single[0]
    kept = signs[at.column][rows.utterance] * at.sign <= at.limits[9] * at.sign  # the threshold keeps what it says
    assert kept.mean() == pytest.approx(0.5, abs=0.01)
    assert rows.errors[kept].sum() / rows.words[kept].sum() == pytest.approx(at.kept_wer[9], rel=0.02)


def test_signs_that_say_nothing_are_not_believed(draws: tuple[np.ndarray, np.ndarray]) -> None:
    """Every speaker has an ease of their own, which the signs give away: tried on others, it tells nothing."""
    ease = np.random.default_rng(2).beta(2, 8, SPEAKERS)[np.arange(2400) % SPEAKERS]
    mark = np.random.default_rng(3).permutation(SPEAKERS)[np.arange(2400) % SPEAKERS] / SPEAKERS
    rows, signs = corpus(mark, draws[1], ease, np.ones(2400, dtype=bool))
    found = estimate(rows, signs, np.full(2400, 5.0))
    assert found is not None
    assert abs(found.predictor.rank_correlation) < 0.25
    assert found.unreferenced is None


def test_too_little_gives_no_estimate(draws: tuple[np.ndarray, np.ndarray]) -> None:
    few = np.arange(2400) < 90
    rows, signs = corpus(*draws, np.full(2400, 0.1), few)
    assert estimate(rows, signs, np.full(2400, 5.0)) is None
    rows, signs = corpus(*draws, np.zeros(2400), np.ones(2400, dtype=bool))
    assert estimate(rows, signs, np.full(2400, 5.0)) is None
