"""What a run would do, without doing it: discovery and plan alone, so no audio is read beyond headers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from prefect.logging import disable_run_logger
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from flows.corpus import fingerprint_of, parameters_of, readable
from flows.credentials import access
from schemas.config import CorpusParameters
from schemas.records import Plan, Shard
from tasks.discover import discover
from tasks.plan import plan
from tasks.runs import latest_manifest
from tasks.wording import clock, count, name_of, size
from workers.ledger import published, runs_in_force


@dataclass(frozen=True)
class Pace:
    """Audio seconds per wall second to expect, and the run that it was measured on."""

    real_time_factor: float
    run_id: str
    same_settings: bool


@dataclass(frozen=True)
class Preview:
    """A plan and, where an earlier run of this destination tells, the pace to expect."""

    plan: Plan
    pace: Pace | None


def preview(form: dict[str, Any]) -> Preview:
    """Plan what the corpus flow would do for the same ``form``. Raises VoxmillError as the flow does."""
    parameters = parameters_of(**form)
    with access(parameters.storage), disable_run_logger():
        recipe = parameters.recipe
        fingerprint = fingerprint_of(recipe, recipe.engines, parameters.storage, parameters.trusted)
        discovery = readable(discover.fn(parameters.sources, parameters.storage))
        known = published(runs_in_force(parameters.destination, parameters.storage), fingerprint)
        planned = plan.fn(discovery, fingerprint, parameters, known)
        return Preview(planned, _pace(parameters, fingerprint))


def _pace(parameters: CorpusParameters, fingerprint: str) -> Pace | None:
    manifest = latest_manifest(
        parameters.destination, parameters.storage, lambda run: run.kind == "corpus" and run.real_time_factor > 0
    )
    if manifest is None:
        return None
    return Pace(manifest.real_time_factor, manifest.run_id, manifest.fingerprint == fingerprint)


def table(found: Preview) -> RenderableType:
    """The plan for a terminal: one row per archive, totals, what is rejected at sight, the time it may take."""
    planned = found.plan
    shards: dict[str, list[Shard]] = {archive.uri: [] for archive in planned.archives}
    for shard in planned.shards:
        shards.setdefault(shard.archive.uri, []).append(shard)
    grid = Table(
        box=None, pad_edge=False, collapse_padding=True, header_style="dim", title="Plan", title_justify="left",
        title_style="bold",
    )  # fmt: skip
    grid.add_column("archive", overflow="fold", min_width=12)
    grid.add_column("layout", overflow="fold")
    for name in ("size", "published already", "to do", "rejected at sight", "hours (about)", "shards"):
        # heads wrap at spaces; no column is cut down to nothing where the terminal is narrow
        grid.add_column(name, justify="right", overflow="fold", min_width=max(map(len, name.split())))
    for archive in planned.archives:
        mine = shards[archive.uri]
        stream = any(shard.is_stream for shard in mine)
        grid.add_row(
            Text(name_of(archive.uri)),
            str(archive.layout),
            "" if archive.size is None else size(archive.size),
            f"{planned.skipped.get(archive.uri, 0):,}",
            "known when read" if stream else f"{sum(len(shard.members) for shard in mine):,}",
            "" if stream else f"{sum(len(shard.rejects) for shard in mine):,}",
            "" if stream else f"{_hours(mine):.2f}",
            "as it is read" if stream else f"{len(mine):,}",
        )
    grid.add_section()
    grid.add_row(
        "all",
        "",
        size(sum(archive.size or 0 for archive in planned.archives)),
        f"{sum(planned.skipped.values()):,}",
        f"{sum(len(shard.members) for shard in planned.shards):,}",
        f"{sum(len(shard.rejects) for shard in planned.shards):,}",
        f"{_hours(planned.shards):.2f}",
        f"{len(planned.shards):,}",
        style="bold",
    )
    return Group(grid, *_rejected(planned), Text("\n" + estimate(found)))


def estimate(found: Preview) -> str:
    """How long the plan may take, and what that rests on."""
    planned = found.plan
    if not planned.shards:
        return "Nothing to do: everything found is published already for these settings."
    streams = sum(shard.is_stream for shard in planned.shards)
    unknown = f", and {count(streams, 'one-way stream')} of unknown length" if streams else ""
    hours = f"About {_hours(planned.shards):.2f} h of audio{unknown}"
    if found.pace is None:
        return f"{hours}. No run is published here yet that would tell how long that takes."
    pace = found.pace
    settings = "" if pace.same_settings else ", which had other settings"
    took = clock(planned.estimated_s / pace.real_time_factor)
    return f"{hours}: about {took} at {pace.real_time_factor:.1f} times real time, as run {pace.run_id}{settings}."


def _hours(shards: list[Shard] | tuple[Shard, ...]) -> float:
    return sum(shard.estimated_s for shard in shards) / 3600


def _rejected(planned: Plan) -> list[RenderableType]:
    reasons = Counter(reject.reason for shard in planned.shards for reject in shard.rejects)
    lines: list[RenderableType] = [
        Text(f"{reject.archive}: {reject.message} [{reject.reason}]", style="yellow") for reject in planned.rejects
    ]
    if reasons:
        rejected = ", ".join(f"{reason} {n:,}" for reason, n in reasons.most_common())
        lines.append(Text(f"\nRejected at sight: {rejected}"))
    return lines
