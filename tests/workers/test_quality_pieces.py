"""A cut recording's scores: the pieces' counts add up to the recording's, no word is lost or doubled."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.quality.normalize import normalize
from workers.quality.pieces import score_pieces
from workers.quality.score import score

words = st.lists(st.sampled_from(["ba", "do", "ki", "lu"]), max_size=12)


@given(words, st.lists(words, min_size=1, max_size=5), st.sampled_from([None, "ja"]))
def test_pieces_add_up_to_the_recording(reference: list[str], pieces: list[list[str]], language: str | None) -> None:
    texts = [" ".join(piece) for piece in pieces]
    found = score_pieces(" ".join(reference), texts, language)
    whole = score(" ".join(reference), " ".join(texts), language)
    assert sum(one.errors for one in found) == whole.errors
    assert sum(one.words for one in found) == whole.words
    parts = " ".join(one.normalized_reference for one in found if one.words)
    assert sorted(parts.split()) == sorted(whole.normalized_reference.split())
    for one, text in zip(found, texts, strict=True):
        assert one.normalized_hypothesis == normalize(text, language)
        assert one.hits + one.substitutions + one.insertions == len(one.normalized_hypothesis.split())


def test_a_piece_that_heard_nothing_leaves_its_words_to_its_neighbour() -> None:
    first, second, third = score_pieces("The sun sets late.", ["the", "", "late"], "en")
    assert (first.normalized_reference, first.deletions) == ("the sun sets", 2)
    assert (second.words, second.errors, second.wer) == (0, 0, None)
    assert third.wer == pytest.approx(0.0)
