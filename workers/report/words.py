"""Words of transcripts against words of references: differences to be read, and what is confused with what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from workers.quality.align import align

T = TypeVar("T", str, tuple[str, str])


@dataclass(frozen=True)
class Piece:
    """A stretch of an alignment: ``kind`` is equal, substitute, delete or insert."""

    kind: str
    reference: str
    hypothesis: str


def difference(reference: str, hypothesis: str) -> list[Piece]:
    """The alignment of two normalised texts, word by word within substitutions.

    >>> difference("the cat sat", "the bat sat down")[1]
    Piece(kind='substitute', reference='cat', hypothesis='bat')
    """
    wanted, heard = reference.split(), hypothesis.split()
    pieces: list[Piece] = []
    for chunk in align([reference], [hypothesis])[0]:
        left, right = wanted[chunk.ref_start_idx : chunk.ref_end_idx], heard[chunk.hyp_start_idx : chunk.hyp_end_idx]
        if chunk.type == "substitute":
            pieces += [Piece("substitute", *pair) for pair in zip(left, right, strict=True)]
        else:
            pieces.append(Piece(chunk.type, " ".join(left), " ".join(right)))
    return pieces


@dataclass(frozen=True)
class Confusions:
    """The most frequent errors: (reference word, heard word, count) and (word, count)."""

    substitutions: list[tuple[str, str, int]]
    deletions: list[tuple[str, int]]
    insertions: list[tuple[str, int]]
    utterances: int


def confusions(pairs: Iterable[tuple[str, str]], top: int = 12) -> Confusions:
    """Count the errors of pairs of normalised (reference, hypothesis); what happened once is left to chance."""
    substitutions: Counter[tuple[str, str]] = Counter()
    deletions: Counter[str] = Counter()
    insertions: Counter[str] = Counter()
    listed: Sequence[tuple[str, str]] = list(pairs)
    for (reference, hypothesis), chunks in zip(
        listed, align([pair[0] for pair in listed], [pair[1] for pair in listed]), strict=True
    ):
        wanted, heard = reference.split(), hypothesis.split()
        for chunk in chunks:
            left = wanted[chunk.ref_start_idx : chunk.ref_end_idx]
            right = heard[chunk.hyp_start_idx : chunk.hyp_end_idx]
            if chunk.type == "substitute":
                substitutions.update(zip(left, right, strict=True))
            elif chunk.type == "delete":
                deletions.update(left)
            elif chunk.type == "insert":
                insertions.update(right)

    def ordered(counter: Counter[T]) -> list[tuple[T, int]]:
        found = sorted(counter.items(), key=lambda item: (-item[1], item[0]))[:top]
        return [item for item in found if item[1] > 1] or found[: top // 2]

    swapped = [(*pair, n) for pair, n in ordered(substitutions)]
    return Confusions(swapped, ordered(deletions), ordered(insertions), len(listed))
