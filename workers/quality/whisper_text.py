"""Whisper's text normalisers, loaded without torch and run some ten times faster, with identical results.

``import whisper`` pulls in torch (seconds, hundreds of MB), which a scoring process has no use for, so the package's
``normalizers`` folder is loaded on its own from where it is installed. The rules are Whisper's own (Radford et al.
2022, appendix C); only work that provably cannot change the text is skipped:

* a substitution whose pattern contains a literal is not tried on a text that lacks the literal;
* the class of a character is looked up once, not every time it is met;
* the number rules are not run over words none of which is, or can become part of, a number.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import sys
import unicodedata
from functools import cache
from pathlib import Path
from types import ModuleType

from schemas.errors import VoxmillError

_NAME = "_voxmill_whisper_normalizers"


@cache
def whisper_normalizers() -> ModuleType:
    """The module ``whisper.normalizers`` without ``whisper`` itself; raises VoxmillError where it is not installed."""
    spec = importlib.util.find_spec("whisper")
    folder = Path(spec.origin).parent / "normalizers" if spec and spec.origin else None
    if folder is None or not (folder / "__init__.py").exists():
        raise VoxmillError("Whisper's text normalisers are missing", "openai-whisper", "Install openai-whisper.")
    own = importlib.util.spec_from_file_location(
        _NAME, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if own is None or own.loader is None:
        raise VoxmillError("cannot be loaded", str(folder), "Reinstall openai-whisper.")
    module = importlib.util.module_from_spec(own)
    sys.modules[_NAME] = module
    own.loader.exec_module(module)
    return module


def normalizer_version() -> str:
    """Such as ``openai-whisper 20250625``."""
    return f"openai-whisper {importlib.metadata.version('openai-whisper')}"


class _Symbols(dict[int, str]):
    """Lazy ``str.translate`` table that stands for one of Whisper's per-character cleaners."""

    def __init__(self, keep: str, diacritics: dict[str, str] | None) -> None:
        super().__init__()
        self.keep, self.diacritics = keep, diacritics

    def __missing__(self, code: int) -> str:
        char = chr(code)
        category = unicodedata.category(char)
        if char in self.keep:
            out = char
        elif self.diacritics is not None and char in self.diacritics:
            out = self.diacritics[char]
        elif self.diacritics is not None and category == "Mn":
            out = ""
        else:
            out = " " if category[0] in "MSP" else char
        self[code] = out
        return out


class _Brackets:
    """Removal of words between brackets and parentheses, the first step of both normalisers."""

    square, round = re.compile(r"[<\[][^>\]]*[>\]]"), re.compile(r"\(([^)]+?)\)")

    def __call__(self, text: str) -> str:
        text = text.lower()
        if "<" in text or "[" in text:
            text = self.square.sub("", text)
        return self.round.sub("", text) if "(" in text and ")" in text else text


class BasicNormalizer:
    """``BasicTextNormalizer(split_letters=...)``: every language but English."""

    def __init__(self, split_letters: bool = False) -> None:
        self.brackets, self.table = _Brackets(), _Symbols("", None)
        self.split_letters, self.space = split_letters, re.compile(r"\s+")
        if split_letters:
            import regex

            self.grapheme = regex.compile(r"\X", regex.U)

    def __call__(self, text: str) -> str:
        text = self.brackets(text)
        text = (text if text.isascii() else unicodedata.normalize("NFKC", text)).translate(self.table).lower()
        if self.split_letters:
            text = " ".join(self.grapheme.findall(text))
        return self.space.sub(" ", text)


class EnglishNormalizer:
    """``EnglishTextNormalizer``. A text whose numbers its rules cannot digest keeps them as they are written."""

    def __init__(self) -> None:
        module = whisper_normalizers()
        original = module.EnglishTextNormalizer()
        numbers = original.standardize_numbers
        self.brackets = _Brackets()
        self.table = _Symbols(".%$¢€£", module.basic.ADDITIONAL_DIACRITICS)
        self.ignore, self.apostrophe = re.compile(original.ignore_patterns), re.compile(r"\s+'")
        self.hesitations = original.ignore_patterns.replace(r"\b", "").strip("()").split("|")
        self.replacers = [
            (pattern.replace(r"\b", ""), re.compile(pattern), text) for pattern, text in original.replacers.items()
        ]
        self.comma, self.period = re.compile(r"(\d),(\d)"), re.compile(r"\.([^0-9]|$)")
        self.number, self.spelling = numbers, original.standardize_spellings.mapping
        # With no digit and none of these words about, the number rules hand every word on as it is.
        harmless = {"and", "double", "triple", *numbers.following_prefixers, *numbers.suffixers}
        self.numeric, self.digit = numbers.words - harmless, re.compile(r"\d")
        self.symbol, self.percent = re.compile(r"[.$¢€£]([^0-9])"), re.compile(r"([^0-9])%")
        self.space = re.compile(r"\s+")

    def __call__(self, text: str) -> str:
        text = self.brackets(text)
        if any(word in text for word in self.hesitations):
            text = self.ignore.sub("", text)
        if "'" in text:
            text = self.apostrophe.sub("'", text)
        for literal, pattern, replacement in self.replacers:
            if literal in text:
                text = pattern.sub(replacement, text)
        if "," in text:
            text = self.comma.sub(r"\1\2", text)
        if "." in text:
            text = self.period.sub(r" \1", text)
        text = (text if text.isascii() else unicodedata.normalize("NFKD", text)).translate(self.table)
        words = self._numbers(text).split()
        text = " ".join([self.spelling.get(word, word) for word in words])
        if not text.isascii() or any(char in text for char in ".%$"):
            text = self.percent.sub(r"\1 ", self.symbol.sub(r" \1", text))
            text = self.space.sub(" ", text)
        return text

    def _numbers(self, text: str) -> str:
        if "half" not in text and self.numeric.isdisjoint(text.split()) and not self.digit.search(text):
            return text
        try:
            return str(self.number(text))
        except (AssertionError, ValueError, ZeroDivisionError, OverflowError):
            return text  # numbers of thousands of digits; left as they stand on both sides
