"""Long texts in pieces that a voice can speak, with the pauses that belong between them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from workers.languages import code_of

_MARKS = re.compile(r"[,;:–—](?:\s|$)|[、，；：]")


@dataclass(frozen=True)
class Piece:
    """A part of a text; ``pause_s`` is the silence after it, before the next part."""

    text: str
    pause_s: float


def pieces(text: str, language: str | None, most: int, pause_s: float) -> list[Piece]:
    """``text`` whole where it has at most ``most`` characters, else in sentences, as many together as fit.

    A sentence that is longer itself is split after a comma, semicolon, colon or dash, where there is none at a space,
    and where there is none anywhere. The pause after a sentence is ``pause_s`` seconds, within one the half of it;
    after the last piece there is none. Nothing of the text but spaces is lost.

    >>> [piece.text for piece in pieces("One. Two. Three.", "en", 10, 0.4)]
    ['One. Two.', 'Three.']
    """
    text = " ".join(text.split())
    if len(text) <= most:
        return [Piece(text, 0.0)]
    from sentencex import segment

    found: list[Piece] = []
    for sentence in segment(code_of(language) or "en", text):
        parts = list(_parts(sentence.strip(), most))
        for index, part in enumerate(parts):
            pause = pause_s if index == len(parts) - 1 else pause_s / 2
            if found and len(parts) == 1 and len(found[-1].text) + 1 + len(part) <= most:
                found[-1] = Piece(f"{found[-1].text} {part}", pause)
            else:
                found.append(Piece(part, pause))
    return [*found[:-1], Piece(found[-1].text, 0.0)]


def _parts(sentence: str, most: int) -> Iterator[str]:
    """``sentence`` in parts of at most ``most`` characters."""
    while len(sentence) > most:
        head = sentence[: most + 1]
        cuts = [mark.end() for mark in _MARKS.finditer(head) if mark.end() <= most]
        at = cuts[-1] if cuts else (head.rfind(" ") if " " in head.strip() else most)
        at = at if at > 0 else most
        yield sentence[:at].strip()
        sentence = sentence[at:].strip()
    if sentence:
        yield sentence
