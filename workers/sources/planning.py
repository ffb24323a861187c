"""From discovered archives to shards: list, leave out what is published, cut."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from schemas.config import CorpusParameters
from schemas.ids import stable_id
from schemas.reasons import Reason
from schemas.records import Archive, Discovery, Layout, Plan, Published, Reject, Shard
from workers.sources.beside import Beside
from workers.sources.entries import MB, archive_reject
from workers.sources.listing import Listing, list_archive
from workers.sources.published import is_done, is_refused, is_unchanged, to_skip
from workers.sources.shards import cut

THREADS = 8  # archives listed at once


@dataclass(frozen=True)
class _Part:
    """One archive's share of the plan."""

    shards: tuple[Shard, ...] = ()
    skipped: int = 0
    problems: tuple[Reject, ...] = ()
    is_unopened: bool = False


def make_plan(discovery: Discovery, fingerprint: str, parameters: CorpusParameters, published: Published) -> Plan:
    """What is to be done: shards in archive order, without what ``published`` holds for the same settings.

    A member is left out while its content and its side data are as published, a refusal while it still stands. A tar,
    zip or one-way stream that is done and unchanged is not opened. Sources that cannot be reached are reported every
    time. Raises nothing for bad input.
    """
    known = to_skip(published, parameters)
    counts = Counter(uri for uri, member in known.members if member)
    beside = Beside(parameters.storage)

    def part(archive: Archive) -> _Part:
        try:
            return planned(archive)
        except Exception as error:  # the boundary between an archive and the run
            message = f"could not be planned ({type(error).__name__}: {str(error)[:200]}); the other archives are"
            return _Part(problems=(archive_reject(archive.uri, Reason.ARCHIVE_UNREADABLE, message, archive.version),))

    def planned(archive: Archive) -> _Part:
        if is_unchanged(archive, known):
            return _Part(skipped=counts[archive.uri], is_unopened=True)
        if archive.layout is Layout.STREAM:
            return _stream(archive, fingerprint)
        max_bytes = parameters.recipe.audio.max_member_mb * MB
        listing = list_archive(archive, parameters.storage, max_bytes, beside)
        return _listed(archive, listing, fingerprint, parameters, known)

    with ThreadPoolExecutor(THREADS, thread_name_prefix="plan") as pool:
        parts = list(pool.map(part, discovery.archives))
    problems = [*discovery.rejects, *(reject for part in parts for reject in part.problems)]
    return Plan(
        fingerprint=fingerprint,
        shards=tuple(shard for part in parts for shard in part.shards),
        archives=discovery.archives,
        skipped={a.uri: part.skipped for a, part in zip(discovery.archives, parts, strict=True) if part.skipped},
        rejects=tuple(reject for reject in problems if not is_refused(reject, known)),
        unopened=frozenset(a.uri for a, part in zip(discovery.archives, parts, strict=True) if part.is_unopened),
    )


def _stream(archive: Archive, fingerprint: str) -> _Part:
    shard = Shard(stable_id("stream", archive.id, fingerprint), archive, fingerprint, is_stream=True)
    return _Part(shards=(shard,))


def _listed(
    archive: Archive, listing: Listing, fingerprint: str, parameters: CorpusParameters, known: Published
) -> _Part:
    members = [member for member in listing.members if not is_done(member, archive.uri, known)]
    rejects = [reject for reject in listing.rejects if not is_refused(reject, known)]
    skipped = len(listing.members) + len(listing.rejects) - len(members) - len(rejects)
    shards = cut(archive, members, rejects, fingerprint, parameters.sharding)
    return _Part(shards, skipped, listing.problems)
