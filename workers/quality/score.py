"""Word and character errors of a hypothesis against a reference. jiwer aligns; both sides are normalised first."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import jiwer
from rapidfuzz.distance import Levenshtein

from schemas.records import ErrorCounts
from workers.quality.align import align
from workers.quality.normalize import is_unspaced, normalize
from workers.quality.whisper_text import normalizer_version

BATCH = 4096  # pairs aligned per call of jiwer: enough to make its overhead vanish, few enough to stay small


@dataclass(frozen=True, slots=True)
class Score:
    """The alignment of one pair. Tokens are words, or characters in languages written without word spaces.

    ``wer`` and ``cer`` are None where the normalised reference is empty: the errors of such a pair are insertions and
    are counted in pooled rates, but it has no rate of its own. Characters include the spaces between words.
    """

    normalized_reference: str
    normalized_hypothesis: str
    hits: int
    substitutions: int
    deletions: int
    insertions: int
    reference_chars: int
    char_errors: int

    @property
    def words(self) -> int:
        """Tokens in the normalised reference."""
        return self.hits + self.substitutions + self.deletions

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def wer(self) -> float | None:
        return self.errors / self.words if self.words else None

    @property
    def cer(self) -> float | None:
        return self.char_errors / self.reference_chars if self.reference_chars else None

    @property
    def counts(self) -> ErrorCounts:
        return ErrorCounts(self.hits, self.substitutions, self.deletions, self.insertions)


@cache
def scorer() -> str:
    """What scored: ``jiwer 4.0.0, rapidfuzz 3.14.6, openai-whisper 20250625 normalizers``; a column of ``quality``."""
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("jiwer", "rapidfuzz")]
    return ", ".join([*versions, f"{normalizer_version()} normalizers"])


def score(reference: str, hypothesis: str, language: str | None) -> Score:
    """Score one pair. ``language`` is a BCP-47 tag, or None: see :func:`workers.quality.normalize.normalize`.

    >>> score("The colour of money.", "the color of honey", "en").wer
    0.25
    """
    return score_many([reference], [hypothesis], [language])[0]


def score_many(
    references: Sequence[str], hypotheses: Sequence[str], languages: Sequence[str | None] | str | None
) -> list[Score]:
    """Score pairs in order; ``languages`` is one per pair, or one for all. Equal pairs are aligned once.

    Raises ValueError where the lengths differ.
    """
    if languages is None or isinstance(languages, str):
        languages = [languages] * len(references)
    if not len(references) == len(hypotheses) == len(languages):
        raise ValueError(f"{len(references)} references, {len(hypotheses)} hypotheses, {len(languages)} languages")
    keys = [
        (normalize(ref, language), normalize(hyp, language), is_unspaced(language))
        for ref, hyp, language in zip(references, hypotheses, languages, strict=True)
    ]
    if len(keys) == 1:
        return list(_align(keys))
    known: dict[tuple[str, str, bool], Score] = {}
    scores: list[Score] = []
    for at in range(0, len(keys), BATCH):
        batch = keys[at : at + BATCH]
        todo = list(dict.fromkeys(key for key in batch if key not in known))
        known.update(zip(todo, _align(todo), strict=True))
        scores += [known[key] for key in batch]
        if len(known) > 16 * BATCH:
            known.clear()
    return scores


def _align(pairs: Sequence[tuple[str, str, bool]]) -> Iterator[Score]:
    different = [pair for pair in pairs if pair[0] != pair[1]]
    aligned = iter(align([pair[0] for pair in different], [pair[1] for pair in different]))
    for reference, hypothesis, unspaced in pairs:
        if reference == hypothesis:
            hits, subs, dels, ins = len(reference.split()), 0, 0, 0
        else:
            hits, subs, dels, ins = _counts(next(aligned))
        if unspaced:  # tokens are the characters; the spaces between them are ours
            chars, errors = hits + subs + dels, subs + dels + ins
        else:
            # The distance is unique, so this is jiwer.process_characters without its (unused) alignment.
            chars, errors = len(reference), Levenshtein.distance(reference, hypothesis)
        yield Score(reference, hypothesis, hits, subs, dels, ins, chars, errors)


def _counts(chunks: list[jiwer.AlignmentChunk]) -> tuple[int, int, int, int]:
    hits = subs = dels = ins = 0
    for chunk in chunks:
        length = chunk.ref_end_idx - chunk.ref_start_idx
        if chunk.type == "equal":
            hits += length
        elif chunk.type == "substitute":
            subs += length
        elif chunk.type == "delete":
            dels += length
        else:
            ins += chunk.hyp_end_idx - chunk.hyp_start_idx
    return hits, subs, dels, ins
