"""One text, one language -> the text as it is scored. Whisper's normalisers, chosen by language."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache

from workers.languages import code_of
from workers.quality.whisper_text import BasicNormalizer, EnglishNormalizer

UNSPACED_LANGUAGES = frozenset({"zh", "yue", "wuu", "nan", "hak", "ja", "th", "lo", "my", "km", "bo", "dz"})
"""Languages written without spaces between words: their tokens are characters, so that WER *is* CER there.

Chinese, Japanese, Thai, Lao and Burmese as in the Whisper paper (appendix C), and others of the same scripts or habit.
"""


def is_unspaced(language: str | None) -> bool:
    """Whether ``language`` is judged by characters."""
    return code_of(language) in UNSPACED_LANGUAGES


@cache
def _normalizer(kind: str) -> Callable[[str], str]:
    if kind == "english":
        return EnglishNormalizer()
    return BasicNormalizer(split_letters=kind == "characters")


@lru_cache(maxsize=65_536)
def _normalize(text: str, kind: str) -> str:
    return " ".join(_normalizer(kind)(text).split())


def normalize(text: str, language: str | None) -> str:
    """``text`` as it is scored: tokens with single spaces between them, nothing around.

    English rules for English, whatever name or code it is given by; Whisper's basic ones elsewhere and where the
    language is unknown. In languages written without word spaces every token is one character (grapheme cluster).

    >>> normalize("Mr. Smith's colour,  twenty-one!", "en-GB")
    "mister smith is color 21"
    >>> normalize("今日は。", "ja")
    '今 日 は'
    """
    kind = "english" if code_of(language) == "en" else "characters" if is_unspaced(language) else "basic"
    return _normalize(text, kind)


def scoring_language(language: str | None, normalizer: str) -> str | None:
    """``language`` as :func:`normalize` is to be told it under the recipe's ``asr.normalizer``.

    ``basic`` keeps only what decides on words or characters, so that English gets Whisper's basic rules too.

    >>> scoring_language("en", "basic"), scoring_language("ja", "basic"), scoring_language("en", "whisper")
    (None, 'ja', 'en')
    """
    return language if normalizer == "whisper" or is_unspaced(language) else None
