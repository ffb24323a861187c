"""How numbers are put for people in the report."""

from __future__ import annotations

import math
import posixpath

from workers.report.compare import Comparison

MISSING = "–"


def percent(value: float | None, digits: int = 1) -> str:
    """A share in percent.

    >>> percent(0.0312), percent(None)
    ('3.1%', '–')
    """
    return MISSING if value is None or math.isnan(value) else f"{100 * value:.{digits}f}%"


def interval(low: float | None, high: float | None) -> str:
    """The ends of an interval of shares, in percent.

    >>> interval(0.02, 0.051)
    '2.0 to 5.1'
    """
    return "" if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f}"


def points(value: float) -> str:
    """A difference of shares in percentage points, signed.

    >>> points(-0.012)
    '−1.2'
    """
    return f"{100 * value:+.1f}".replace("-", "−")


def number(value: float | None, digits: int = 0) -> str:
    return MISSING if value is None or math.isnan(value) else f"{value:,.{digits}f}"


def money(value: float) -> str:
    """An amount with three digits that say something.

    >>> money(1234.5), money(12.345), money(0.01234)
    ('1,234', '12.3', '0.0123')
    """
    digits = 2 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:,.{min(8, max(0, digits))}f}"


def hours(value: float) -> str:
    """Hours where there are some, else minutes.

    >>> hours(2.5), hours(0.25)
    ('2.50 h', '15.0 min')
    """
    return f"{value:,.2f} h" if value >= 1 else f"{60 * value:.1f} min"


def seconds(value: float) -> str:
    """A duration in the unit that fits.

    >>> seconds(42.123), seconds(3725)
    ('42.1 s', '1 h 02 min')
    """
    if value < 120:
        return f"{value:.1f} s"
    minutes = round(value / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def count(value: int, noun: str, plural: str = "") -> str:
    """A number with its noun.

    >>> count(1, "utterance"), count(1200, "speech", "speeches")
    ('1 utterance', '1,200 speeches')
    """
    return f"{value:,} {noun if value == 1 else plural or noun + 's'}"


def name_of(uri: str) -> str:
    """The last part of a URL or path."""
    return posixpath.basename(uri.rstrip("/")) or uri


def span(one: Comparison) -> str:
    """The size of a difference with its interval."""
    ends = one.difference
    between = (
        "" if ends.low is None or ends.high is None else f" (95% interval {points(ends.low)} to {points(ends.high)})"
    )
    return f"{points(ends.value)} points{between}"


def judged(one: Comparison) -> str:
    """A comparison in words; says so where it shows nothing."""
    if one.shown == "unknown":
        return f"{span(one)}; too few independent speakers or recordings to judge"
    return f"{span(one)}: {'no difference shown' if one.shown == 'none' else one.shown}"
