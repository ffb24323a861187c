"""Which archives are done to the last member, so that they need not be opened again while they stay as they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from schemas.tables import RETRY
from workers.sources.entries import archive_reject
from workers.sources.published import STORE_REASONS

if TYPE_CHECKING:
    from workers.ledger import PastRun


def done_archives(runs: Sequence[PastRun], fingerprint: str, members: Iterable[tuple[str, str]]) -> frozenset[str]:
    """Ids of archive versions in which a new run with these settings finds nothing to do.

    ``runs`` are those in force, oldest first; ``members`` (archive, member) are what of them the new run may skip.
    An archive's last run decides: it had the same settings, could list the archive, and left nothing of it undone.
    A member that a ledger names and ``members`` lacks, because it is to be tried again, keeps its archive open. That
    the archive itself could not be read does so only until a later run has read it.
    """
    last: dict[str, str] = {}  # archive URI -> id of the version that is done, "" where none is
    named: Counter[str] = Counter()
    for run in runs:
        is_same = run.manifest.fingerprint == fingerprint
        last.update({one.uri: one.id if is_same and one.whole else "" for one in run.manifest.archives})
        last.update(dict.fromkeys(_unlisted(run.members), ""))
        if is_same:
            named.update(_members(run.members))
    known = Counter(uri for uri, _ in members)
    return frozenset(done for uri, done in last.items() if done and known[uri] and known[uri] >= named[uri])


def _members(ledger: pa.Table) -> dict[str, int]:
    """How many members ``ledger`` names, by archive; a name that is there twice counts once, an archive that could not
    be read not at all."""
    ledger = ledger.filter(pc.or_(pc.not_equal(ledger["member"], ""), pc.not_equal(ledger["status"], RETRY)))
    names = pc.unique(pc.binary_join_element_wise(ledger.column("archive"), ledger.column("member"), "\0"))
    archives = pc.list_element(pc.split_pattern(names, "\0", max_splits=1), 0)
    return {one["values"]: one["counts"] for one in pc.value_counts(archives).to_pylist()}


def _unlisted(ledger: pa.Table) -> list[str]:
    """Archives that the store did not give: their refusal is in the ledger, whatever the manifest says of them."""
    refused = ledger.filter(pc.equal(ledger.column("member"), "")).select(["archive", "member_key"]).to_pylist()
    return [
        one["archive"]
        for one in refused
        if one["member_key"] in {archive_reject(one["archive"], why, "").member_key for why in STORE_REASONS}
    ]
