"""Two ways of doing the same work, timed in turns: their ratio of throughput and how sure it is.

Whatever else the machine does weighs on both ways of a pair about alike; the interval tells what is left of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Pairs:
    """Seconds that the peer and we took, each of shape (pairs,): of CPU time on a CPU, of wall time on a GPU."""

    peer_s: np.ndarray
    ours_s: np.ndarray

    def ratio(self) -> tuple[float, float, float]:
        """The peer's time over ours, summed over all pairs, with its 95% interval (BCa bootstrap over pairs)."""
        interval = stats.bootstrap(
            (self.peer_s, self.ours_s), _over, paired=True, vectorized=False, rng=np.random.default_rng(0)
        ).confidence_interval
        return _over(self.peer_s, self.ours_s), float(interval.low), float(interval.high)

    def __str__(self) -> str:
        ratio, low, high = self.ratio()
        return f"{ratio:.1%} of the peer's throughput (95% interval {low:.1%} to {high:.1%}, {len(self.peer_s)} pairs)"


def _over(peer_s: np.ndarray, ours_s: np.ndarray) -> float:
    return float(peer_s.sum() / ours_s.sum())


def in_turns(work: Sequence[tuple[Callable[[], object], Callable[[], object]]], rounds: int, device: str) -> Pairs:
    """Times each pair (peer, ours) of ``work``, ``rounds`` times over, after a first round that does not count.

    The two take turns, we half a round behind: a library keeps what it compiled for the last shapes that it met, so
    whoever comes second on the same piece of work would find it prepared.
    """
    clock = time.process_time if device == "cpu" else time.perf_counter
    seconds = np.zeros((rounds + 1, len(work), 2))
    for turn in range(rounds + 1):
        for index in range(len(work)):
            for which, behind in ((0, 0), (1, len(work) // 2)):
                piece = (index + behind) % len(work)
                start = clock()
                work[piece][which]()
                seconds[turn, piece, which] = clock() - start
    peer_s, ours_s = seconds[1:].reshape(-1, 2).T
    return Pairs(peer_s, ours_s)
