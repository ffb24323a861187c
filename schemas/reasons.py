"""Reason codes of the ``rejects`` table. A code, once published, never changes its meaning."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why a member or segment was not published. The value is what stands in ``rejects.reason``."""

    # the source or archive as a whole (one reject row with an empty member name)
    SOURCE_MISSING = "source_missing"  # nothing at this URI, or no such bucket
    SOURCE_UNREACHABLE = "source_unreachable"  # the store did not answer, or not as a store
    ACCESS_DENIED = "access_denied"  # the store refused these credentials
    ARCHIVE_UNREADABLE = "archive_unreadable"  # not the archive its name says, or its index is broken
    ARCHIVE_TRUNCATED = "archive_truncated"  # ends in the middle; members before the cut are processed
    ARCHIVE_EMPTY = "archive_empty"  # an archive or folder without members

    # the member, from its name and headers
    NOT_AUDIO = "not_audio"  # a file of another kind
    HEADERLESS_AUDIO = "headerless_audio"  # raw samples without a header: rate and depth unknown
    UNSAFE_PATH = "unsafe_path"  # absolute, or leads out of the archive through ..
    NOT_A_FILE = "not_a_file"  # link, device, pipe or socket
    DUPLICATE_MEMBER = "duplicate_member"  # a name that came before in the same archive
    ENCRYPTED = "encrypted"  # password-protected zip member
    MEMBER_TOO_LARGE = "member_too_large"  # stored bytes over the limit
    MEMBER_UNREADABLE = "member_unreadable"  # cannot be read or fails its checksum
    MEMBER_MISSING = "member_missing"  # a manifest or a listing names it, nothing (or not all of it) is there
    MANIFEST_LINE = "manifest_line"  # a manifest line that says no usable thing

    # decoding
    EMPTY_FILE = "empty_file"  # zero bytes
    UNDECODABLE = "undecodable"  # neither libsndfile nor FFmpeg can read it
    ABSURD_HEADER = "absurd_header"  # header promises more than the file can hold or a limit allows
    DECODER_CRASHED = "decoder_crashed"  # took its decoder process down
    DECODER_TIMEOUT = "decoder_timeout"  # did not decode in time
    EMPTY_AUDIO = "empty_audio"  # decodes to no samples
    NON_FINITE = "non_finite"  # samples that are NaN or infinite
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    SILENT = "silent"  # never above the silence floor
    NO_SPEECH = "no_speech"  # voice activity detection found none

    # engines
    ENGINE_FAILED = "engine_failed"
    OUT_OF_MEMORY = "out_of_memory"  # even alone in its batch
    EMPTY_TEXT = "empty_text"  # nothing to speak
    TEXT_TOO_LONG = "text_too_long"
    UNKNOWN_VOICE = "unknown_voice"  # the voice engine has none of this name
    NOTHING_PRONOUNCEABLE = "nothing_pronounceable"


MAY_PASS = frozenset(
    (
        Reason.SOURCE_MISSING,
        Reason.SOURCE_UNREACHABLE,
        Reason.ACCESS_DENIED,  # permissions change without a new version of what they are for
        Reason.MEMBER_MISSING,
        Reason.DECODER_TIMEOUT,  # on a busy machine
        Reason.OUT_OF_MEMORY,  # on a device that others use
    )
)
"""Reasons that lie around a member, not in it. One of which all or a segment was rejected for such a reason, while it
was read, decoded, heard or spoken, is tried again by the next run. All others hold as long as the member and the
settings stay the same."""
