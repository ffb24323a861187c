"""What a destination has already: members that need not be done again."""

from __future__ import annotations

from schemas.reasons import Reason
from schemas.records import Member, Published, Reject

_STORE_REASONS = (Reason.SOURCE_MISSING, Reason.SOURCE_UNREACHABLE, Reason.ACCESS_DENIED)


def is_done(member: Member, archive_uri: str, published: Published, *, is_side_final: bool = True) -> bool:
    """Whether ``published`` holds ``member`` as it is now, with the same text, language and speaker.

    Rejected at sight, a member has no side data in the ledger (""): then its key alone decides. It does so, too, where
    side data may still come (``is_side_final`` False, in a stream) and none has come yet.
    """
    known = published.members.get((archive_uri, member.name))
    if known is None or known[0] != member.key(archive_uri):
        return False
    is_open = not is_side_final and (member.text, member.language, member.speaker) == (None, None, None)
    return is_open or known[1] in ("", member.side)


def is_refused(reject: Reject, published: Published) -> bool:
    """Whether ``published`` holds this very refusal: the same file, still refused at sight.

    A source that the store does not give is never known: someone has to see to it, however often it was reported.
    """
    if not reject.member and reject.reason in _STORE_REASONS:
        return False
    known = published.members.get((reject.archive, reject.member))
    return known is not None and known[0] == reject.member_key
