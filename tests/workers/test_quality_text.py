"""Whisper's normalisers: the fast ones give what the originals give, and come without torch. CPU: about 6 s."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from workers.quality.normalize import normalize
from workers.quality.whisper_text import BasicNormalizer, EnglishNormalizer, whisper_normalizers

ENGLISH, BASIC, LETTERS = EnglishNormalizer(), BasicNormalizer(), BasicNormalizer(split_letters=True)
ORIGINAL = whisper_normalizers()
ORIGINALS = {
    ENGLISH: ORIGINAL.EnglishTextNormalizer(),
    BASIC: ORIGINAL.BasicTextNormalizer(),
    LETTERS: ORIGINAL.BasicTextNormalizer(split_letters=True),
}
# What the rules are about: every number word, contraction and sign, and what may stand beside them.
WORDS = sorted(
    {*ENGLISH.number.words, *(literal for literal, _, _ in ENGLISH.replacers), *ENGLISH.hesitations}
    | {
        "half",
        "a",
        "and a half",
        "$5",
        "$20.07",
        ".5",
        "10%",
        "5,000",
        "3rd",
        "£",
        "¢7",
        "1s",
        "x2",
        "£3 and ¢7",
        "-",
        "'",
    }
    | {
        "the",
        "cat",
        "[noise]",
        "(laughs)",
        "<unk>",
        "naïve",
        "straße",
        "ﬁne",
        "e\u0301",
        "٣",
        "½",
        "²",
        "colour",
        "...",
        ".",
    }
)


def same(text: str) -> None:
    for fast, original in ORIGINALS.items():
        assert fast(text).split() == original(text).split(), text


@given(st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join))
@settings(max_examples=1500)
def test_number_words_and_contractions_come_out_as_whisper_writes_them(text: str) -> None:
    same(text)


@given(st.text(max_size=30))
@settings(max_examples=500)
def test_any_text_comes_out_as_whisper_writes_it(text: str) -> None:
    same(text)


def test_real_references_come_out_as_whisper_writes_them(shared_data: Path) -> None:
    texts = {
        json.loads(line).get("text") or ""
        for path in shared_data.glob("*/metadata.jsonl")
        for line in path.read_text().splitlines()
    }
    assert len(texts) > 90
    for text in texts:
        same(text)


def test_numbers_too_long_for_the_rules_stay_as_they_are() -> None:
    assert normalize("call " + "7" * 5000, "en") == "call " + "7" * 5000


def test_the_language_chooses_the_rules() -> None:
    text = "Twenty-one colours"
    assert normalize(text, "en-GB") == "21 colors"
    assert normalize(text, "de") == normalize(text, None) == "twenty one colours"
    assert normalize("今天，天气", "zh-Hans") == normalize("今天天气", "yue") == "今 天 天 气"
    assert normalize("今天，天气", "Chinese") == normalize("今天天气", "zho") == "今 天 天 气"
    assert normalize("twenty one", "English") == normalize("twenty one", "eng") == "21"


def test_normalising_loads_no_torch() -> None:
    code = "import sys, workers.quality.slices as s; from workers.quality.score import score; score('a', 'b', 'en'); "
    done = subprocess.run(
        [sys.executable, "-c", code + "print('torch' in sys.modules)"], capture_output=True, text=True
    )
    assert done.stdout.strip() == "False", done.stderr
