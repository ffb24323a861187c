"""Whisper's codes for the languages that a tag, a code of three letters or an English name stands for."""

from __future__ import annotations

from collections.abc import Sequence

from whisper.tokenizer import TO_LANGUAGE_CODE

# By Whisper's code: ISO 639-2 and 639-3 (both where the bibliographic one differs), and the individual languages of
# which it is the common one (cmn of zh, arb of ar). First what has two letters of its own: withdrawn codes, and those
# that Whisper writes in another way.
_OTHERS = """
he iw|id in|yi ji|ro mo|jw jv|no nb|tl fil
af afr|am amh|ar ara arb|as asm|az aze azj|ba bak|be bel|bg bul|bn ben|bo bod tib|br bre|bs bos|ca cat|cs ces cze|
cy cym wel|da dan|de deu ger|el ell gre|en eng|es spa|et est ekk|eu eus baq|fa fas per pes|fi fin|fo fao|fr fra fre|
gl glg|gu guj|ha hau|he heb|hi hin|hr hrv|ht hat|hu hun|hy hye arm|id ind|is isl ice|it ita|ja jpn|jw jav|ka kat geo|
kk kaz|km khm|kn kan|ko kor|la lat|lb ltz|ln lin|lo lao|lt lit|lv lav lvs|mg mlg plt|mi mri mao|mk mkd mac|ml mal|
mn mon khk|mr mar|ms msa may zsm|mt mlt|my mya bur|ne nep npi|nl nld dut|nn nno|no nor nob|oc oci|pa pan|pl pol|
ps pus pst|pt por|ro ron rum mol|ru rus|sa san|sd snd|si sin|sk slk slo|sl slv|sn sna|so som|sq sqi alb als|sr srp|
su sun|sv swe|sw swa swh|ta tam|te tel|tg tgk|th tha|tk tuk|tl tgl|tr tur|tt tat|uk ukr|ur urd|uz uzb uzn|vi vie|
yi yid ydd|yo yor|zh zho chi cmn
"""
_ROWS = [row.split() for row in _OTHERS.replace("|", "\n").split("\n") if row]
_CODES = {other: code for code, *others in _ROWS for other in others}
_NEAREST = {"yue": "zh", "nn": "no"}  # where a model does not know the first


def language_code(language: str | None, known: Sequence[str]) -> str | None:
    """Whisper's code for a BCP-47 tag or an English name; None (to be detected) for a language it does not know.

    >>> language_code("pt-BR", ["en", "pt"]), language_code("German", ["de"]), language_code("tlh", ["en"])
    ('pt', 'de', None)
    >>> language_code("nb-NO", ["no"]), language_code("deu", ["de"]), language_code("zh-yue", ["zh"])
    ('no', 'de', 'zh')
    """
    name = (language or "").strip().lower().replace("_", "-")
    first, *rest = name.split("-")
    if rest and rest[0] in ("yue", "cmn"):  # BCP 47 lets "zh" stand before them
        first = rest[0]
    code = TO_LANGUAGE_CODE.get(name) or _CODES.get(first, first)
    if code not in known:
        code = _NEAREST.get(code, code)
    return code if code in known else None
