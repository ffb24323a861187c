"""Text as it is spoken: numbers and abbreviations written out, by num2words where it has the language."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cache
from typing import Any

from workers.languages import code_of

# Abbreviations that a voice would spell or stop at. With a full stop only where one is written here.
_ABBREVIATIONS: dict[str, dict[str, str]] = {
    "en": {
        "Dr.": "Doctor", "Mr.": "Mister", "Mrs.": "Missis", "Ms.": "Miss", "Prof.": "Professor", "Jr.": "Junior",
        "Sr.": "Senior", "Gen.": "General", "Sgt.": "Sergeant", "Capt.": "Captain", "Lt.": "Lieutenant",
        "Rev.": "Reverend", "Hon.": "Honorable", "Mt.": "Mount", "vs.": "versus", "e.g.": "for example",
        "i.e.": "that is", "etc.": "et cetera", "approx.": "approximately", "Inc.": "Incorporated", "Ltd.": "Limited",
    },
    "de": {
        "z.B.": "zum Beispiel", "z. B.": "zum Beispiel", "d.h.": "das heißt", "d. h.": "das heißt",
        "usw.": "und so weiter", "bzw.": "beziehungsweise", "ca.": "circa", "Dr.": "Doktor", "Prof.": "Professor",
        "Hr.": "Herr", "Fr.": "Frau", "Nr.": "Nummer", "Str.": "Straße",
    },
    "fr": {
        "M.": "Monsieur", "Mme": "Madame", "Mlle": "Mademoiselle", "Dr": "Docteur", "p. ex.": "par exemple",
        "etc.": "et cetera", "env.": "environ",
    },
    "es": {
        "Sr.": "señor", "Sra.": "señora", "Srta.": "señorita", "Dr.": "doctor", "Dra.": "doctora", "Ud.": "usted",
        "Uds.": "ustedes", "p. ej.": "por ejemplo", "etc.": "etcétera",
    },
}  # fmt: skip
_SIGNS: dict[str, dict[str, str]] = {
    "en": {"%": "percent", "&": "and", "+": "plus", "=": "equals"},
    "de": {"%": "Prozent", "&": "und", "+": "plus", "=": "gleich"},
    "fr": {"%": "pour cent", "&": "et", "+": "plus", "=": "égale"},
    "es": {"%": "por ciento", "&": "y", "+": "más", "=": "igual a"},
}
_CURRENCIES = {"$": "USD", "€": "EUR", "£": "GBP", "¥": "JPY"}
_QUOTES = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "„": '"', "\u00a0": " ", "\u202f": " ", "…": "..."})
_DIGITS_FROM = 7  # a longer row of digits without marks is a telephone number or an identifier: read digit by digit
_DIGITS_UP_TO = 15  # of a number that is said as one: what a float holds exactly
_FEWER_DIGITS = {"am": 6}  # num2words turns round for ever in most of Amharic's numbers from a million on

_AMOUNT = r"\d+(?:[.,]\d{3})*(?:[.,]\d+)?"
_NUMBER = re.compile(
    rf"(?P<currency>[$€£¥])\s?(?P<sum>{_AMOUNT})"
    rf"|(?P<after>{_AMOUNT})\s?(?P<unit>[$€£¥])"
    r"|\b(?P<hours>[01]?\d|2[0-3]):(?P<minutes>[0-5]\d)\b"
    r"|\b(?P<ordinal>\d+)(?:st|nd|rd|th)\b"
    rf"|(?P<minus>(?<![\w.])[-−])?(?P<number>{_AMOUNT})"
)


def spoken_text(text: str, language: str | None) -> str:
    """``text`` in Unicode's composed form with numbers, amounts, times, signs and usual abbreviations as words.

    ``language`` is a BCP-47 tag, a code of three letters or an English name, English where None. In a language that
    num2words does not have, and where it fails, digits stay as they are: the voice says them itself, or they are
    reported as unsayable.

    >>> spoken_text("Dr. Who paid $3.50 in 1984.", "en")
    'Doctor Who paid three dollars, fifty cents in nineteen eighty-four.'
    """
    primary, region = code_of(language) or "en", (language or "").replace("_", "-").partition("-")[2]
    text = unicodedata.normalize("NFC", text).translate(_QUOTES)
    for short, long in _ABBREVIATIONS.get(primary, {}).items():
        text = re.sub(rf"(?<!\w){re.escape(short)}(?!\w)", long, text)
    words = _words_of(primary, region.upper())
    if words is not None:
        text = _NUMBER.sub(lambda match: _apart(match, _said(match, words, primary)), text)
    for sign, word in _SIGNS.get(primary, {}).items():
        text = text.replace(sign, f" {word} ")
    return re.sub(r" (?=[.,;:!?](?:\s|$))", "", " ".join(text.split()))


@cache
def _words_of(primary: str, region: str) -> Callable[..., str] | None:
    """num2words for a language and region, or None where it has not got it."""
    from num2words import CONVERTER_CLASSES, num2words

    name = next((one for one in (f"{primary}_{region}", primary) if one in CONVERTER_CLASSES), None)
    return None if name is None else lambda value, to="cardinal", **more: num2words(value, lang=name, to=to, **more)


def _apart(match: re.Match[str], words: str) -> str:
    """``words`` with spaces where the number touched letters, as in ``A4``."""
    before = match.string[match.start() - 1 : match.start()] if match.start() else ""
    after = match.string[match.end() : match.end() + 1]
    return f"{' ' if before.isalnum() else ''}{words}{' ' if after.isalnum() else ''}"


def _said(match: re.Match[str], words: Callable[..., str], language: str) -> str:
    """The match in words; as it stands where num2words cannot say it. Its languages raise whatever comes of what they
    lack, and some take for ever over a long number."""
    is_plain = (match["number"] or "").isdigit()
    most = _FEWER_DIGITS.get(language, _DIGITS_UP_TO)
    if not is_plain and sum(character.isdigit() for character in match[0]) > most:
        return match[0]
    try:
        return _say(match, words, language)
    except Exception:
        return match[0]


def _say(match: re.Match[str], words: Callable[..., str], language: str) -> str:
    found = match.groupdict()
    if found["hours"] is not None:
        hours, minutes = int(found["hours"]), int(found["minutes"])
        return f"{words(hours)} {words(minutes)}" if minutes else words(hours)
    if found["ordinal"] is not None:
        return words(int(found["ordinal"]), to="ordinal")
    amount = found["sum"] or found["after"]
    if amount is not None:
        code = _CURRENCIES[found["currency"] or found["unit"]]
        value = _value(amount, language)
        try:
            return words(
                float(value) if isinstance(value, float) else value * 1.0, to="currency", currency=code
            ).replace(_no_cents(words, code), "")
        except (NotImplementedError, KeyError, TypeError):
            return f"{words(value)} {found['currency'] or found['unit']}"
    number = found["number"]
    if number.isdigit() and (len(number) >= _DIGITS_FROM or (len(number) > 1 and number[0] == "0")):
        return " ".join(words(int(digit)) for digit in number)
    value = _value(number, language)
    if language == "en" and number.isdigit() and len(number) == 4 and 1100 <= value <= 2099 and not found["minus"]:
        return words(value, to="year")
    return words(-value if found["minus"] else value)


def _no_cents(words: Callable[..., str], code: str) -> str:
    """What num2words adds to a round sum, such as ``, zero cents``."""
    try:
        round_sum, other = (words(value, to="currency", currency=code) for value in (2.0, 3.0))
    except (NotImplementedError, KeyError, TypeError):
        return "\0"
    count = 0
    while count < min(len(round_sum), len(other)) and round_sum[-1 - count] == other[-1 - count]:
        count += 1
    tail = round_sum[len(round_sum) - count :]
    cut = tail.find(", ")
    return tail[cut:] if cut >= 0 else "\0"


def _value(amount: str, language: str) -> Any:
    """``1,234.5`` and, where commas are decimal, ``1.234,5`` as a number. Three digits after one mark: thousands only
    where the mark groups them in that language."""
    group, point = (",", ".") if language in ("en", "zh", "ja", "ko", "th", "he", "hi") else (".", ",")
    plain = re.sub(rf"{re.escape(group)}(?=\d{{3}}(?!\d))", "", amount).replace(group, ".").replace(point, ".")
    if plain.count(".") > 1:
        plain = plain.replace(".", "")
    return float(plain) if "." in plain else int(plain)
