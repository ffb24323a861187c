"""The utterances that most need an ear, in one order: their raw audio is published, and a report shows them."""

from __future__ import annotations

import numpy as np

KEPT = 12  # of a shard, and of a run: so a report has the raw audio of all that it shows
MIN_WORDS = 3  # one wrong word of one or two is 50 or 100% and teaches nothing


def by_errors(errors: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Indices of the highest error rates among ``errors`` and reference ``words``, both (n,), the worst first.

    At most KEPT, none without an error. Those of under MIN_WORDS words come last; where rates tie, more errors come
    first, then the order given: so the worst of a whole are among the worst of its parts.

    >>> by_errors(np.array([0, 1, 2, 9]), np.array([5, 1, 4, 30])).tolist()
    [2, 3, 1]
    """
    wrong = np.flatnonzero(errors > 0)
    rate = errors[wrong] / np.maximum(words[wrong], 1)
    order = np.lexsort((wrong, -errors[wrong], -rate, words[wrong] < MIN_WORDS))
    return wrong[order][:KEPT]


def by_agreement(agreement: np.ndarray) -> np.ndarray:
    """Indices of the greatest differences between engines, where there are no references: at most KEPT of ``agreement``
    (n,), NaN where it was not measured."""
    differing = np.flatnonzero(agreement > 0)
    return differing[np.argsort(-agreement[differing], kind="stable")][:KEPT]
