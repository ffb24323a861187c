"""95% intervals of pooled error rates by bootstrap over independent blocks, alone and paired.

Utterances of one speaker (or recording) go right and wrong together, so what is drawn with replacement is blocks, not
utterances (Bisani & Ney 2004, "Bootstrap estimates for confidence intervals in ASR performance evaluation"; Liu et
al. 2020, "Statistical Testing on ASR Performance via Blockwise Bootstrap"). With few blocks the plain percentile
interval is too narrow and misses the skew of a ratio; the bootstrap-t interval (Efron & Tibshirani 1993, section 12.5)
is drawn instead, its standard errors from the linearised ratio (Cochran 1977, section 6.4), which cost a few sums
per draw. How it covers, on data correlated within speakers, is measured in the tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import stats

from schemas.ids import seed_of

DRAWS = 2000  # Monte-Carlo error of a 95% limit: about 3% of the standard error
MAX_BLOCKS = 512  # more are merged at random into this many: the interval hardly changes, the cost stays linear
MIN_BLOCKS = 5  # of fewer, the spread between blocks is hardly known, and no interval is given
LEVEL = 0.95
TOGETHER = 200  # data sets drawn in one go: bounds memory, at 200 x 2000 draws x 14 sums of 8 bytes to 45 MB


@dataclass(frozen=True)
class Interval:
    """``value`` with the ends of its interval; both ends None where there are too few blocks (MIN_BLOCKS)."""

    value: float
    low: float | None
    high: float | None
    blocks: int

    @property
    def excludes_zero(self) -> bool:
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@lru_cache(maxsize=4)
def _draws(blocks: int) -> np.ndarray:
    """How often each draw takes each block: (DRAWS, blocks). The same for all data of as many blocks: reproducible."""
    generator = np.random.default_rng(seed_of("bootstrap", blocks, DRAWS))
    return generator.multinomial(blocks, np.full(blocks, 1 / blocks), size=DRAWS).astype(np.float64)


def merge_blocks(columns: np.ndarray) -> np.ndarray:
    """Sum (blocks, k) counts into at most MAX_BLOCKS rows, dealt at random (seeded by their number)."""
    blocks = len(columns)
    if blocks <= MAX_BLOCKS:
        return columns
    order = np.random.default_rng(seed_of("blocks", blocks)).permutation(blocks)
    starts = np.linspace(0, blocks, MAX_BLOCKS, endpoint=False).astype(int)
    return np.add.reduceat(columns[order], starts, axis=0)


def _rates(sums: np.ndarray) -> np.ndarray:
    """Difference of rates: columns (errors, words) or (errors, words, other errors, other words); NaN at no words."""
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = sums[..., 0] / sums[..., 1]
        return rate - sums[..., 2] / sums[..., 3] if sums.shape[-1] == 4 else rate


def _gradient(sums: np.ndarray) -> np.ndarray:
    """Of :func:`_rates` by its sums, same shape."""
    gradient = np.empty_like(sums)
    with np.errstate(divide="ignore", invalid="ignore"):
        for at, sign in ((0, 1.0), (2, -1.0))[: sums.shape[-1] // 2]:
            gradient[..., at] = sign / sums[..., at + 1]
            gradient[..., at + 1] = -sign * sums[..., at] / sums[..., at + 1] ** 2
    return gradient


def _intervals(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values, low and high ends, each (g,), for ``columns`` (g, blocks, k): g data sets of as many blocks (2..MAX)."""
    g, n, k = columns.shape
    total = columns.sum(axis=1)  # (g, k)
    value, gradient = _rates(total), _gradient(total)
    # Linearised variance: at the estimate the residuals gradient.x sum to zero, so it is their sum of squares; each is
    # divided by what its block leaves to the others (HC3, MacKinnon & White 1985), as a large block hides its own.
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.max(columns[:, :, 1::2] / total[:, None, 1::2], axis=2)
    residuals = np.einsum("gnk,gk->gn", columns, gradient) / np.maximum(1 - share, 1e-6)
    error = np.sqrt(np.sum(residuals**2, axis=1))
    pairs = [(i, j) for i in range(k) for j in range(i, k)]
    moments = np.stack([columns[:, :, i] * columns[:, :, j] for i, j in pairs])  # (pairs, g, n)
    stacked = np.concatenate([columns.transpose(2, 0, 1), moments]).reshape(-1, n)
    drawn = (_draws(n) @ stacked.T).reshape(DRAWS, k + len(pairs), g).transpose(0, 2, 1)  # (DRAWS, g, k + pairs)
    sums, slope = drawn[:, :, :k], _gradient(drawn[:, :, :k])
    variance = np.zeros(sums.shape[:2])
    with np.errstate(divide="ignore", invalid="ignore"):  # a draw of blocks without words has no slope
        for at, (i, j) in enumerate(pairs):
            variance += (1 if i == j else 2) * slope[:, :, i] * slope[:, :, j] * drawn[:, :, k + at]
        t = (_rates(sums) - value) / np.sqrt(n / (n - 1) * np.maximum(variance, 0))
    # A draw of like blocks has no spread and an infinite t, which counts in the tails; 0/0 and no words say nothing.
    t = np.clip(np.nan_to_num(t, nan=0.0, posinf=1e9, neginf=-1e9), -1e9, 1e9)
    tail = (1 - LEVEL) / 2
    below, above = np.quantile(t, [tail, 1 - tail], axis=0)
    # With a handful of blocks, draws of near-identical blocks blow the quantiles up: never beyond twice Student's t.
    limit = 2 * float(stats.t.ppf(1 - tail, n - 1))
    return value, value - np.minimum(above, limit) * error, value - np.maximum(below, -limit) * error


def _each_interval(data: Sequence[np.ndarray]) -> list[Interval]:
    """Intervals of data sets (blocks, k), those of as many blocks drawn together."""
    found: list[Interval] = []
    alike: dict[int, list[int]] = {}
    for at, columns in enumerate(data):
        value = float(_rates(columns.sum(axis=0, dtype=np.float64)))
        found.append(Interval(value if np.isfinite(value) else float("nan"), None, None, len(columns)))
        if len(columns) >= MIN_BLOCKS and np.isfinite(value):
            alike.setdefault(min(len(columns), MAX_BLOCKS), []).append(at)
    for members in alike.values():
        for start in range(0, len(members), TOGETHER):
            batch = members[start : start + TOGETHER]
            values, lows, highs = _intervals(np.stack([merge_blocks(data[at].astype(np.float64)) for at in batch]))
            for at, rate, low, high in zip(batch, values.tolist(), lows.tolist(), highs.tolist(), strict=True):
                found[at] = Interval(rate, low, high, len(data[at]))
    return found


def wer_intervals(data: Sequence[np.ndarray]) -> list[Interval]:
    """Pooled WERs with their intervals from per-block counts: each of ``data`` is (blocks, 2): errors, words.

    Without a single error the draws all agree on 0; the upper end is then the exact one for independent words
    (1 - 0.025^(1/words), Clopper & Pearson 1934). Without words the value is NaN.
    """
    intervals = _each_interval(data)
    for at, interval in enumerate(intervals):
        if interval.low is None or interval.high is None:
            continue
        errors, words = data[at].sum(axis=0).tolist()
        high = interval.high if errors else 1 - ((1 - LEVEL) / 2) ** (1 / words)
        intervals[at] = Interval(interval.value, max(0.0, interval.low), high, interval.blocks)
    return intervals


def wer_interval(errors: np.ndarray, words: np.ndarray) -> Interval:
    """:func:`wer_intervals` of one data set; ``errors`` and ``words`` per block, each (blocks,)."""
    return wer_intervals([np.column_stack([errors, words])])[0]


def paired_intervals(data: Sequence[np.ndarray]) -> list[Interval]:
    """Differences of two pooled WERs (first minus other) with their intervals from per-block counts: each of ``data``
    is (blocks, 4): errors and words of the first, then of the other.

    Both sides of a block are drawn together, so what makes a block hard for both cancels. A block that one side lacks
    holds zeros there. Without words on one side the value is NaN.
    """
    return _each_interval(data)
