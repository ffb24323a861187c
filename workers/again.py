"""What a run would only say again: rejects for reasons that may pass, just as the runs in force have them already.

Such a run publishes nothing. A source that stays away would otherwise make an empty run the latest, night after night.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from schemas.config import Storage
from schemas.reasons import MAY_PASS
from schemas.records import Plan, Receipt, Reject
from schemas.tables import LEDGER, RETRY
from workers.ledger import PastRun
from workers.publishing import read_published
from workers.receipts import Staging
from workers.write import LEDGER_TABLE

_ROW = ("archive", "member", "member_key", "side", "status")
_REJECT = ("archive", "member", "reason", "start_s", "end_s", "utterance_id")
Row = tuple[str | None, ...]


@dataclass(frozen=True)
class Again:
    """What is rejected once more, as (archive, member, reason); a whole source has an empty member."""

    rejects: tuple[tuple[str, str, str], ...]

    @property
    def lines(self) -> list[str]:
        return [f"{archive}{', ' if member else ''}{member}: {reason}" for archive, member, reason in self.rejects]

    def __str__(self) -> str:
        """In one sentence, with one of them."""
        more = f" and {len(self.rejects) - 1:,} more" if self.rejects[1:] else ""
        return f"Everything else found is published already. Rejected as before: {self.lines[0]}{more}."


def sources_again(rejects: Iterable[Reject], runs: Sequence[PastRun]) -> Again | None:
    """``rejects`` of whole sources and archives, if ``runs`` have reported each of them and none has found it since."""
    rejects = list(rejects)
    known = _reported(runs)
    if not rejects or any((one.archive, one.member, one.member_key) not in known for one in rejects):
        return None
    return Again(tuple((one.archive, one.member, str(one.reason)) for one in rejects))


def rejected_as_before(
    plan: Plan,
    receipts: Sequence[Receipt],
    runs: Sequence[PastRun],
    staging: Staging,
    destination: str,
    storage: Storage,
) -> Again | None:
    """What the staged ``receipts`` of ``plan`` reject, if nothing else came of them than ``runs`` with these settings
    have as well: the same members, with the same rejects.

    A member that lost a segment twice in the same way has the same utterances twice: they follow from its content. A
    one-way stream that was read to its end for the first time is news, or else it would be read every night.
    """
    if any(one.members_published and not MAY_PASS.intersection(one.reject_reasons) for one in receipts):
        return None  # at first glance, for nights with much to do
    ledger = _staged(receipts, LEDGER_TABLE, LEDGER.names, staging)
    rows = _rows(ledger, _ROW)
    if not rows or not pc.any(pc.equal(ledger.column("status"), RETRY)).as_py():
        return None
    names = _names(ledger)
    same = [run for run in runs if run.manifest.fingerprint == plan.fingerprint]
    read = {one.id for run in same for one in run.manifest.archives if one.whole}
    streams = {one.archive_uri for one in receipts if not one.members_in}
    if any(one.uri in streams and one.id not in read for one in plan.archives):
        return None
    mine = [(run, _of(run.members, names)) for run in same]
    known = set().union(*(_rows(table, _ROW) for _, table in mine)) if mine else set()
    sources = _reported(runs)
    if any(row not in known and (row[1] or row[:3] not in sources) for row in rows):
        return None
    rejects = _staged(receipts, "rejects", _REJECT, staging)
    members = rejects.filter(pc.not_equal(rejects.column("member"), ""))  # a source's key tells its reason
    before: Counter[Row] = Counter()
    for run, table in mine:
        if table.num_rows:
            found = read_published(run.manifest.files, "rejects", _REJECT, destination, storage)
            before += _rows(_of(found, _names(table.filter(pc.not_equal(table.column("member"), "")))), _REJECT)
    if _rows(members, _REJECT) != before:
        return None
    return Again(tuple(dict.fromkeys(zip(*(rejects.column(name).to_pylist() for name in _REJECT[:3]), strict=True))))


def _reported(runs: Sequence[PastRun]) -> set[Row]:
    """(archive, "", key) of sources and archives that could not be read, as far as no later run has found them."""
    known: dict[str, set[Row]] = {}
    for run in runs:
        for archive in run.manifest.archives:
            if archive.id:
                known.pop(archive.uri, None)
        members = run.members
        sources = members.filter(pc.and_(pc.equal(members.column("member"), ""), pc.equal(members["status"], RETRY)))
        for row in _rows(sources, _ROW[:3]):
            known.setdefault(str(row[0]), set()).add(row)
    return set().union(*known.values())


def _staged(receipts: Sequence[Receipt], table: str, columns: Sequence[str], staging: Staging) -> pa.Table:
    files = [file for receipt in receipts for file in receipt.files if file.table == table]
    pieces = [staging.read(file).select(list(columns)).replace_schema_metadata(None) for file in files]
    return pa.concat_tables(pieces) if pieces else pa.table({name: pa.array([], pa.string()) for name in columns})


def _rows(table: pa.Table, columns: Sequence[str]) -> Counter[Row]:
    return Counter(zip(*(table.column(name).to_pylist() for name in columns), strict=True))


def _names(table: pa.Table) -> pa.Array:
    return pc.binary_join_element_wise(table.column("archive"), table.column("member"), "\0").combine_chunks()


def _of(table: pa.Table, names: pa.Array) -> pa.Table:
    """Rows of ``table`` whose archive and member are among ``names``."""
    return table.filter(pc.is_in(_names(table), names))
