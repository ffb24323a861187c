"""What may be loaded: of checkpoints that can run code the trusted ones, and of names those that can be had."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from schemas.errors import VoxmillError
from workers.engines import published
from workers.engines.checkpoints import cache_folder, check_available, check_trusted, digest_of, resolve

MODELS = "/models/"


@pytest.mark.parametrize(
    ("spec", "trusted"),
    [
        ("whisper:/anywhere/x.pt", []),  # tensors only
        ("vits:someone/voice", []),
        ("conformer:stt_en_conformer_ctc_large", []),  # NVIDIA's catalogue
        ("conformer:nvidia/parakeet-tdt-1.1b", []),
        ("conformer:someone/fine-tuned", ["someone/fine-tuned"]),
        ("conformer:someone/fine-tuned", ["someone/"]),
        ("conformer:/models/x.nemo", [MODELS]),
        ("conformer:/models/x.nemo", ["/models/x.nemo"]),
        ("conformer:s3://models/en/x.nemo", ["/else", "s3://models/en"]),
        ("conformer:http://h/my%20models/x.nemo", ["http://h/my%20models/"]),
        ("conformer:http://h/x.nemo?signed=1", ["http://h/x.nemo?signed=1"]),  # named as a whole
        ("fastpitch:/models/a.nemo+hifigan:tts_en_hifigan", [MODELS]),
    ],
)
def test_what_is_trusted_passes(spec: str, trusted: list[str]) -> None:
    check_trusted(spec, trusted)


@pytest.mark.parametrize(
    ("spec", "trusted", "refused"),
    [
        ("conformer:/models/x.nemo", [], "/models/x.nemo"),
        ("conformer:/models-of-others/x.nemo", ["/models"], "/models-of-others/x.nemo"),
        ("conformer:/models/../tmp/x.nemo", [MODELS], "/models/../tmp/x.nemo"),
        ("conformer:s3://models/../theirs/x.nemo", ["s3://models"], "s3://models/../theirs/x.nemo"),
        ("conformer:s3://theirs/x.nemo", ["s3://models", MODELS], "s3://theirs/x.nemo"),
        *(
            (f"conformer:http://h/models/{way}", ["http://h/models/"], f"http://h/models/{way}")
            for way in (
                "%2e%2e/evil.nemo",
                "..%2fevil.nemo",
                ".%252E/evil.nemo",
                "..\\evil.nemo",
                "%2e%2e%5cevil.nemo",
                "x.nemo?of=/evil.nemo",
                "x.nemo#/evil.nemo",
                "x.zip::http://evil/x.nemo",
            )
        ),
        ("conformer:someone/fine-tuned", ["some"], "someone/fine-tuned"),
        ("fastpitch:/models/a.nemo+hifigan:/else/b.nemo", [MODELS], "/else/b.nemo"),
    ],
)
def test_what_is_not_is_refused_and_told_how_to_be_allowed(spec: str, trusted: list[str], refused: str) -> None:
    with pytest.raises(VoxmillError) as told:
        check_trusted(spec, trusted)
    message = str(told.value)
    assert f"{refused} can run code as it is loaded" in message
    assert f"--trust {refused}" in message
    assert "\n" not in message


class Hub:
    """A hub on the loopback: what it answers to which path, and what it was asked."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: dict[str, tuple[int, dict[str, str]]] = {}
        self.bodies: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hub.asked.append((self.path, self.headers["Authorization"]))
            status, headers = hub.answers.get(self.path, (404, {"X-Error-Code": "RepoNotFound"}))
            self.send_response(status)
            body = hub.bodies.get(self.path, b"")
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    hub = Hub(f"http://127.0.0.1:{server.server_port}")
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "NEMO_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", hub.url + "/")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield hub
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_url_whose_content_changes_is_fetched_again(hub: Hub) -> None:
    spec, hub.bodies["/x.pt"] = f"whisper:{hub.url}/x.pt", b"old"
    asked = []
    for headers in ({"ETag": '"1"'}, {"Last-Modified": "Wed, 25 Nov 2026 16:00:00 GMT"}, {}):
        hub.asked.clear()
        hub.answers["/x.pt"] = (200, headers)
        first = resolve(spec).path
        assert first is not None
        assert (first.read_bytes(), resolve(spec).path) == (b"old", first)
        asked.append(len([None for path, _ in hub.asked if path == "/x.pt"]))
    assert asked[0] == asked[1] < asked[2]  # what has no version is read every time, and is the same file by its bytes

    hub.bodies["/x.pt"] = b"new"  # of the same size
    for headers in ({"ETag": '"2"'}, {"Last-Modified": "Wed, 25 Nov 2026 17:00:00 GMT"}, {}):
        hub.answers["/x.pt"] = (200, headers)
        second = resolve(spec).path
        assert second is not None
        assert second.read_bytes() == b"new"
    assert first.read_bytes() == b"old"  # whoever reads it may go on
    assert not list(cache_folder().glob("*.tmp"))


def cache_of_the_hub(folder: Path, name: str, version: str, *files: str) -> Path:
    """Files of one version of a name, the main one now, as the hub's library keeps them; returns their folder."""
    home = folder / f"models--{name.replace('/', '--')}"
    (home / "snapshots" / version).mkdir(parents=True, exist_ok=True)
    (home / "refs").mkdir(exist_ok=True)
    (home / "refs" / "main").write_text(version)
    for file in files:
        (home / "snapshots" / version / file).write_text(version)
    return home / "snapshots" / version


def test_of_several_cached_versions_the_main_one_is_taken(hub: Hub, tmp_path: Path) -> None:
    cache_of_the_hub(tmp_path, "nvidia/x", "0123", "x.nemo")
    now = cache_of_the_hub(tmp_path, "nvidia/x", "4567", "x.nemo")
    assert resolve("conformer:nvidia/x").path == now / "x.nemo"
    cache_of_the_hub(tmp_path, "nvidia/x", "89ab")  # looked at, and not downloaded
    assert resolve("conformer:nvidia/x").path is None


@pytest.mark.parametrize(
    ("family", "files"),
    [
        ("wav2vec2", ["config.json", "preprocessor_config.json", "vocab.json", "model.safetensors"]),
        ("hubert", ["config.json", "processor_config.json", "vocab.json", "pytorch_model.bin"]),
        ("vits", ["config.json", "vocab.json", "model.safetensors"]),
        ("faster-whisper", ["config.json", "vocabulary.txt", "model.bin"]),
        ("conformer", ["name.nemo"]),
    ],
)
def test_a_cached_folder_that_lacks_a_file_is_not_cached(
    hub: Hub, tmp_path: Path, family: str, files: list[str]
) -> None:
    folder = cache_of_the_hub(tmp_path, "nvidia/name", "0123", *files, "README.md", "training_args.bin")
    check_available(f"{family}:nvidia/name")
    assert hub.asked == []
    for file in files:
        (folder / file).rename(folder / "away")
        with pytest.raises(VoxmillError, match="no model of this name"):
            check_available(f"{family}:nvidia/name")
        (folder / "away").rename(folder / file)


def test_weights_in_several_files_are_there_as_a_whole_or_not(tmp_path: Path) -> None:
    assert published.weights_of(tmp_path) == []
    (tmp_path / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}'
    )
    (tmp_path / "1.safetensors").write_text("a")
    assert published.weights_of(tmp_path) == []
    (tmp_path / "2.safetensors").write_text("b")
    assert len(published.weights_of(tmp_path)) == 3


def test_a_folder_has_one_digest_whatever_else_lies_in_it(tmp_path: Path) -> None:
    for file in ("config.json", "vocab.json", "model.safetensors"):
        (tmp_path / file).write_text(file)
    digest = digest_of(tmp_path)
    for file in ("pytorch_model.bin", "feature_extractor_config.json", "training_args.bin", "eval.txt"):
        (tmp_path / file).write_text(file)
    assert digest_of(tmp_path) == digest
    for file in ("vocab.json", "model.safetensors", "model.bin"):
        (tmp_path / file).write_text("other")
        assert digest_of(tmp_path) != digest
        digest = digest_of(tmp_path)


def test_a_download_of_whisper_that_broke_off_is_not_cached(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = hashlib.sha256(b"whole").hexdigest()
    monkeypatch.setattr(published, "listed", lambda catalogue: {"tiny": f"{hub.url}/{digest}/tiny.pt"})
    (tmp_path / "whisper").mkdir()
    for content, is_whole in ((b"who", False), (b"whole", True)):
        (tmp_path / "whisper" / "tiny.pt").write_bytes(content)
        assert (resolve("whisper:tiny").path is not None) == is_whole


@pytest.mark.parametrize(
    ("spec", "file"),
    [
        ("wav2vec2:owner/name", "config.json"),
        ("hubert:owner/name", "config.json"),
        ("vits:owner/name", "config.json"),
        ("faster-whisper:owner/name", "model.bin"),
        ("conformer:nvidia/name", "name.nemo"),
    ],
)
def test_a_name_on_the_hub_is_asked_for_by_the_file_it_is_loaded_from(hub: Hub, spec: str, file: str) -> None:
    name = spec.partition(":")[2]
    path = f"/{name}/resolve/main/{file}"
    with pytest.raises(VoxmillError, match=f"{hub.url} has no model of this name.*HF_TOKEN.*HF_HOME.*/models/x"):
        check_available(spec)
    hub.answers[path] = (404, {"X-Error-Code": "EntryNotFound"})
    with pytest.raises(VoxmillError, match=f"{hub.url} has this name, but no {file} in it"):
        check_available(spec)
    hub.answers[path] = (401, {"X-Error-Code": "RepoNotFound"})  # the hub's answer to whoever shows no token
    with pytest.raises(VoxmillError, match="has no model of this name, or keeps it private"):
        check_available(spec)
    for refusal in ((401, {"X-Error-Code": "GatedRepo"}), (403, {"X-Error-Code": "GatedRepo"}), (403, {})):
        hub.answers[path] = refusal
        with pytest.raises(VoxmillError, match=f"only with access.*{hub.url}/{name}.*HF_TOKEN") as told:
            check_available(spec)
        assert "\n" not in str(told.value)
    for status in (200, 206, 429, 503):  # the last two may have passed when the actor asks
        hub.answers[path] = (status, {})
        check_available(spec)
    assert {asked for asked, _ in hub.asked} == {path}


def test_redirects_are_followed_at_home_and_no_token_leaves(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
    hub.answers["/old/name/resolve/main/config.json"] = (307, {"Location": "/new/name/resolve/main/config.json"})
    with pytest.raises(VoxmillError, match="no model of this name"):
        check_available("wav2vec2:old/name")
    assert [token for _, token in hub.asked] == ["Bearer hf_of_a_test"] * 2
    elsewhere = hub.url.replace("127.0.0.1", "localhost")
    hub.answers["/new/name/resolve/main/config.json"] = (302, {"Location": f"{elsewhere}/file"})
    check_available("wav2vec2:old/name")
    assert "/file" not in [asked for asked, _ in hub.asked]


def test_a_hub_that_is_not_there_or_not_allowed_is_told(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(VoxmillError, match=r"must be downloaded, but http://127\.0\.0\.1:9 cannot be reached"):
        check_available("wav2vec2:owner/name")
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "1")
            with pytest.raises(VoxmillError, match=f"not in the cache and {name} forbids the download"):
                check_available("wav2vec2:owner/name")


def test_a_name_of_a_catalogue_is_asked_for_by_its_own_file(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for spec, close in (
        ("conformer:stt_en_conformer_ctc_lrage", "stt_en_conformer_ctc_large"),
        ("fastpitch:tts_en_fastpitsch+hifigan:tts_en_hifigan", "tts_en_fastpitch"),
        ("fastpitch:tts_en_fastpitch+hifigan:tts_en_hifigun", "tts_en_hifigan"),
        ("whisper:large-v4", "large-v3"),
    ):
        with pytest.raises(VoxmillError, match=f"no model of this name.*{close}"):
            check_available(spec)
    assert hub.asked == []

    monkeypatch.setattr(published, "listed", lambda catalogue: {"known": f"{hub.url}/models/other-file.nemo"})
    with pytest.raises(VoxmillError, match=rf"{hub.url} has no such file \(HTTP 404\).*NEMO_CACHE_DIR"):
        check_available("conformer:known")
    hub.answers["/models/other-file.nemo"] = (403, {})
    with pytest.raises(VoxmillError, match=rf"{hub.url} gives it only with access \(HTTP 403\).*NEMO_CACHE_DIR"):
        check_available("conformer:known")
    hub.answers["/models/other-file.nemo"] = (206, {})
    check_available("conformer:known")
    hub.answers.clear()
    monkeypatch.setenv("NEMO_CACHE_DIR", str(tmp_path))
    (tmp_path / "other-file" / "0123").mkdir(parents=True)
    (tmp_path / "other-file" / "0123" / "other-file.nemo").write_bytes(b"x")
    check_available("conformer:known")
