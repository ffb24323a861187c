"""Errors meant for the person who runs voxmill: what was wrong, where, and what to do about it."""

from __future__ import annotations


class VoxmillError(Exception):
    """A problem that stops a run (or one command) and that its reader can act on.

    ``what`` says what was wrong, ``where`` names the URI, member or field, ``do`` the next step; ``str()`` is one line.
    """

    def __init__(self, what: str, where: str = "", do: str = "") -> None:
        self.what, self.where, self.do = what, where, do
        super().__init__(what, where, do)

    def __str__(self) -> str:
        line = f"{self.where}: {self.what}" if self.where else self.what
        return " ".join(f"{line}. {self.do}".split()) if self.do else " ".join(line.split())


class MemberError(Exception):
    """One member (or segment, or text) that cannot be processed; becomes a row of ``rejects``.

    ``reason`` is a code of :class:`schemas.reasons.Reason`.
    """

    def __init__(self, reason: str, message: str) -> None:
        self.reason, self.message = reason, message
        super().__init__(reason, message)

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"
