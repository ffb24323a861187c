"""Scores: checked by hand, against a second scorer, and by what must always hold. CPU: about 4 s."""

from __future__ import annotations

import json
import random
from pathlib import Path

import kaldialign
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.quality.score import Score, score, score_many


def counts(one: Score) -> tuple[int, int, int, int]:
    return one.hits, one.substitutions, one.deletions, one.insertions


@pytest.mark.parametrize(
    ("reference", "hypothesis", "language", "expected"),
    [
        ("The cat sat on the mat.", "the cat sat on mat", "en", (5, 0, 1, 0)),
        ("I won't, Mr. Smith!", "i will not mister smith", "en", (5, 0, 0, 0)),
        ("red green blue", "red grin blue sky", "en", (2, 1, 0, 1)),
        ("", "thank you", "en", (0, 0, 0, 2)),
        ("[noise]", "thank you", "en", (0, 0, 0, 2)),
        ("yes please", "", "en", (0, 0, 2, 0)),
        ("", "", None, (0, 0, 0, 0)),
        ("Guten Tag", "guten Tag!", "de", (2, 0, 0, 0)),
        ("今日は晴れ", "今日わ晴れ", "ja", (4, 1, 0, 0)),
    ],
)
def test_by_hand(reference: str, hypothesis: str, language: str | None, expected: tuple[int, int, int, int]) -> None:
    assert counts(score(reference, hypothesis, language)) == expected


def test_rates_are_none_where_there_is_nothing_to_divide_by() -> None:
    silent = score("", "thank you", "en")
    assert (silent.wer, silent.cer, silent.errors, silent.char_errors) == (None, None, 2, 9)
    assert score("今日は", "今日", "ja").cer == pytest.approx(1 / 3)
    assert score("abc def", "abd def", "fr").cer == pytest.approx(1 / 7)


def test_a_second_scorer_counts_the_same(shared_data: Path) -> None:
    """kaldialign aligns every reference on its own. Errors and words are the same for each and so in all; where two
    alignments tie, it may split the same errors otherwise into substitutions and pairs of deletion and insertion."""
    rng, texts = random.Random(0), []
    for path in sorted(shared_data.glob("*/metadata.jsonl")):
        found = [json.loads(line) for line in path.read_text().splitlines()]
        texts += [(one["text"], one.get("language")) for one in found if one.get("text")]
    longest = max(range(len(texts)), key=lambda at: len(texts[at][0]))
    pool = [word for text, _ in texts for word in text.split()]
    repeated = list(dict.fromkeys(texts)) * 6  # spoken digits by the thousand have the same few references
    references, hypotheses, languages = [], [], []
    for text, language in [*texts, *repeated, texts[longest]]:
        rate, words = rng.choice([0.0, 0.1, 0.4, 1.0]), []
        for word in text.split():
            draw = rng.random()
            if draw > rate / 4:
                words.append(rng.choice(pool) if draw < 3 * rate / 4 else word)
            if rng.random() < rate / 4:
                words.append(rng.choice(pool))
        references.append(text)
        hypotheses.append(" ".join(words))
        languages.append(language)
    ties, ours, other = 0, [0, 0], [0, 0]
    for one in score_many(references, hypotheses, languages):
        reference, hypothesis = one.normalized_reference.split(), one.normalized_hypothesis.split()
        theirs = kaldialign.edit_distance(reference, hypothesis)
        assert one.errors == theirs["total"]
        assert one.insertions - one.deletions == theirs["ins"] - theirs["del"] == len(hypothesis) - len(reference)
        assert one.words == len(reference)
        ours, other = (
            [ours[0] + one.errors, ours[1] + one.words],
            [other[0] + theirs["total"], other[1] + theirs["ref_len"]],
        )
        ties += (one.substitutions, one.deletions) != (theirs["sub"], theirs["del"])
        if not any(char > "\u3040" for char in one.normalized_reference):
            left, right = one.normalized_reference, one.normalized_hypothesis
            assert one.char_errors == kaldialign.edit_distance(list(left), list(right))["total"]
    assert ours == other
    assert ties < 0.15 * len(references)


TEXT = st.lists(st.sampled_from(["red", "green", "blue", "colour", "one", "two", "it's"]), max_size=7).map(" ".join)
PAIRS = st.lists(st.tuples(TEXT, TEXT, st.sampled_from(["en", "de", "ja", None])), max_size=6)


@given(PAIRS)
@settings(max_examples=150)
def test_many_at_once_are_scored_as_each_alone(pairs: list[tuple[str, str, str | None]]) -> None:
    together = score_many(*(list(column) for column in zip(*pairs, strict=True))) if pairs else score_many([], [], [])
    assert together == [score(*pair) for pair in pairs]
    for one in together:
        assert one.hits + one.substitutions + one.insertions == len(one.normalized_hypothesis.split())
        assert max(one.words, one.hits + one.insertions + one.substitutions) >= one.errors


def test_lists_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="2 references, 1 hypotheses"):
        score_many(["a", "b"], ["a"], "en")
