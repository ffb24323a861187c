"""The best path through a CTC model's frames: what greedy decoding chose, and how sure the model was of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from schemas.reasons import Reason
from workers.engines.base import Failure

# of clips for which a model computes no numbers
ASTRAY = Failure(Reason.ENGINE_FAILED, "the model's output is not all finite numbers")


@dataclass(frozen=True)
class BestPath:
    """One clip's frames, each array of shape (frames,): the best label, its log-probability, whether it is no blank."""

    labels: np.ndarray
    logprobs: np.ndarray
    emits: np.ndarray

    def logprob(self, start: int = 0, end: int | None = None) -> float | None:
        """Mean over the emitting frames of ``start:end``; None where there are none."""
        chosen = self.logprobs[start:end][self.emits[start:end]]
        return float(chosen.mean()) if len(chosen) else None

    def is_finite(self) -> bool:
        """Whether the model gave a number for every frame; of weights or activations gone astray it gives none."""
        return bool(np.isfinite(self.logprobs).all())

    def starts(self) -> np.ndarray:
        """Frames at which a letter or piece begins: a label that goes on is one, unless a blank lies between."""
        return np.flatnonzero(self.emits & (np.diff(self.labels, prepend=-1) != 0))


def best_paths(logprobs: torch.Tensor, lengths: Sequence[int], blank: int) -> list[BestPath]:
    """Paths of a batch: ``logprobs`` (batch, frames, labels), of which the first ``lengths`` frames are each clip's."""
    values, labels = logprobs.max(dim=-1)
    best, chosen = values.float().cpu().numpy(), labels.cpu().numpy()
    return [
        BestPath(label[:n], row[:n], label[:n] != blank) for row, label, n in zip(best, chosen, lengths, strict=True)
    ]
