"""What the corpus is sliced by: columns, and measured columns cut into bins."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

UNKNOWN = "unknown"  # a name that is not given
NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Bins:
    """A measured column cut at ``edges`` (ascending); a value on an edge belongs to the bin above it."""

    edges: tuple[float, ...]
    unit: str

    @property
    def labels(self) -> list[str]:
        """Names of the bins in order, and the name of what was not measured.

        >>> Bins((1, 2.5), "s").labels
        ['under 1 s', '1 to 2.5 s', '2.5 s and over', 'not measured']
        """
        between = [f"{low:g} to {high:g} {self.unit}" for low, high in zip(self.edges, self.edges[1:], strict=False)]
        first, last = f"under {self.edges[0]:g} {self.unit}", f"{self.edges[-1]:g} {self.unit} and over"
        return [first, *between, last, NOT_MEASURED]

    def codes(self, values: np.ndarray) -> np.ndarray:
        """Index into :attr:`labels` of float ``values`` of shape (n,); NaN was not measured."""
        codes = np.searchsorted(self.edges, values, side="right")
        return np.where(np.isnan(values), len(self.edges) + 1, codes)


BINS: dict[str, Bins] = {
    "duration": Bins((1, 2, 5, 10, 20), "s"),
    "snr": Bins((5, 10, 15, 20, 30), "dB"),
    "speaking_rate": Bins((1, 2, 3, 4), "words/s"),
}
"""Speaking rate is reference tokens (words, or characters where words are not spaced) per second of utterance."""

NAMED = ("archive", "language", "speaker", "format")

SLICES = ("all", *NAMED, *BINS)


def value_order(slice_name: str, value: str) -> tuple[int, str]:
    """Sort key of a slice's values: bins in the order of their edges, names by name."""
    if slice_name in BINS:
        labels = BINS[slice_name].labels
        return (labels.index(value) if value in labels else len(labels), value)
    return (0, value)
