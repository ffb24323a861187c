"""Identifiers: short, stable hashes of what a thing is. The same input and settings give the same id forever."""

from __future__ import annotations

import json
from typing import Any

from blake3 import blake3


def stable_id(*parts: Any, length: int = 20) -> str:
    """Hash JSON-serialisable ``parts`` to ``length`` hex digits (80 bits by default: collisions are not to be met).

    >>> stable_id("a", 1) == stable_id("a", 1) != stable_id("a1")
    True
    """
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return blake3(text.encode()).hexdigest(length=length // 2)


def seed_of(*parts: Any) -> int:
    """A 32-bit seed drawn from ids, so that random draws are the same on every machine and after every crash."""
    return int(stable_id("seed", *parts, length=8), 16)
