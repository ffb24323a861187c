"""Intervals cover what they promise, on data correlated within speakers. CPU: about 15 s."""

from __future__ import annotations

import numpy as np
import pytest

from workers.quality.bootstrap import MAX_BLOCKS, Interval, merge_blocks, paired_interval, wer_interval, wer_intervals

TRIALS = 2000  # standard error of a coverage of 95%: half a point


def speakers(blocks: int, wer: float, spread: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Errors and words, (trials, blocks): beta-binomial errors, speakers of very unequal length."""
    words = rng.negative_binomial(2, 2 / 302, size=(TRIALS, blocks)) + 50
    ease = rng.beta(wer * (1 / spread - 1), (1 - wer) * (1 / spread - 1), size=words.shape)
    return rng.binomial(words, ease), words


def covered(intervals: list[Interval], truth: float) -> float:
    return float(np.mean([one.low <= truth <= one.high for one in intervals]))  # type: ignore[operator]


@pytest.mark.parametrize(
    ("blocks", "wer", "spread"), [(8, 0.1, 0.03), (20, 0.05, 0.02), (20, 0.3, 0.05), (60, 0.1, 0.05)]
)
def test_coverage(blocks: int, wer: float, spread: float) -> None:
    errors, words = speakers(blocks, wer, spread, np.random.default_rng([blocks, int(100 * wer)]))
    intervals = wer_intervals([np.column_stack(pair) for pair in zip(errors, words, strict=True)])
    assert 0.93 <= covered(intervals, wer) <= 0.97


def test_coverage_of_paired_differences() -> None:
    rng = np.random.default_rng(5)
    words = rng.negative_binomial(2, 2 / 302, size=(TRIALS // 4, 20)) + 50
    ease = rng.beta(2, 18, size=words.shape)
    first, other = rng.binomial(words, ease), rng.binomial(words, 0.8 * ease)
    truth, found, apart = 0.1 - 0.08, [], 0
    for mine, theirs, size in zip(first, other, words, strict=True):
        found.append(paired_interval(mine, size, theirs, size))
        alone = wer_interval(mine, size)
        apart += found[-1].high - found[-1].low < alone.high - alone.low  # type: ignore[operator]
    assert 0.92 <= covered(found, truth) <= 0.975  # 500 trials: a standard error of one point
    assert apart > 0.95 * len(found)  # what makes a speaker hard for both cancels


def test_ignoring_speakers_would_promise_too_much() -> None:
    errors, words = speakers(20, 0.1, 0.05, np.random.default_rng(1))
    rate = errors.sum(axis=1) / words.sum(axis=1)
    half = 1.96 * np.sqrt(rate * (1 - rate) / words.sum(axis=1))
    assert np.mean(np.abs(rate - 0.1) < half) < 0.7


def test_the_same_counts_give_the_same_interval() -> None:
    errors, words = np.array([3, 1, 0, 7, 2, 2]), np.array([50, 40, 30, 60, 45, 20])
    once = wer_interval(errors, words)
    assert once == wer_interval(errors, words) == wer_intervals([np.column_stack([errors, words])] * 3)[1]
    assert once.value == pytest.approx(15 / 245)
    assert once.low < once.value < once.high  # type: ignore[operator]


def test_no_spread_no_errors_no_words() -> None:
    few = wer_interval(np.array([1, 2]), np.array([10, 10]))
    assert (few.value, few.low, few.high) == (0.15, None, None)
    perfect = wer_interval(np.zeros(10), np.full(10, 30))
    assert (perfect.value, perfect.low) == (0.0, 0.0)
    assert perfect.high == pytest.approx(1 - 0.025 ** (1 / 300))
    assert np.isnan(wer_interval(np.ones(6), np.zeros(6)).value)
    alike = paired_interval(*[np.full(6, n) for n in (1, 10, 1, 10)])
    assert (alike.value, alike.low, alike.high, alike.excludes_zero) == (0, 0, 0, False)


def test_merging_very_many_blocks_hardly_changes_the_interval() -> None:
    rng = np.random.default_rng(2)
    words = rng.poisson(40, 6000) + 1
    columns = np.column_stack([rng.binomial(words, rng.beta(2, 18, 6000)), words])
    assert len(merge_blocks(columns)) == MAX_BLOCKS
    assert merge_blocks(columns).sum(axis=0).tolist() == columns.sum(axis=0).tolist()
    residual = columns[:, 0] - columns[:, 1] * columns[:, 0].sum() / words.sum()
    expected = 1.96 * np.sqrt(np.sum(residual**2)) / words.sum()
    found = wer_interval(columns[:, 0], columns[:, 1])
    assert (found.high - found.low) / 2 == pytest.approx(expected, rel=0.12)  # type: ignore[operator]
