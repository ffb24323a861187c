"""Sources on an object store: byte ranges, prefixes, streams, and every way to be refused."""

from __future__ import annotations

import gzip
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
import s3fs
from source_archives import clips, contents, listed, one, sides, streamed, tar_bytes, write, zip_bytes

from schemas.config import Sharding, Storage
from schemas.errors import MemberError
from schemas.reasons import Reason
from schemas.records import Layout
from workers.sources.discover import discover
from workers.sources.listing import list_archive
from workers.sources.read import read_members
from workers.sources.shards import cut
from workers.sources.store import StoreError, StoreFile


def test_everything_is_read_from_a_bucket(s3: Any, shared_data: Any) -> None:
    storage, bucket = Storage(**s3.storage), s3.bucket("sources")
    files = [(f"d/{i}.wav", clip) for i, clip in enumerate(clips(shared_data, 4))]
    s3.put(f"{bucket}/shards/a.tar", tar_bytes(files))
    s3.put(f"{bucket}/shards/b.zip", zip_bytes(files))
    s3.put(f"{bucket}/shards/c.tar.gz", gzip.compress(tar_bytes(files)))
    s3.put(f"{bucket}/shards/c.tsv", b"file\ttext\n" + b"".join(b"%d.wav\tt%d\n" % (i, i) for i in range(4)))
    for name, data in files:
        s3.put(f"{bucket}/loose/{name}", data)
    s3.put(f"{bucket}/loose/d/0.txt", b"null")
    lines = [b'{"audio_filepath": "../loose/d/1.wav", "text": "eins"}']
    lines += [b'{"audio_filepath": "%s/etc/hosts"}' % scheme for scheme in (b"", b"file://", b"simplecache::file://")]
    s3.put(f"{bucket}/lists/m.jsonl", b"\n".join(lines))
    discovery = discover([f"{bucket}/shards", f"{bucket}/loose/", f"{bucket}/*/m.jsonl", f"{bucket}/shards/*"], storage)
    assert not discovery.rejects
    assert [(a.uri.removeprefix(bucket), a.layout) for a in discovery.archives] == [
        ("/shards/a.tar", Layout.TAR), ("/shards/b.zip", Layout.ZIP), ("/shards/c.tar.gz", Layout.STREAM),
        ("/loose", Layout.FOLDER), ("/lists/m.jsonl", Layout.MANIFEST),
    ]  # fmt: skip
    assert all(archive.version and archive.size for archive in discovery.archives)
    for archive in ("shards/a.tar", "shards/b.zip", "loose"):
        read = contents(f"{bucket}/{archive}", storage)
        assert {name.removeprefix("d/"): data for name, data in read.items()} == {n[2:]: data for n, data in files}
    (shard,), _ = streamed(f"{bucket}/shards/c.tar.gz", storage=storage)
    assert [data for _, data in shard.payloads] == [data for _, data in files]
    assert [m.text for m in shard.shard.members] == ["t0", "t1", "t2", "t3"]
    listing = listed(f"{bucket}/lists/m.jsonl", storage)
    assert sides(listing.members) == {"../loose/d/1.wav": ("eins", None, None)}
    assert [(r.member, r.reason) for r in listing.rejects] == [(f"line {n}", Reason.MANIFEST_LINE) for n in (2, 3, 4)]
    assert all("a file of the machine that reads it" in reject.message for reject in listing.rejects)
    assert contents(f"{bucket}/lists/m.jsonl", storage) == {"../loose/d/1.wav": files[1][1]}


def test_keys_with_an_empty_folder_in_them_are_read(s3: Any, shared_data: Any) -> None:
    storage, bucket = Storage(**s3.storage), s3.bucket("slashes")
    one_clip, other = clips(shared_data, 2)
    for key, data in (("p//a.wav", one_clip), ("p//a.txt", b"eins"), ("p/b//c.wav", other)):
        s3.put(f"{bucket}/{key}", data)
    for source in ("p", "p/**"):
        listing = listed(f"{bucket}/{source}", storage)
        assert not listing.rejects
        assert sides(listing.members) == {"a.wav": ("eins", None, None), "b//c.wav": (None, None, None)}
        assert contents(f"{bucket}/{source}", storage) == {"a.wav": one_clip, "b//c.wav": other}
    s3.put(f"{bucket}/p/a.wav", other)
    assert contents(f"{bucket}/p", storage) == {"a.wav": other, "b//c.wav": other}
    assert [(r.member, r.reason) for r in listed(f"{bucket}/p", storage).rejects] == [
        ("a.wav", Reason.DUPLICATE_MEMBER)
    ]


def test_growth_is_seen_by_a_process_that_has_listed_before(s3: Any, shared_data: Any) -> None:
    storage, bucket = Storage(**s3.storage), s3.bucket("grows")
    clip, other = clips(shared_data, 2)
    s3.put(f"{bucket}/p/a.wav", clip)
    (before,) = discover([f"{bucket}/p"], storage).archives
    assert [m.name for m in listed(f"{bucket}/p", storage).members] == ["a.wav"]
    s3.put(f"{bucket}/p/b.wav", other)
    (after,) = discover([f"{bucket}/p"], storage).archives
    assert before.id != after.id
    assert [m.name for m in listed(f"{bucket}/p", storage).members] == ["a.wav", "b.wav"]


@pytest.mark.parametrize(
    ("count", "size", "share", "requests"),
    [(60, 300_000, 0.06, 63), (2_000, 5_000, 1.1, 25), (400, 40_000, 1.1, 40)],
)
def test_a_tar_is_listed_from_little_more_than_its_headers(
    count: int, size: int, share: float, requests: int, s3: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """Large members are leapt over; small ones are read over, with many of them to a request."""
    fetched: list[int] = []
    fetch = s3fs.core.S3File._fetch_range

    def counting(self: Any, start: int, end: int) -> bytes:
        fetched.append(end - start)
        return fetch(self, start, end)  # type: ignore[no-any-return]

    storage, bucket = Storage(**s3.storage), s3.bucket("headers")
    files = [(f"{i}.wav", i.to_bytes(4, "big") * (size // 4)) for i in range(count)]
    packed = tar_bytes(files)
    s3.put(f"{bucket}/a.tar", packed)
    archive = one(f"{bucket}/a.tar", storage)
    monkeypatch.setattr(s3fs.core.S3File, "_fetch_range", counting)
    found = list_archive(archive, storage, 10_000_000)
    assert (len(found.members), found.rejects, found.problems) == (count, (), ())
    assert sum(fetched) < share * len(packed)
    assert len(fetched) <= requests
    local = listed(write(tmp_path, [("a.tar", packed)]) / "a.tar")
    assert [(m.name, m.version, m.offset) for m in found.members] == [
        (m.name, m.version, m.offset) for m in local.members
    ]


@contextmanager
def refusal(code: str, message: str) -> Iterator[str]:
    """A store that answers every request with 403 and this error, as S3 does."""

    class Refuse(BaseHTTPRequestHandler):
        def _refuse(self) -> None:
            body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
            self.send_response(403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_PUT = _refuse

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refuse)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def refusing() -> Iterator[str]:
    """A store that does not accept these credentials."""
    with refusal("InvalidAccessKeyId", "No such key id") as url:
        yield url


@pytest.mark.parametrize(
    ("code", "is_general"),
    [
        ("ExpiredToken", True),
        ("RequestTimeTooSkewed", True),
        ("InvalidAccessKeyId", True),
        ("SignatureDoesNotMatch", True),
        ("AccessDenied", False),
        ("InvalidObjectState", False),  # one object that lies in Glacier
    ],
)
def test_credentials_that_expire_fail_the_shard_and_no_member(
    code: str, is_general: bool, s3: Any, shared_data: Any
) -> None:
    """What is listed with good credentials is read with bad ones."""
    storage, bucket = Storage(**s3.storage), s3.bucket("expiring")
    for i, clip in enumerate(clips(shared_data, 3)):
        s3.put(f"{bucket}/p/{i}.wav", clip)
    s3.put(f"{bucket}/m.jsonl", b'{"audio_filepath": "p/1.wav"}\n')
    for source, count in ((f"{bucket}/p", 3), (f"{bucket}/m.jsonl", 1), (f"{bucket}/p/0.wav", 1)):
        archive = one(source, storage)
        (shard,) = cut(archive, listed(source, storage).members, (), "f", Sharding())
        with refusal(code, "The provided token has expired.") as url:
            if is_general:
                with pytest.raises(StoreError, match=r"^s3://.*access denied.*Check the credentials") as raised:
                    list(read_members(shard, Storage(endpoint_url=url)))
                assert pickle.loads(pickle.dumps(raised.value)).is_general
                continue
            read = list(read_members(shard, Storage(endpoint_url=url)))
        assert [getattr(error, "reason", None) for _, error in read] == [Reason.ACCESS_DENIED] * count


def test_what_is_gone_costs_itself_unless_its_bucket_is(s3: Any, shared_data: Any) -> None:
    storage, bucket = Storage(**s3.storage), s3.bucket("going")
    for i, clip in enumerate(clips(shared_data, 2)):
        s3.put(f"{bucket}/p/{i}.wav", clip)
    archive = one(f"{bucket}/p", storage)
    (shard,) = cut(archive, listed(f"{bucket}/p", storage).members, (), "f", Sharding())
    s3.filesystem().rm(f"{bucket}/p/0.wav")
    lost, kept = (data for _, data in read_members(shard, storage))
    assert isinstance(kept, bytes)
    assert isinstance(lost, MemberError)
    assert lost.reason == Reason.MEMBER_MISSING
    s3.filesystem().rm(bucket, recursive=True)
    with pytest.raises(StoreError, match="no such bucket"):
        list(read_members(shard, storage))


def test_refusals_are_one_line_that_says_what_to_do(s3: Any, refusing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    storage, bucket = Storage(**s3.storage), s3.bucket("refusals")
    sources = [
        "s3://voxmill-no-such-bucket/a.tar",
        "s3://voxmill-no-such-bucket",
        f"{bucket}/none.tar",
        f"{bucket}/*.zip",
    ]
    rejects = discover(sources, storage).rejects
    assert [(r.archive, r.reason) for r in rejects] == [(source, Reason.SOURCE_MISSING) for source in sources]
    denied = Storage(endpoint_url=refusing)
    rejects = discover([f"{bucket}/a.tar", f"{bucket}/p/"], denied).rejects
    assert [r.reason for r in rejects] == [Reason.ACCESS_DENIED] * 2
    assert all("credentials" in r.message and "\n" not in r.message for r in rejects)
    with pytest.raises(StoreError, match=r"^s3://.*access denied.*Check the credentials"):
        StoreFile(f"{bucket}/a.tar", denied).read(1)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    (reject,) = discover([f"{bucket}/a.tar"], Storage(endpoint_url=refusing, region="eu-north-1")).rejects
    assert reject.reason == Reason.ACCESS_DENIED
    (reject,) = discover([f"{bucket}/a.tar"], Storage(profile="no-such-profile")).rejects
    assert (reject.reason, "no-such-profile" in reject.message) == (Reason.ACCESS_DENIED, True)
