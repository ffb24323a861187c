"""Intervals cover what they promise, on data correlated within speakers. CPU: about 15 s."""

from __future__ import annotations

import numpy as np
import pytest

from workers.quality.bootstrap import MAX_BLOCKS, Interval, merge_blocks, paired_intervals, wer_interval, wer_intervals

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


@pytest.mark.parametrize(("blocks", "wer", "factor"), [(8, 0.2, 0.8), (20, 0.1, 0.8), (40, 0.1, 1.0)])
def test_coverage_of_paired_differences(blocks: int, wer: float, factor: float) -> None:
    rng = np.random.default_rng([blocks, int(100 * wer), 5])
    words = rng.negative_binomial(2, 2 / 302, size=(TRIALS, blocks)) + 50
    ease = rng.beta(20 * wer, 20 * (1 - wer), size=words.shape)
    first, other = rng.binomial(words, ease), rng.binomial(words, factor * ease)
    data = [np.column_stack([a, n, b, n]) for a, b, n in zip(first, other, words, strict=True)]
    found = paired_intervals(data)
    assert 0.93 <= covered(found, wer * (1 - factor)) <= 0.97
    if blocks == 20:  # what makes a speaker hard for both cancels
        alone = wer_intervals([one[:, :2] for one in data])
        assert np.mean([_width(pair) < _width(single) for pair, single in zip(found, alone, strict=True)]) > 0.95


def test_coverage_of_runs_that_share_some_of_their_speakers() -> None:
    """Ten speakers in both runs, ten in each alone: their counts are zero on the other side."""
    rng = np.random.default_rng(9)
    words = rng.negative_binomial(2, 2 / 302, size=(TRIALS, 30)) + 50
    ease = rng.beta(3, 27, size=words.shape)
    now = np.where(np.arange(30) < 20, words, 0)
    before = np.where(np.arange(30) >= 10, words, 0)
    errors, earlier = rng.binomial(now, ease), rng.binomial(before, 0.7 * ease)
    columns = np.stack([errors, now, earlier, before], axis=2)
    assert 0.93 <= covered(paired_intervals(list(columns)), 0.1 - 0.07) <= 0.97


def _width(interval: Interval) -> float:
    assert interval.low is not None
    assert interval.high is not None
    return interval.high - interval.low


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
    (alike,) = paired_intervals([np.column_stack([np.full(6, n) for n in (1, 10, 1, 10)])])
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
