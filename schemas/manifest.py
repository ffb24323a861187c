"""The run's manifest, ``_runs/<run_id>.json``: written last, in one PUT; what it does not name is not published."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from schemas.version import SCHEMA_VERSION


class PublishedFile(BaseModel):
    """One Parquet file of a run; ``path`` is relative to the destination."""

    table: str
    path: str
    rows: int
    bytes: int


class Superseded(BaseModel):
    """Members of an earlier run that this one replaces. ``whole``: nothing of that run is left in force.

    Which ones: the rows of both runs' ledgers (``_runs/<run_id>.members.parquet``) that share archive and member.
    """

    run_id: str
    members: int
    whole: bool


class ArchiveCounts(BaseModel):
    """What became of one archive's members; or of a source that could not be read, with neither id nor layout."""

    uri: str
    id: str  # of this version of the archive: what an unchanged tar, zip or one-way stream is skipped by
    layout: str
    whole: bool  # nothing of it is left to do: no shard failed, a stream was read to its end
    members_in: int
    members_published: int
    members_rejected: int
    utterances: int
    hours: float


class WordErrors(BaseModel):
    """Pooled corpus WER of one engine and input over the run, with its 95% interval."""

    engine: str
    input: str
    utterances: int
    words: int
    errors: int
    wer: float
    wer_low: float | None = None
    wer_high: float | None = None
    block_kind: str | None = None


class GateCheck(BaseModel):
    """One condition of :class:`schemas.config.Gate`, and its outcome. ``measured`` None: it could not be judged."""

    name: str
    limit: float
    measured: float | None
    breached: bool
    reason: str  # a sentence for people


class RunManifest(BaseModel):
    """A published run. Readers list ``_runs/*.json`` and read the files these name."""

    schema_version: str = SCHEMA_VERSION
    run_id: str
    run_date: str
    kind: str = "corpus"  # or "regenerate"
    status: str  # published, partial (some shards failed and will be tried again), failed_quality
    fingerprint: str
    parameters: dict[str, Any]
    started_at: str
    finished_at: str
    members_in: int
    members_published: int
    members_rejected: int
    rejected_again: int = 0  # of these, for a reason that may pass, as an earlier run had
    utterances: int
    hours: float
    wall_s: float
    resumed_hours: float = 0.0  # of ``hours``, what was taken over from a stopped run
    real_time_factor: float = Field(description="audio seconds done by this run per wall second; 0: nothing anew")
    archives: list[ArchiveCounts]
    reject_reasons: dict[str, int]
    word_errors: list[WordErrors]
    stages: dict[str, dict[str, float]]  # stage -> wall_s, cpu_s, gpu_s; loading an engine is one
    padding_waste: dict[str, float] = {}  # transcriber spec -> padding over the audio's own seconds
    files: list[PublishedFile]
    supersedes: list[Superseded] = []
    digests: dict[str, str]  # engine spec -> model digest
    versions: dict[str, str]  # distribution -> version
    failed_shards: dict[str, str] = {}  # shard id -> why
    gate: list[GateCheck] = []  # the conditions that were set
    regenerated_hours: float = 0.0  # speech made, and of it what its round trip keeps
    kept_hours: float = 0.0
    chosen_input: str = ""  # under asr.chosen_input: auto, what was chosen and why
