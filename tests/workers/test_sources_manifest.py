"""Manifests: every line is a member or a reject."""

from __future__ import annotations

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from source_archives import clips, contents, listed, sides, tar_bytes, write

from schemas.reasons import Reason


def test_manifest_lines_are_members_or_rejects(tmp_path: Path, shared_data: Path) -> None:
    (clip,) = clips(shared_data, 1)
    lines = [
        {"audio_filepath": "wavs/a.wav", "duration": 0.6, "text": "zero", "lang": "en", "speaker": "george"},
        {"audio_filepath": "wavs/a.wav", "offset": 0.1, "duration": 0.2, "text": "ze"},
        {"audio_filepath": "wavs/a.wav", "offset": 0.3, "duration": 0.25},
        {"audio_filepath": "wavs/none.wav", "duration": 1.0}, {"text": "no path"},
        {"audio_filepath": "wavs/a.wav", "offset": -1}, {"audio_filepath": "../b.wav"},
        {"audio_filepath": "wavs/x.txt"},
    ]  # fmt: skip
    text = "\n".join([*map(json.dumps, lines), "{broken", ""])
    write(tmp_path, [("m/wavs/a.wav", clip), ("b.wav", clip), ("m/wavs/x.txt", b"x"), ("m/all.jsonl", text.encode())])
    listing = listed(tmp_path / "m" / "all.jsonl")
    assert [(m.name, m.clip_start_s, m.clip_duration_s, m.text, m.language, m.speaker) for m in listing.members] == [
        ("wavs/a.wav", None, None, "zero", "en", "george"), ("wavs/a.wav@0.1", 0.1, 0.2, "ze", None, None),
        ("wavs/a.wav@0.3", 0.3, 0.25, None, None, None), ("../b.wav", None, None, None, None, None),
    ]  # fmt: skip
    assert [(r.member, r.reason) for r in listing.rejects] == [
        ("wavs/none.wav", Reason.MEMBER_MISSING), ("line 5", Reason.MANIFEST_LINE), ("line 6", Reason.MANIFEST_LINE),
        ("wavs/x.txt", Reason.NOT_AUDIO), ("line 9", Reason.MANIFEST_LINE),
    ]  # fmt: skip
    assert set(contents(tmp_path / "m" / "all.jsonl").values()) == {clip}


@pytest.mark.parametrize("count", [1, 9])
def test_manifests_find_recordings_however_their_accents_are_written(
    count: int, tmp_path: Path, shared_data: Path
) -> None:
    (clip,) = clips(shared_data, 1)
    write(tmp_path / "m", [(f"e\u0301{at}.wav", clip) for at in range(count)])
    lines = [{"audio_filepath": f"é{at}.wav"} for at in range(count + 1)]
    write(tmp_path, [("m/m.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())])
    assert contents(tmp_path / "m" / "m.jsonl") == {f"é{at}.wav": clip for at in range(count)}
    assert [(r.member, r.reason) for r in listed(tmp_path / "m" / "m.jsonl").rejects] == [
        (f"é{count}.wav", Reason.MEMBER_MISSING)
    ]


BAD_PATHS = ("a\0.wav", "\ud83d.wav", "x" * 300 + ".wav", "foo://b/a.wav", "nosuchchain::foo://b/a.wav", "loop.wav")


@pytest.mark.parametrize("copies", [1, 9])
def test_a_path_that_is_none_costs_its_line_alone(copies: int, tmp_path: Path, shared_data: Path) -> None:
    (clip,) = clips(shared_data, 1)
    os.symlink("loop.wav", tmp_path / "loop.wav")
    lines = [{"audio_filepath": "a.wav", "text": "ok"}]
    lines += [{"audio_filepath": path, "offset": float(at)} for path in BAD_PATHS for at in range(copies)]
    write(tmp_path, [("a.wav", clip), ("m.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())])
    listing = listed(tmp_path / "m.jsonl")
    assert not listing.problems
    assert [(m.name, m.text) for m in listing.members] == [("a.wav", "ok")]
    assert [r.reason for r in listing.rejects] == [Reason.MANIFEST_LINE] * len(BAD_PATHS) * copies
    assert not any("endpoint" in r.message for r in listing.rejects)


def test_absurd_numbers_cost_their_line_alone(tmp_path: Path, shared_data: Path) -> None:
    (clip,) = clips(shared_data, 1)
    absurd = b'{"audio_filepath": "a.wav", "text": "one", "duration": 1' + b"0" * 400 + b"}\n"
    side = b'{"text": NaN, "speaker": "s", "duration": 1e999}'
    (tmp_path / "a.tar").write_bytes(
        tar_bytes([("a.wav", clip), ("m.json", absurd), ("b.wav", clip), ("b.json", side)])
    )
    assert sides(listed(tmp_path / "a.tar").members) == {"a.wav": ("one", None, None), "b.wav": (None, None, "s")}
    write(tmp_path / "m", [("a.wav", clip), ("m.jsonl", b'{"audio_filepath": "a.wav"}\n' + absurd)])
    listing = listed(tmp_path / "m" / "m.jsonl")
    assert [m.name for m in listing.members] == ["a.wav"]
    assert [(r.member, r.reason) for r in listing.rejects] == [("line 2", Reason.MANIFEST_LINE)]


def test_a_web_server_that_tells_no_lengths_has_recordings_all_the_same(tmp_path: Path, shared_data: Path) -> None:
    (clip,) = clips(shared_data, 1)
    files = {"/a.wav": clip, "/empty.wav": b"", "/m.jsonl": b'{"audio_filepath": "a.wav"}'}

    class Chunked(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.send_response(200 if self.path in files else 404)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            data = files.get(self.path, b"")
            self.wfile.write((b"%x\r\n%b\r\n" % (len(data), data) if data else b"") + b"0\r\n\r\n")

        def log_message(self, *_: object) -> None:
            """Not told on the terminal."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Chunked)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        assert contents(f"{url}/a.wav") == contents(f"{url}/m.jsonl") == {"a.wav": clip}
        empty: Any = contents(f"{url}/empty.wav")["empty.wav"]  # refused once it is read
        assert empty.reason == Reason.EMPTY_FILE
    finally:
        server.shutdown()
        server.server_close()
