"""One code for every language, whatever it is given as: a BCP-47 tag, a code of three letters or an English name."""

from __future__ import annotations

from collections.abc import Sequence

# By Whisper's code, which is ISO 639-1's for all but Javanese: ISO 639-2 and 639-3 (both where the bibliographic one
# differs), and the individual languages of which it is the common one (cmn of zh, arb of ar). First what has two
# letters of its own: withdrawn codes, and those that Whisper writes in another way.
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
# English names: whisper.tokenizer.TO_LANGUAGE_CODE of 20250625
_NAMES = """
af afrikaans|am amharic|ar arabic|as assamese|az azerbaijani|ba bashkir|be belarusian|bg bulgarian|bn bengali|
bo tibetan|br breton|bs bosnian|ca catalan valencian|cs czech|cy welsh|da danish|de german|el greek|en english|
es spanish castilian|et estonian|eu basque|fa persian|fi finnish|fo faroese|fr french|gl galician|gu gujarati|
ha hausa|haw hawaiian|he hebrew|hi hindi|hr croatian|ht haitian_creole haitian|hu hungarian|hy armenian|id indonesian|
is icelandic|it italian|ja japanese|jw javanese|ka georgian|kk kazakh|km khmer|kn kannada|ko korean|la latin|
lb luxembourgish letzeburgesch|ln lingala|lo lao|lt lithuanian|lv latvian|mg malagasy|mi maori|mk macedonian|
ml malayalam|mn mongolian|mr marathi|ms malay|mt maltese|my myanmar burmese|ne nepali|nl dutch flemish|nn nynorsk|
no norwegian|oc occitan|pa punjabi panjabi|pl polish|ps pashto pushto|pt portuguese|ro romanian moldavian moldovan|
ru russian|sa sanskrit|sd sindhi|si sinhala sinhalese|sk slovak|sl slovenian|sn shona|so somali|sq albanian|
sr serbian|su sundanese|sv swedish|sw swahili|ta tamil|te telugu|tg tajik|th thai|tk turkmen|tl tagalog|tr turkish|
tt tatar|uk ukrainian|ur urdu|uz uzbek|vi vietnamese|yi yiddish|yo yoruba|yue cantonese|zh chinese mandarin
"""


def _table(rows: str) -> dict[str, str]:
    cells = [row.split() for row in rows.replace("|", "\n").split("\n") if row]
    return {other.replace("_", " "): code for code, *others in cells for other in others}


CODES, NAMES = _table(_OTHERS), _table(_NAMES)
_NEAREST = {"yue": "zh", "nn": "no"}  # of which a model hears the one as the other


def code_of(language: str | None) -> str:
    """The code of a BCP-47 tag, a code of three letters or an English name, in lower case: Whisper's where it has one,
    the tag's primary subtag elsewhere; empty where there is none.

    >>> code_of("en-US"), code_of("zh_Hant"), code_of("jpn"), code_of("Haitian Creole"), code_of("tlh"), code_of(None)
    ('en', 'zh', 'ja', 'ht', 'tlh', '')
    >>> code_of("nb-NO"), code_of("zh-yue")
    ('no', 'yue')
    """
    name = (language or "").strip().lower().replace("_", "-")
    first, *rest = name.split("-")
    if rest and rest[0] in ("yue", "cmn"):  # BCP 47 lets "zh" stand before them
        first = rest[0]
    return NAMES.get(name.replace("-", " ")) or CODES.get(first, first)


def nearest(code: str) -> str:
    """The language that models which do not know that of ``code`` hear it as; ``code`` itself mostly."""
    return _NEAREST.get(code, code)


def known_code(language: str | None, known: Sequence[str]) -> str | None:
    """The one of the ``known`` codes that ``language`` means, as in :func:`code_of`; None (to be detected) for others.

    >>> known_code("pt-BR", ["en", "pt"]), known_code("German", ["de"]), known_code("tlh", ["en"])
    ('pt', 'de', None)
    >>> known_code("zh-yue", ["zh"])
    'zh'
    """
    code = code_of(language)
    if code not in known:
        code = nearest(code)
    return code if code in known else None
