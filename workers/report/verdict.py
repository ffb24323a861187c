"""The first screen: is the corpus good, what changed, what needs a person. Rules are few, fixed and written here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.manifest import RunManifest
from workers.quality.flags import FLAGS
from workers.quality.slices import CHOSEN
from workers.report.compare import Comparison
from workers.report.wording import count, name_of, percent, span

REJECTS_LOOK, REJECTS_BAD = 0.01, 0.10  # share of members: a nuisance; a broken source
WER_BAD = 0.5  # every second word wrong: the wrong language, the wrong references or no speech
AGREEMENT_BAD = 0.5
FLAGGED_SHARE = 0.05  # of utterances: where a flag that single utterances always raise becomes news
WORSE_SLICE = 2.0  # lower end of a slice's interval over the whole corpus' WER
_ALWAYS = ("likely_wrong_reference", "probable_hallucination", "wrong_language", "repetition")
_WORST_SLICES = 3


@dataclass(frozen=True)
class Finding:
    """One line for a person; ``level`` is bad, look or note; ``anchor`` the section that shows more."""

    level: str
    text: str
    anchor: str = ""


@dataclass(frozen=True)
class Verdict:
    """``level``: good, look or bad."""

    level: str
    headline: str
    needs: list[Finding]


def verdict(
    manifest: RunManifest, quality: list[dict[str, Any]], flagged: dict[str, int], agreement: float | None,
    change: Comparison | None, better: Sequence[Comparison] = (),
) -> Verdict:  # fmt: skip
    """Judge a run from its manifest, ``quality`` rows, utterances per flag, mean agreement WER and change of WER.

    ``better`` compares what was not chosen (another engine, the other input) with what was.
    """
    overall = next((row for row in quality if row["slice"] == "all" and row["engine"] == CHOSEN), None)
    findings = [
        *_run(manifest),
        *_errors(overall, agreement, change),
        *_better(better),
        *_flags(flagged, manifest.utterances),
        *_slices(quality, overall),
    ]
    order = {"bad": 0, "look": 1}
    needs = sorted(findings, key=lambda one: order[one.level])
    if any(one.level == "bad" for one in needs):
        return Verdict("bad", "Not to be used before someone has looked", needs)
    if needs:
        return Verdict("look", f"Usable, with {count(len(needs), 'thing')} to look at", needs)
    return Verdict("good", "Good", [])


def _run(manifest: RunManifest) -> Iterable[Finding]:
    for check in manifest.gate:
        if check.breached:
            yield Finding("bad", f"Quality gate {check.name}: {check.reason}.", "gate")
        elif check.measured is None:
            yield Finding("look", f"Quality gate {check.name}: {check.reason}.", "gate")
    if not manifest.utterances:
        yield Finding("bad", "Nothing was published.", "rejects")
    if manifest.failed_shards:
        shards = count(len(manifest.failed_shards), "shard")
        yield Finding("look", f"{shards} could not be finished; the next run tries again.", "throughput")
    share = manifest.members_rejected / manifest.members_in if manifest.members_in else 0.0
    if share >= REJECTS_LOOK:
        reasons = sorted(manifest.reject_reasons.items(), key=lambda item: (-item[1], item[0]))[:2]
        most = ", ".join(f"{reason.replace('_', ' ')} ({n:,})" for reason, n in reasons)
        level = "bad" if share >= REJECTS_BAD else "look"
        rejected = count(manifest.members_rejected, "recording")
        yield Finding(
            level, f"{rejected} of {manifest.members_in:,} ({percent(share)}) rejected, mostly {most}.", "rejects"
        )


def _errors(overall: dict[str, Any] | None, agreement: float | None, change: Comparison | None) -> Iterable[Finding]:
    if overall and overall["wer"] is not None and overall["wer"] >= WER_BAD:
        yield Finding("bad", f"{percent(overall['wer'])} of the words are wrong: check language and references.", "wer")
    if not overall and agreement is not None and agreement >= AGREEMENT_BAD:
        yield Finding(
            "bad", f"The engines differ in {percent(agreement)} of the words: check the language.", "evidence"
        )
    if change and change.shown == "higher":
        yield Finding("look", f"WER rose since the last run: {span(change)}.", "changes")


def _better(compared: Sequence[Comparison]) -> Iterable[Finding]:
    for one in compared:
        if one.shown == "lower":
            rates = f"WER {percent(one.first_wer)} against {percent(one.other_wer)}"
            text = f"Shown to be better than {one.other}, which was chosen: {one.first}, {rates}."
            yield Finding("look", text, "wer")


def _flags(flagged: dict[str, int], utterances: int) -> Iterable[Finding]:
    for flag in FLAGS:
        n = flagged.get(flag, 0)
        if n and (flag in _ALWAYS or n >= FLAGGED_SHARE * utterances):
            yield Finding("look", f"{count(n, 'utterance')} flagged {flag.replace('_', ' ')}: {FLAGS[flag]}.", "flags")


def _slices(quality: list[dict[str, Any]], overall: dict[str, Any] | None) -> Iterable[Finding]:
    if not overall or not overall["wer"]:
        return
    worse = [
        row
        for row in quality
        if row["engine"] == CHOSEN
        and row["slice"] in ("archive", "language", "speaker", "format")
        and row["wer_low"] is not None
        and not row["small"]
        and row["wer_low"] > WORSE_SLICE * overall["wer"]
    ]
    for row in sorted(worse, key=lambda row: -row["wer_low"])[:_WORST_SLICES]:
        name = name_of(row["value"]) if row["slice"] == "archive" else row["value"]
        rates = f"WER {percent(row['wer'])}, against {percent(overall['wer'])} over all"
        yield Finding("look", f"{row['slice'].capitalize()} {name}: {rates}.", "slices")
