"""What a person sees while shards are processed: a bar on a terminal, sparse log lines elsewhere, a Prefect artifact.

Fed with one receipt per finished shard; touches neither audio nor tables.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import FlowRunContext, TaskRunContext
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as RichProgress

from schemas.records import Plan, Receipt, Seconds
from tasks.wording import clock, count, name_of

Logger = logging.Logger | logging.LoggerAdapter[Any]

# 16 kHz, 16 bit, mono: what a compressed tar's bytes are taken for until it has been read. Only the bar depends on it.
STREAM_BYTES_PER_SECOND = 32_000
STREAM_DONE_UNTIL_READ = 0.99
LOG_EVERY_S = 10.0
ARTIFACT_EVERY_S = 5.0
ARTIFACT_KEY = "progress"


@dataclass
class Tally:
    """Counts over receipts, and how far they are through a plan (by estimated audio; one-way streams by bytes)."""

    plan: Plan
    started: float = field(default_factory=time.monotonic)
    shards: int = 0
    failed: int = 0
    members: int = 0
    rejected: int = 0
    audio_s: Seconds = 0.0
    fresh_s: Seconds = 0.0  # audio processed by this run; receipts of a stopped run aside
    _weights: dict[str, float] = field(init=False)
    _streams: dict[str, float] = field(init=False)
    _streamed: defaultdict[str, float] = field(init=False, default_factory=lambda: defaultdict(float))
    _total: float = field(init=False)
    _done: float = field(init=False, default=0.0)
    _fresh_done: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        planned = [shard for shard in self.plan.shards if not shard.is_stream]
        self._weights = {shard.id: shard.estimated_s + 0.01 * shard.members_in for shard in planned}
        self._streams = {
            shard.archive.uri: max(1.0, (shard.archive.size or 0) / STREAM_BYTES_PER_SECOND)
            for shard in self.plan.shards
            if shard.is_stream
        }
        self._total = sum(self._weights.values()) + sum(self._streams.values())

    def add(self, receipt: Receipt, resumed: bool = False) -> None:
        self.shards += 1
        self.failed += bool(receipt.failed)
        self.members += receipt.members_in
        self.rejected += receipt.members_rejected
        self.audio_s += receipt.audio_s
        step = self._advance(receipt)
        self._done += step
        if not resumed:
            self.fresh_s += receipt.audio_s
            self._fresh_done += step

    def _advance(self, receipt: Receipt) -> float:
        """Weight that ``receipt`` finishes: its shard's, or its part of a one-way stream of unknown length."""
        if receipt.archive_uri not in self._streams:
            return self._weights.pop(receipt.shard_id, 0.0)
        whole, before = self._streams[receipt.archive_uri], self._streamed[receipt.archive_uri]
        after = whole if receipt.stream_shards else min(before + receipt.audio_s, whole * STREAM_DONE_UNTIL_READ)
        self._streamed[receipt.archive_uri] = max(before, after)
        return max(before, after) - before

    def finish(self) -> None:
        """The plan is done to the end, whatever it was estimated at."""
        self._done = self._total

    @property
    def share(self) -> float:
        """Share of the plan that is done, 0 to 1."""
        return min(1.0, self._done / self._total) if self._total > 0 else 1.0

    @property
    def elapsed_s(self) -> float:
        return max(1e-6, time.monotonic() - self.started)

    @property
    def real_time_factor(self) -> float:
        """Audio seconds published per wall second, by this run."""
        return self.fresh_s / self.elapsed_s

    @property
    def left_s(self) -> float | None:
        """Wall seconds left at the pace so far; None before there is one."""
        pace = self._fresh_done / self.elapsed_s
        return max(0.0, self._total - self._done) / pace if pace > 0 else None

    def __str__(self) -> str:
        left = "" if self.left_s is None else f", {clock(self.left_s)} left"
        failed = f", {self.failed} shards failed" if self.failed else ""
        return (
            f"{self.share:.0%} done, {self.audio_s / 3600:.2f} h of audio, {self.real_time_factor:.1f}x real time"
            f"{left}, {self.rejected:,} rejected{failed}"
        )


class Progress:
    """Shows a run's progress; a context manager around the loop over receipts.

    On a terminal a bar (audio hours, real-time factor, time left, rejects); elsewhere a log line at most every
    :data:`LOG_EVERY_S` seconds, and at once for a shard that failed. Inside a Prefect run also a progress artifact.
    An API that cannot be reached costs the artifact, not the run.
    """

    def __init__(self, plan: Plan, logger: Logger, console: Console | None = None) -> None:
        self.tally = Tally(plan)
        self._logger = logger
        self._console = console or Console(stderr=True)
        self._logged = self._shown = float("-inf")
        self._artifact: UUID | None = None
        self._has_api = FlowRunContext.get() is not None or TaskRunContext.get() is not None
        self._bar = RichProgress(
            TextColumn("[bold]process"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.fields[state]}"),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("process", total=1.0, state="loading engines")

    def __enter__(self) -> Progress:
        self._bar.start()
        self._show_artifact(force=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()
        if kind is None:
            self.tally.finish()
        self._show_artifact(force=True)
        self._logger.info(
            "%s after %s: %s", "Stopped" if kind else "Processed", clock(self.tally.elapsed_s), self.tally
        )

    def update(self, receipt: Receipt, resumed: bool = False) -> None:
        """Count one finished shard. ``resumed``: an earlier, stopped run staged it, so it says nothing of pace."""
        self.tally.add(receipt, resumed)
        shard = f"{name_of(receipt.archive_uri)} shard {receipt.index + 1} ({receipt.shard_id})"
        if receipt.failed:
            self._logger.warning("%s failed: %s", shard, receipt.failed)
        elif time.monotonic() - self._logged >= LOG_EVERY_S:
            self._logged = time.monotonic()
            self._logger.info("%s: %s; %s", shard, _line(receipt), self.tally)
        self._bar.update(self._task, completed=self.tally.share, state=str(self.tally).partition(" done, ")[2])
        self._show_artifact()

    def _show_artifact(self, force: bool = False) -> None:
        if not self._has_api or (not force and time.monotonic() - self._shown < ARTIFACT_EVERY_S):
            return
        self._shown = time.monotonic()
        percent, text = round(100 * self.tally.share, 1), str(self.tally)
        try:
            if self._artifact is None:
                self._artifact = create_progress_artifact(percent, key=ARTIFACT_KEY, description=text)  # type: ignore[assignment]
            else:
                update_progress_artifact(self._artifact, percent, description=text)
        except httpx.HTTPError as error:
            self._has_api = False
            self._logger.warning("The progress artifact is no longer updated, Prefect's API gave: %s", error)


def _line(receipt: Receipt) -> str:
    reasons = ", ".join(f"{reason} {n}" for reason, n in sorted(receipt.reject_reasons.items()))
    published = f"{count(receipt.members_published, 'member')} published"
    return f"{published}, {receipt.members_rejected} rejected" + (f" ({reasons})" if reasons else "")
