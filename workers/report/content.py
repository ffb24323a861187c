"""What the report says: everything the template shows, computed from the tables of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.manifest import RunManifest
from schemas.spec import short_names
from workers.quality.bins import SLICES
from workers.quality.flags import FLAGS
from workers.quality.score import scorer
from workers.quality.scored import Scored, scored
from workers.quality.slices import CHOSEN
from workers.report import compare, figures
from workers.report.cost import cost
from workers.report.data import REGENERATED, Reader
from workers.report.evidence import estimate, predictors, signs_of
from workers.report.verdict import verdict
from workers.report.words import confusions
from workers.report.worst import worst

SLICE_ROWS = 40  # of one slice on the page, those with most errors; all are in the quality table
ARCHIVE_ROWS = 200  # those with most rejects; all are in the manifest
CHANGED_SLICES = 12  # with a change since the last run, on the page
COMPARED_VALUES = 1000  # of one slice; slices of more values are not compared: most of them would be too small
KEPT_SHARES = (0.95, 0.9, 0.75, 0.5)  # that thresholds are given for
REJECT_EXAMPLES = 3  # per reason
CONFUSION_UTTERANCES = 50_000  # aligned for the confusion lists; ids are hashes, so the first ones are a fair sample


@dataclass(frozen=True)
class Change:
    """One figure now and in the run before."""

    name: str
    now: float
    before: float
    form: str  # the filter that words it


def content(reader: Reader, previous: Reader | None) -> dict[str, Any]:
    """The template's context for the run of ``reader``; ``previous`` is the run before it, if there is one."""
    manifest = reader.manifest
    utterances, transcripts = reader.tables()
    quality = reader.read("quality", reader.dataset("quality").schema.names).to_pylist()
    rows = scored(utterances, transcripts)
    chosen = rows.take(rows.chosen)
    two = compare.two_runs((utterances, transcripts), previous.tables()) if previous and len(rows.wer) else None
    change = two.change() if two else None
    flagged = _flagged(utterances)
    agreement = _mean(utterances["agreement_wer"])
    denoised = compare.denoising(rows)
    engines = list(dict.fromkeys([*(manifest.digests or {}), *rows.engine.names]))
    foremost = _foremost(utterances)
    engines.sort(key=lambda name: (name != foremost, name))
    compared = compare.engines(rows, engines)
    called = short_names([*engines, *(row["engine"] for row in quality)])
    trips = reader.read("regenerated", ("utterance_id", "text_source", "round_trip_wer"))
    signs = signs_of(utterances, transcripts, trips) if len(chosen.wer) else {}
    found = predictors(chosen, signs) if signs else []
    together = estimate(chosen, signs, _seconds_heard(utterances)) if found else None
    return {
        "manifest": manifest,
        "destination": reader.destination,
        "called": called,
        "verdict": verdict(
            manifest, quality, flagged, agreement, change, _better(compared, denoised, utterances, called)
        ),
        "overall": next((row for row in quality if row["slice"] == "all" and row["engine"] == CHOSEN), None),
        "referenced": len(np.unique(rows.utterance)),
        "agreement": agreement,
        "agreement_close": _share(utterances["agreement_wer"], 0.1),
        "confidence": _confidence(transcripts, foremost),
        "previous": previous.manifest if previous else None,
        "change": change,
        "changes": _changes(manifest, previous.manifest) if previous else [],
        "slice_changes": _slice_changes(two) if two and change else ([], 0),
        "engines": [row for row in quality if row["slice"] == "all"],
        "forest": _forest(quality, called),
        "engine_comparisons": compared,
        "denoising": denoised,
        "denoising_figures": {
            name: figures.by_snr(bins)
            for name, pairs in denoised.items()
            if len(bins := figures.measured_bins(pairs)) > 1
        },
        "slices": _slices(quality),
        "slice_names": {name: name.replace("_", " ") for name in SLICES} | {"snr": "signal-to-noise ratio"},
        "predictors": found,
        "together": together,
        "kept_curve": figures.kept_curve(found, together.predictor if together else None) if found else None,
        "calibration": figures.calibration(together.groups) if together else None,
        "kept_shares": [(100 * share, round(share * 20) - 1) for share in KEPT_SHARES],
        "distributions": _distributions(utterances, chosen),
        "confusions": _confusions(reader, chosen, utterances),
        "rejects": _rejects(reader),
        "flags": [(name, FLAGS[name], flagged.get(name, 0)) for name in FLAGS],
        "worst": worst(reader, utterances, chosen),
        "regenerated": _regenerated(reader),
        "stages": _stages(manifest),
        "cost": cost(manifest),
        "archives": sorted(manifest.archives, key=lambda one: (-one.members_rejected, one.uri))[:ARCHIVE_ROWS],
        "scorer": quality[0]["scorer"] if quality else scorer(),
    }


def _changes(now: RunManifest, before: RunManifest) -> list[Change]:
    def rejected(run: RunManifest) -> float:
        return run.members_rejected / run.members_in if run.members_in else 0.0

    return [
        Change("recordings published", now.members_published, before.members_published, "number"),
        Change("speech", now.hours, before.hours, "hours"),
        Change("recordings rejected", rejected(now), rejected(before), "percent"),
        Change("times real time", now.real_time_factor, before.real_time_factor, "number"),
    ]


def _slice_changes(two: compare.TwoRuns) -> tuple[list[tuple[str, str, compare.Comparison]], int]:
    """(slice, value, change) where a change is shown, at most CHANGED_SLICES, and how many slices were judged."""
    judged = [
        (name, value, one)
        for name in SLICES[1:]
        if name != "speaker" and len(two.rows.slices[name].names) <= COMPARED_VALUES
        for value, one in two.by_slice(name)
        if one.shown != "unknown"
    ]
    changed = sorted((one for one in judged if one[2].shown != "none"), key=lambda one: -abs(one[2].difference.value))
    return changed[:CHANGED_SLICES], len(judged)


def _flagged(utterances: pa.Table) -> dict[str, int]:
    counts = pc.value_counts(pc.list_flatten(utterances["flags"])).to_pylist()
    return {one["values"]: one["counts"] for one in counts}


def _mean(column: pa.ChunkedArray) -> float | None:
    value = pc.mean(column).as_py()
    return None if value is None else float(value)


def _share(column: pa.ChunkedArray, limit: float) -> float | None:
    """Share of the measured values up to ``limit``."""
    return _mean(pc.less_equal(column, limit).cast(pa.float64()))


def _foremost(utterances: pa.Table) -> str:
    """The engine that most chosen transcripts come from."""
    counts = pc.value_counts(utterances["transcript_engine"].drop_null()).to_pylist()
    return str(max(counts, key=lambda one: (one["counts"], one["values"]))["values"]) if counts else ""


def _seconds_heard(utterances: pa.Table) -> np.ndarray:
    """Audio of every utterance, 0 for those that nothing was heard of; (utterances,)."""
    seconds: np.ndarray = utterances["duration_s"].cast(pa.float64()).to_numpy()
    return np.where(utterances["transcript_engine"].is_valid().to_numpy(), seconds, 0.0)


def _better(
    engines: Sequence[compare.Comparison],
    denoised: Mapping[str, Sequence[tuple[str, compare.Comparison]]],
    utterances: pa.Table,
    called: Mapping[str, str],
) -> list[compare.Comparison]:
    """What was not chosen against what was: other engines, where raw audio was chosen, on which they are compared, and
    the foremost engine's other input."""
    foremost = _foremost(utterances)
    inputs = pc.unique(utterances["transcript_input"].drop_null()).to_pylist()
    paired = [one for one in engines if one.other == foremost and inputs == ["raw"]]
    found = [replace(one, first=called[one.first], other=called[one.other]) for one in paired]
    if foremost in denoised and len(inputs) == 1:
        (_, one), *_ = denoised[foremost]
        named = replace(one, first="denoised audio", other="raw audio")
        found.append(named if inputs == ["raw"] else named.reversed())
    return found


def _confidence(transcripts: pa.Table, engine: str) -> float | None:
    """Mean token probability (geometric) of an engine's raw transcripts."""
    mine = transcripts.filter((pc.field("engine") == engine) & (pc.field("input") == "raw"))
    value = _mean(mine["avg_logprob"])
    return None if value is None else float(np.exp(value))


def _forest(quality: list[dict[str, Any]], called: Mapping[str, str]) -> str | None:
    rows = [row for row in quality if row["slice"] == "all" and row["wer"] is not None and row["engine"] != CHOSEN]
    return figures.forest([{**row, "engine": called[row["engine"]]} for row in rows]) if rows else None


@dataclass(frozen=True)
class Slice:
    """A slice on the page: ``rows`` of the chosen transcripts, those with most errors of ``total``, in the order of the
    quality table. ``others`` holds, per row, the rows of every engine and input of ``heard``, None where it has none.
    """

    name: str
    rows: list[dict[str, Any]]
    total: int
    heard: list[tuple[str, str]]
    others: list[list[dict[str, Any] | None]]

    @property
    def top(self) -> float:
        """The rate that bars are drawn up to: small slices may err without measure."""
        judged = [row for row in self.rows if row["wer"] is not None]
        sound = [row for row in judged if not row["small"]] or judged
        return min(1.0, max([max(1.15 * row["wer"], row["wer_high"] or 0.0) for row in sound], default=1.0)) or 1.0


def _slices(quality: list[dict[str, Any]]) -> list[Slice]:
    heard = [(row["engine"], row["input"]) for row in quality if row["slice"] == "all" and row["engine"] != CHOSEN]
    cells = {(row["slice"], row["value"], row["engine"], row["input"]): row for row in quality}
    found = []
    for name in SLICES[1:]:
        rows = [row for row in quality if row["slice"] == name and row["engine"] == CHOSEN]
        shown = rows
        if len(rows) > SLICE_ROWS:
            errors = [-(row["substitutions"] + row["deletions"] + row["insertions"]) for row in rows]
            shown = [rows[at] for at in np.argsort(errors, kind="stable")[:SLICE_ROWS]]
        if rows:
            others = [[cells.get((name, row["value"], *one)) for one in heard] for row in shown]
            found.append(Slice(name, shown, len(rows), heard, others))
    return found


def _distributions(utterances: pa.Table, chosen: Scored) -> list[str]:
    def floats(name: str) -> np.ndarray:
        values: np.ndarray = utterances[name].cast(pa.float64()).to_numpy()
        return values[~np.isnan(values)]

    drawn = []
    duration, before, after = floats("duration_s"), floats("snr_db"), floats("snr_denoised_db")
    if len(duration):
        top = max(1.0, float(np.quantile(duration, 0.995)))
        drawn.append(figures.distribution("duration", [("", duration)], "duration, s", (0, top)))
    if len(before):
        series = [("before denoising", before), *([("after", after)] if len(after) else [])]
        drawn.append(figures.distribution("snr", series, "signal-to-noise ratio, dB", (-5, 45)))
    rated = chosen.wer[~np.isnan(chosen.wer)]
    if len(rated):
        drawn.append(figures.distribution("wer", [("", 100 * rated)], "utterance WER, % (100: all beyond)", (0, 100)))
    agreement = floats("agreement_wer")
    if len(agreement):
        label = "WER between engines, % (100: all beyond)"
        drawn.append(figures.distribution("agreement", [("", 100 * agreement)], label, (0, 100)))
    return drawn


def _confusions(reader: Reader, chosen: Scored, utterances: pa.Table) -> Any:
    """Confusions of the chosen transcripts with errors, at most CONFUSION_UTTERANCES of them."""
    wrong = np.unique(chosen.utterance[chosen.errors > 0])
    if not len(wrong):
        return None
    ids = utterances["utterance_id"].take(pa.array(wrong))
    ids = ids.take(pc.sort_indices(ids)[:CONFUSION_UTTERANCES]).combine_chunks()
    texts = reader.texts(ids)
    owner = utterances.take(pc.index_in(texts["utterance_id"], value_set=utterances["utterance_id"].combine_chunks()))
    mask = pc.and_(
        pc.equal(texts["engine"], owner["transcript_engine"]), pc.equal(texts["input"], owner["transcript_input"])
    )
    texts = texts.filter(pc.fill_null(mask, False))
    pairs = zip(texts["normalized_reference"].to_pylist(), texts["normalized_text"].to_pylist(), strict=True)
    return confusions(pairs)


def _rejects(reader: Reader) -> list[dict[str, Any]]:
    """Per reason: count, stages and a few examples."""
    table = reader.read("rejects", ("archive", "member", "stage", "reason", "message"))
    found = []
    for reason in pc.unique(table["reason"]).to_pylist():
        mine = table.filter(pc.field("reason") == reason)
        stages = sorted(pc.unique(mine["stage"]).to_pylist())
        examples = mine.slice(0, REJECT_EXAMPLES).to_pylist()
        found.append({"reason": reason, "count": mine.num_rows, "stages": ", ".join(stages), "examples": examples})
    return sorted(found, key=lambda one: (-one["count"], one["reason"]))


def _regenerated(reader: Reader) -> list[dict[str, Any]]:
    """Per voice: clips, hours, kept share and mean round-trip WER."""
    table = reader.read("regenerated", REGENERATED)
    if not table.num_rows:
        return []
    kept = pc.fill_null(table["kept"], False).cast(pa.float64())
    groups = table.set_column(table.schema.get_field_index("kept"), "kept", kept).group_by(["engine", "voice"])
    totals = groups.aggregate(
        [("duration_s", "count"), ("duration_s", "sum"), ("kept", "mean"), ("round_trip_wer", "mean")]
    )
    rows = [{**row, "hours": row["duration_s_sum"] / 3600} for row in totals.to_pylist()]
    return sorted(rows, key=lambda row: (row["engine"], row["voice"] or ""))


def _stages(manifest: RunManifest) -> list[dict[str, Any]]:
    """Per stage: seconds and audio seconds per CPU second."""
    most = max((spent.get("cpu_s", 0.0) for spent in manifest.stages.values()), default=0.0)
    return [
        {
            "stage": name,
            "wall_s": spent.get("wall_s", 0.0),
            "cpu_s": spent.get("cpu_s", 0.0),
            "gpu_s": spent.get("gpu_s", 0.0),
            "share": spent.get("cpu_s", 0.0) / most if most else 0.0,
            "speed": None
            if name.startswith("load ") or not spent.get("cpu_s")
            else 3600 * manifest.hours / spent["cpu_s"],
        }
        for name, spent in manifest.stages.items()
    ]
