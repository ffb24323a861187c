"""How counts, durations and sizes are put for people: one wording for logs, artifacts and the terminal."""

from __future__ import annotations

import datetime as dt
import posixpath

from schemas.manifest import RunManifest
from schemas.spec import short_names


def clock(seconds: float) -> str:
    """``seconds`` as h:mm:ss.

    >>> clock(3725.4)
    '1:02:05'
    """
    return str(dt.timedelta(seconds=round(seconds)))


def count(number: int, noun: str) -> str:
    """``number`` with its noun.

    >>> count(1, "member"), count(1200, "member"), count(2, "archive")
    ('1 member', '1,200 members', '2 archives')
    """
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def size(number: float) -> str:
    """Bytes with a decimal unit.

    >>> size(999), size(25_300_000)
    ('999 B', '25.3 MB')
    """
    if abs(number) < 1000:
        return f"{number:.0f} B"
    for unit in ("kB", "MB", "GB"):
        number /= 1000
        if abs(number) < 1000:
            return f"{number:.1f} {unit}"
    return f"{number / 1000:.1f} TB"


def rate(wer: float, low: float | None = None, high: float | None = None) -> str:
    """A word error rate in percent with its interval, where one is known.

    >>> rate(0.0312, 0.02, 0.05), rate(0.5)
    ('3.1% (2.0 to 5.0)', '50.0%')
    """
    interval = "" if low is None or high is None else f" ({100 * low:.1f} to {100 * high:.1f})"
    return f"{wer:.1%}{interval}"


def name_of(uri: str) -> str:
    """The last part of a URL or path: what people call an archive by."""
    return posixpath.basename(uri.rstrip("/")) or uri


def yield_of(kept_hours: float, made_hours: float) -> str:
    """What a round trip leaves of regenerated speech.

    >>> yield_of(1.5, 2.0)
    'yield 75.0%: 1.50 of 2.00 h made are kept after the round trip'
    """
    share = f"{kept_hours / made_hours:.1%}" if made_hours else "0%"
    return f"yield {share}: {kept_hours:.2f} of {made_hours:.2f} h made are kept after the round trip"


def engine_names(manifest: RunManifest) -> dict[str, str]:
    """What the engines of a run are called where there is little room."""
    return short_names(one.engine for one in manifest.word_errors)
