"""What a destination has already: members that need not be done again."""

from __future__ import annotations

from schemas.config import CorpusParameters
from schemas.reasons import Reason
from schemas.records import Archive, Layout, Member, Published, Reject

STORE_REASONS = (Reason.SOURCE_MISSING, Reason.SOURCE_UNREACHABLE, Reason.ACCESS_DENIED)  # of a whole source


SKIPPED_WHOLE = (Layout.TAR, Layout.ZIP, Layout.STREAM)  # one object each, so its version speaks for all members


def is_unchanged(archive: Archive, published: Published) -> bool:
    """Whether ``published`` holds all of ``archive`` as it is now, so that it need not be opened.

    Where the store gives neither ETag nor time, a tar or zip has to be listed to see whether it is still the same, a
    stream whose size is not told either to be read.
    """
    is_told = bool(archive.version.partition("+")[0]) or (archive.layout is Layout.STREAM and archive.size is not None)
    return archive.layout in SKIPPED_WHOLE and is_told and archive.id in published.archives


def to_skip(published: Published, parameters: CorpusParameters) -> Published:
    """What of ``published`` a run may leave out: nothing where it is to process all of it again."""
    return Published() if parameters.reprocess else published


def is_known(member: Member, archive_uri: str, published: Published) -> bool:
    """Whether ``published`` holds ``member`` as it is now, whatever its text, language and speaker."""
    known = published.members.get((archive_uri, member.name))
    return known is not None and known[0] == member.key(archive_uri)


def is_done(member: Member, archive_uri: str, published: Published, *, is_side_final: bool = True) -> bool:
    """Whether ``published`` holds ``member`` as it is now, with the same text, language and speaker.

    Rejected at sight, a member has no side data in the ledger (""): then its key alone decides. It does so, too, where
    side data may be missing (``is_side_final`` False, in a stream that was cut) and there is none.
    """
    if not is_known(member, archive_uri, published):
        return False
    is_open = not is_side_final and (member.text, member.language, member.speaker) == (None, None, None)
    return is_open or published.members[archive_uri, member.name][1] in ("", member.side)


def is_refused(reject: Reject, published: Published) -> bool:
    """Whether ``published`` holds this very refusal: the same file, still refused at sight.

    A source that the store does not give is never known: someone has to see to it, however often it was reported.
    """
    if not reject.member and reject.reason in STORE_REASONS:
        return False
    known = published.members.get((reject.archive, reject.member))
    return known is not None and known[0] == reject.member_key
