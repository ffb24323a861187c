"""The gate: whether a run keeps to what it must keep to. Judged once its tables are written, before its manifest is."""

from __future__ import annotations

from collections.abc import Iterator

from schemas.config import Gate, Storage
from schemas.manifest import GateCheck, RunManifest, WordErrors
from workers.quality.slices import CHOSEN
from workers.report.compare import Comparison, two_runs
from workers.report.data import Reader, last_comparable
from workers.report.wording import count, interval, percent, points, span

FAILED = "failed_quality"


def judged(manifest: RunManifest, gate: Gate, destination: str, storage: Storage) -> RunManifest:
    """``manifest`` with what became of the conditions that ``gate`` sets; ``failed_quality`` where one is breached.

    The tables it names must be written: the regression is measured on them and on those of the run before.
    """
    before = last_comparable(manifest, destination, storage) if gate.max_regression is not None else None
    change = None
    if before:
        now, then = (Reader(one, destination, storage) for one in (manifest, before))
        change = two_runs(now.tables(), then.tables()).change()
    found = list(checks(manifest, gate, change))
    status = FAILED if any(one.breached for one in found) else manifest.status
    return manifest.model_copy(update={"gate": found, "status": status})


def checks(manifest: RunManifest, gate: Gate, change: Comparison | None) -> Iterator[GateCheck]:
    """The conditions that are set; ``change`` is the WER of this run against the last comparable one's.

    A rise of WER counts only where its paired interval excludes zero, so that chance alone rarely stops a night.
    What cannot be measured is said, and breaches nothing.
    """
    overall = next((one for one in manifest.word_errors if one.engine == CHOSEN), None)
    if gate.max_wer is not None:
        yield _max_wer(gate.max_wer, overall)
    if gate.max_regression is not None:
        yield _max_regression(gate.max_regression, change)
    if gate.max_reject_rate is not None:
        yield _max_reject_rate(gate.max_reject_rate, manifest)
    if gate.min_kept_hours is not None:
        breached, limit = manifest.hours < gate.min_kept_hours, gate.min_kept_hours
        reason = f"{manifest.hours:.2f} h of speech were published, {'under' if breached else 'at least'} {limit:g} h"
        yield GateCheck(name="min_kept_hours", limit=limit, measured=manifest.hours, breached=breached, reason=reason)


def _max_wer(limit: float, overall: WordErrors | None) -> GateCheck:
    if overall is None:
        reason = "WER could not be judged: nothing has a reference"
        return GateCheck(name="max_wer", limit=limit, measured=None, breached=False, reason=reason)
    ends = interval(overall.wer_low, overall.wer_high)
    within = f" (95% interval {ends})" if ends else ""
    breached = overall.wer > limit
    reason = f"WER {percent(overall.wer)}{within} is {_side(breached)} {percent(limit)}"
    return GateCheck(name="max_wer", limit=limit, measured=overall.wer, breached=breached, reason=reason)


def _max_regression(limit: float, change: Comparison | None) -> GateCheck:
    if change is None:
        reason = "a rise of WER could not be judged: there is no comparable run before, or no reference"
        return GateCheck(name="max_regression", limit=limit, measured=None, breached=False, reason=reason)
    rise = change.difference.value
    breached = change.shown == "higher" and rise > limit
    doubt = {"unknown": "; too few independent speakers or recordings to judge", "none": "; no difference shown"}
    reason = (
        f"WER changed by {span(change)} against the last comparable run, {_side(breached or rise > limit)} "
        f"{points(limit)} points{doubt.get(change.shown, '')}"
    )
    return GateCheck(name="max_regression", limit=limit, measured=rise, breached=breached, reason=reason)


def _max_reject_rate(limit: float, manifest: RunManifest) -> GateCheck:
    """What is tried again and again, as a file that a manifest names and nobody brings, is judged once, not nightly."""
    again = manifest.rejected_again
    members, rejected = manifest.members_in - again, manifest.members_rejected - again
    rate = rejected / members if members else 0.0
    most = sorted(manifest.reject_reasons.items(), key=lambda item: (-item[1], item[0]))[:2]
    mostly = ", mostly " + " and ".join(f"{reason} ({n:,})" for reason, n in most) if most and rejected else ""
    refused = f"{rejected:,} of {count(members, 'member')} ({percent(rate)})"
    breached = rate > limit
    known = f"; {again:,} rejected before, and once more, are not counted" if again else ""
    reason = f"{refused} were rejected, {_side(breached)} {percent(limit)}{mostly}{known}"
    return GateCheck(name="max_reject_rate", limit=limit, measured=rate, breached=breached, reason=reason)


def _side(breached: bool) -> str:
    return "above" if breached else "within"
