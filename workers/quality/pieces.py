"""Scores of a recording that was cut into pieces: its reference belongs to the whole, its counts to the pieces.

The pieces' hypotheses are joined, aligned once with the whole reference, and every reference word goes to the piece
that heard it, or that was speaking when it was missed. The pieces' counts so add up to the recording's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rapidfuzz.distance import Levenshtein

from workers.quality.align import align
from workers.quality.normalize import is_unspaced, normalize
from workers.quality.score import Score


def score_pieces(reference: str, hypotheses: Sequence[str], language: str | None) -> list[Score]:
    """Scores of the pieces, in order; each one's ``normalized_reference`` is the part of the reference that fell to it.

    A deletion goes to the piece of the last word heard before it, one at the very start to the first piece. Insertions
    stay where they were heard. Character errors are those of each piece against its part.

    >>> [one.normalized_reference for one in score_pieces("a b c d", ["a x", "d"], None)]
    ['a b c', 'd']
    """
    wanted = normalize(reference, language).split()
    heard = [normalize(hypothesis, language).split() for hypothesis in hypotheses]
    owner = np.repeat(np.arange(len(heard)), [len(words) for words in heard])
    joined = [word for words in heard for word in words]
    parts: list[list[str]] = [[] for _ in heard]
    counts = np.zeros((len(heard), 4), np.int64)  # hits, substitutions, deletions, insertions
    piece = 0
    for chunk in align([" ".join(wanted)], [" ".join(joined)])[0]:
        if chunk.type == "delete":
            parts[piece] += wanted[chunk.ref_start_idx : chunk.ref_end_idx]
            counts[piece, 2] += chunk.ref_end_idx - chunk.ref_start_idx
            continue
        for step, at in enumerate(range(chunk.hyp_start_idx, chunk.hyp_end_idx)):
            piece = int(owner[at])
            if chunk.type == "insert":
                counts[piece, 3] += 1
            else:
                parts[piece].append(wanted[chunk.ref_start_idx + step])
                counts[piece, 0 if chunk.type == "equal" else 1] += 1
    unspaced = is_unspaced(language)
    return [_score(part, words, row.tolist(), unspaced) for part, words, row in zip(parts, heard, counts, strict=True)]


def _score(part: list[str], words: list[str], counts: list[int], unspaced: bool) -> Score:
    reference, hypothesis = " ".join(part), " ".join(words)
    hits, substitutions, deletions, insertions = counts
    if unspaced:
        chars, errors = hits + substitutions + deletions, substitutions + deletions + insertions
    else:
        chars, errors = len(reference), Levenshtein.distance(reference, hypothesis)
    return Score(reference, hypothesis, hits, substitutions, deletions, insertions, chars, errors)
