"""Sources and destination on S3; a run that is killed goes on from its receipts and ends as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import psutil
import pytest
from prefect.settings import PREFECT_API_URL

from infra.demo.packs import tar_bytes, tar_gz_bytes
from schemas.config import Sharding, Storage
from schemas.errors import VoxmillError
from schemas.records import Receipt
from tests.e2e.runs import Lake, Mill
from workers.receipts import from_json

if TYPE_CHECKING:
    import s3fs

    from tests.conftest import S3
    from tests.e2e.conftest import Spoken

ROOT = Path(__file__).resolve().parents[2]
MEMBERS_PER_SHARD = 4


@pytest.fixture(scope="module")
def sources(s3: S3, digits: list[Spoken]) -> list[str]:
    """A tar, a tar.gz and a prefix in a bucket, 40 clips in all, each with references where its kind keeps them."""
    bucket = s3.bucket("speech")
    table = "file\ttext\tspeaker\n" + "".join(f"{one.name}\t{one.text}\t{one.speaker}\n" for one in digits)
    s3.put(f"{bucket}/tars/seekable.tar", tar_bytes({one.name: one.data for one in digits[:16]}))
    s3.put(f"{bucket}/tars/seekable.transcripts.tsv", table.encode())
    members = {"transcripts.tsv": table.encode()} | {one.name: one.data for one in digits[16:28]}
    s3.put(f"{bucket}/tars/stream.tar.gz", tar_gz_bytes(members))
    for one in digits[28:40]:
        s3.put(f"{bucket}/prefix/{one.speaker}/{one.name}", one.data)
        s3.put(f"{bucket}/prefix/{one.speaker}/{Path(one.name).stem}.txt", one.text.encode())
    return [f"{bucket}/tars/seekable.tar", f"{bucket}/tars/stream.tar.gz", f"{bucket}/prefix"]


def lake_at(s3: S3, url: str) -> Lake:
    return Lake(url, Storage(**s3.storage))


def staged(fs: s3fs.S3FileSystem, destination: str) -> list[str]:
    """The receipts of a destination. ``fs`` caches no listing."""
    return [name for name in fs.find(f"{destination}/_staging") if name.endswith(".receipt.json")]


def receipts_ever(client: Any, bucket: str) -> Iterator[Receipt]:
    """Every receipt that was ever staged in ``bucket``, which keeps versions: once for each time it was written.

    A stream's last receipt, which has no members, may be written before those of the shards it names, and then once
    more by the run that goes on.
    """
    bucket = bucket.removeprefix("s3://")
    for one in client.list_object_versions(Bucket=bucket, Prefix="lake/_staging/")["Versions"]:
        if one["Key"].endswith(".receipt.json"):
            body = client.get_object(Bucket=bucket, Key=one["Key"], VersionId=one["VersionId"])["Body"]
            yield from_json(body.read())


@contextmanager
def driver(command: list[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A run in a process of its own, on the Prefect of the test session, its words in ``folder/log``; it and all it
    started are gone at the end."""
    environment = {**os.environ, "PREFECT_HOME": str(folder / "prefect"), "PREFECT_API_URL": PREFECT_API_URL.value()}
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL the driver and, as when a machine is lost, what it started."""
    if process.poll() is None:
        started = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL)
        for child in started:
            if child.is_running():
                child.kill()
    process.wait()


def test_killed_run_goes_on_where_it_stopped(mill: Mill, s3: S3, sources: list[str], tmp_path: Path) -> None:
    killed, whole = s3.bucket("killed"), s3.bucket("whole")
    client = boto3.client("s3", endpoint_url=s3.endpoint_url)
    client.put_bucket_versioning(
        Bucket=killed.removeprefix("s3://"), VersioningConfiguration={"Status": "Enabled"}
    )  # so that what was overwritten can be counted
    command = [
        sys.executable, "-m", "flows.cli", "run", *sources, "--destination", f"{killed}/lake", "--language", "en",
        "--transcribers", mill.transcribers[0], "--endpoint-url", s3.endpoint_url,
        "--set", f"sharding.max_members={MEMBERS_PER_SHARD}", "--set", "cluster.cpus=2",
        "--set", "asr.whisper_window=fitted",
        "--set", "cluster.object_store_mb=200",
    ]  # fmt: skip
    fs = s3.filesystem()
    with driver(command, tmp_path) as process:
        while len(staged(fs, f"{killed}/lake")) < 3:
            assert process.poll() is None, (tmp_path / "log").read_text()[-3000:]
            time.sleep(0.2)
        kill(process)
    assert len(staged(fs, f"{killed}/lake")) >= 3
    assert not fs.exists(f"{killed}/lake/_runs"), "the run was over before it could be killed"

    form = {"storage": Storage(**s3.storage), "sharding": Sharding(max_members=MEMBERS_PER_SHARD)}
    resumed = mill.run(sources, f"{killed}/lake", **form)
    uninterrupted = mill.run(sources, f"{whole}/lake", **form)
    assert resumed is not None
    assert uninterrupted is not None
    assert resumed.members_in == resumed.members_published == 40
    assert lake_at(s3, f"{killed}/lake").digests() == lake_at(s3, f"{whole}/lake").digests()
    assert resumed.word_errors == uninterrupted.word_errors
    assert resumed.archives == uninterrupted.archives

    receipts = Counter(receipt.shard_id for receipt in receipts_ever(client, killed) if not receipt.stream_shards)
    assert len(receipts) == 10
    assert set(receipts.values()) == {1}, "a shard that was finished has been processed again"
    assert not staged(fs, f"{killed}/lake"), "what is published is cleared from the staging area"
    assert mill.run(sources, f"{killed}/lake", **form) is None


def test_references_and_speakers_come_along(mill: Mill, s3: S3, sources: list[str], digits: list[Spoken]) -> None:
    bucket = s3.bucket("references")
    manifest = mill.run(sources[:1], f"{bucket}/lake", storage=Storage(**s3.storage))
    assert manifest is not None
    rows = lake_at(s3, f"{bucket}/lake").rows("utterances")
    assert [(row["member"], row["reference"], row["speaker"]) for row in rows] == [
        (one.name, one.text, one.speaker) for one in digits[:16]
    ]


@contextmanager
def enforced_authentication(s3: S3) -> Iterator[None]:
    """The S3 server checks credentials, and knows none; in between it takes any."""

    def unchecked_actions(count: str) -> None:
        request = urllib.request.Request(
            f"{s3.endpoint_url}/moto-api/reset-auth", data=count.encode(), headers={"Content-Type": "text/plain"}
        )
        urllib.request.urlopen(request).close()

    unchecked_actions("0")
    try:
        yield
    finally:
        unchecked_actions("inf")


def test_unreachable_stores_are_told_in_one_line(mill: Mill, s3: S3, sources: list[str], tmp_path: Path) -> None:
    storage = Storage(**s3.storage)
    with pytest.raises(VoxmillError) as missing:
        mill.run(["s3://no-such-bucket/speech.tar"], tmp_path / "lake", storage=storage)
    with enforced_authentication(s3), pytest.raises(VoxmillError) as denied:
        mill.run(sources, tmp_path / "lake", storage=storage)
    nobody = Storage(endpoint_url="http://127.0.0.1:9")  # the discard port: nothing listens
    with pytest.raises(VoxmillError) as refused:
        mill.run(["s3://bucket/speech.tar"], tmp_path / "lake", storage=nobody)
    for error, reason in ((missing, "source_missing"), (denied, "access_denied"), (refused, "source_unreachable")):
        line = str(error.value)
        assert "\n" not in line
        assert "s3://" in line
        assert reason in line
        assert "testing" not in line, "credentials have no place in messages"
    assert not (tmp_path / "lake").exists()
