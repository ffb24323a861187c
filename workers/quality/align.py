"""Token alignments by jiwer (rapidfuzz underneath) of texts that are normalised already."""

from __future__ import annotations

from collections.abc import Sequence

import jiwer


class _Tokens(jiwer.AbstractTransform):
    """Texts to lists of tokens; jiwer's own default does more, for texts that are not normalised yet."""

    def process_string(self, s: str) -> list[str]:
        return s.split()

    def process_list(self, inp: list[str]) -> list[list[str]]:
        return [text.split() for text in inp]


_TOKENS = _Tokens()


def align(references: Sequence[str], hypotheses: Sequence[str]) -> list[list[jiwer.AlignmentChunk]]:
    """Alignments of pairs of normalised texts, in order; one side or both may be empty.

    >>> [(chunk.type, chunk.ref_start_idx, chunk.ref_end_idx) for chunk in align(["a b c"], ["a x c"])[0]]
    [('equal', 0, 1), ('substitute', 1, 2), ('equal', 2, 3)]
    """
    if not references:
        return []
    alignments: list[list[jiwer.AlignmentChunk]] = jiwer.process_words(
        list(references), list(hypotheses), _TOKENS, _TOKENS
    ).alignments
    return alignments
