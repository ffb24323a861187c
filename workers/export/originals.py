"""Utterances' own recordings again: the archives are read as the run read them, and the pieces cut out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from schemas.config import Recipe, Sharding, Storage
from schemas.errors import MemberError, VoxmillError
from schemas.records import Archive, Layout, Member, Published
from workers.decoding.decoder import Decoder
from workers.sources.entries import MB
from workers.sources.listing import list_archive
from workers.sources.read import read_contents
from workers.sources.stream import LateReferences, read_stream

Row = dict[str, Any]


def originals(
    rows: Sequence[Row], archives: Sequence[Archive], recipe: Recipe, storage: Storage
) -> Iterator[tuple[Row, np.ndarray | str]]:
    """Each of ``rows`` (of ``utterances``) with its samples, float32 mono at the recipe's working rate, archive by
    archive; or with why there are none: its recording is gone, has changed since, or cannot be decoded any more.

    Raises VoxmillError where an archive cannot be read at all.
    """
    layouts = {archive.uri: archive for archive in archives}
    by_archive: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        by_archive.setdefault(row["archive"], {}).setdefault(row["member_key"], []).append(row)
    with Decoder(recipe.audio) as decoder:
        for uri, wanted in by_archive.items():
            left = dict(wanted)
            for member, data in _contents(layouts[uri], set(wanted), recipe, storage):
                group = left.pop(member.key(uri), None)
                if group is not None:
                    yield from _cut(group, member, data, decoder, recipe.audio.sample_rate)
            for group in left.values():
                yield from ((row, "the recording is gone, or another one now") for row in group)


def _contents(
    archive: Archive, keys: set[str], recipe: Recipe, storage: Storage
) -> Iterator[tuple[Member, bytes | MemberError]]:
    """The members of ``keys`` with their bytes; an archive that is read only from its start is read once."""
    if archive.layout is Layout.STREAM:
        for part in read_stream(archive, storage, "export", Sharding(), recipe.audio, Published()):
            if not isinstance(part, LateReferences):
                yield from (one for one in part.payloads if one[0].key(archive.uri) in keys)
        return
    listing = list_archive(archive, storage, recipe.audio.max_member_mb * MB)
    if listing.problems and not listing.members:
        raise VoxmillError(listing.problems[0].message, archive.uri, "Export denoised clips, or bring the archive back")
    yield from read_contents([one for one in listing.members if one.key(archive.uri) in keys], archive.layout, storage)


def _cut(
    rows: Sequence[Row], member: Member, data: bytes | MemberError, decoder: Decoder, rate: int
) -> Iterator[tuple[Row, np.ndarray | str]]:
    clip = None
    if member.clip_start_s is not None or member.clip_duration_s is not None:
        clip = (member.clip_start_s or 0.0, member.clip_duration_s)
    (answer,) = decoder.decode_many([(member.name, data, clip)])
    for row in rows:
        if isinstance(answer, MemberError):
            yield row, answer.message
            continue
        start = round((row["start_s"] - (member.clip_start_s or 0.0)) * rate)
        stop = start + round((row["end_s"] - row["start_s"]) * rate)
        yield row, answer.samples[row["channel"] or 0][max(0, start) : stop]
