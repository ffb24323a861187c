"""Progress: whatever the order of receipts, it only goes forward, ends at the end, and says what it counts."""

from __future__ import annotations

import io
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from schemas.records import Archive, Layout, Member, Plan, Receipt, Shard
from tasks.progress import Progress, Tally

TAR = Archive("/speech/calls.tar", Layout.TAR, 10_000_000)
STREAM = Archive("/speech/radio.tar.gz", Layout.STREAM, 3_200_000)


def shard(number: int, seconds: float) -> Shard:
    member = Member(name=f"{number}.wav", size=1, uri=TAR.uri, estimated_s=seconds)
    return Shard(f"shard{number:02d}", TAR, "f", members=(member,), index=number)


def receipt(of: Shard, seconds: float, **fields: object) -> Receipt:
    counts = {"members_in": 1, "members_published": 1, "members_rejected": 0, "utterances": 1, "audio_s": seconds}
    return Receipt(**{"shard_id": of.id, "archive_uri": of.archive.uri, "index": of.index} | counts | fields)  # type: ignore[arg-type]


@given(
    st.lists(st.floats(0, 1e5), max_size=12), st.lists(st.floats(0, 1e4), max_size=8), st.randoms(use_true_random=False)
)
def test_progress_only_goes_forward_and_ends_at_the_end(
    planned: list[float], streamed: list[float], random: object
) -> None:
    shards = [shard(number, seconds) for number, seconds in enumerate(planned)]
    stream = Shard("stream", STREAM, "f", is_stream=True)
    plan = Plan("f", (*shards, stream), (TAR, STREAM))
    receipts = [receipt(one, one.members[0].estimated_s) for one in shards]
    pieces = [receipt(stream, seconds, shard_id=f"piece{n}", index=n) for n, seconds in enumerate(streamed)]
    receipts += pieces
    random.shuffle(receipts)  # type: ignore[attr-defined]
    tally, before = Tally(plan), 0.0
    for one in receipts:
        tally.add(one)
        assert before <= tally.share <= 1
        before = tally.share
    assert tally.share < 1
    tally.add(receipt(stream, 0.0, stream_shards=tuple(p.shard_id for p in pieces) or ("none",)))
    assert tally.share == pytest.approx(1)
    assert tally.audio_s == pytest.approx(sum(planned) + sum(streamed))
    assert tally.left_s is None or tally.left_s < 1e-3 * tally.elapsed_s + 1e-6


def test_receipts_of_a_stopped_run_say_nothing_of_pace() -> None:
    shards = [shard(number, 100.0) for number in range(4)]
    tally = Tally(Plan("f", tuple(shards), (TAR,)))
    tally.add(receipt(shards[0], 100.0), resumed=True)
    assert tally.share == pytest.approx(0.25)
    assert tally.real_time_factor == 0
    assert tally.left_s is None
    tally.add(receipt(shards[1], 100.0))
    assert tally.audio_s == 200
    assert tally.fresh_s == 100


def test_log_lines_name_archive_and_shard_and_failures_are_told_at_once(caplog: pytest.LogCaptureFixture) -> None:
    shards = [shard(number, 60.0) for number in range(30)]
    logger = logging.getLogger("test.progress")
    quiet = Console(file=io.StringIO(), force_terminal=False)
    with caplog.at_level(logging.INFO), Progress(Plan("f", tuple(shards), (TAR,)), logger, quiet) as progress:
        for one in shards[:-1]:
            progress.update(receipt(one, 60.0, members_rejected=1, reject_reasons={"silent": 1}))
        progress.update(receipt(shards[-1], 0.0, failed="worker died"))
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 3  # the first shard's, the failure, the end's
    assert "calls.tar shard 1 (shard00): 1 member published, 1 rejected (silent 1)" in lines[0]
    assert lines[1] == "calls.tar shard 30 (shard29) failed: worker died"
    assert lines[2].startswith("Processed after 0:00:00: 100% done, 0.48 h of audio")
    assert "29 rejected, 1 shards failed" in lines[2]


def test_a_terminal_gets_a_bar() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=140)
    one = shard(0, 3600.0)
    with Progress(Plan("f", (one, shard(1, 3600.0)), (TAR,)), logging.getLogger("test.progress"), console) as progress:
        progress.update(receipt(one, 3600.0))
        progress._bar.refresh()
    shown = screen.getvalue()
    assert "50%" in shown
    assert "1.00 h of audio" in shown
    assert "0 rejected" in shown
