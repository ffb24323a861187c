"""Decoding: every recording of the test data as measured by other tools, every broken one at its own cost alone."""

from __future__ import annotations

import io
import json
import os
import signal
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile as sf

from schemas.config import AudioSettings, Recipe
from schemas.errors import MemberError
from schemas.records import Archive, Layout, Member, Shard
from workers.decode import Decode, Decoded, Decoder
from workers.decoding.process import ChildProcess
from workers.decoding.render import Held
from workers.work import Work


def wav(samples: np.ndarray, rate: int, **how: str) -> bytes:
    """(n,) or (n, channels) as a WAV file, or as ``format``."""
    file = io.BytesIO()
    sf.write(file, samples, rate, **{"format": "WAV", **how})
    return file.getvalue()


def riff(rate: int = 16_000, channels: int = 1, data_bytes: int = 3200, held: int = 3200) -> bytes:
    """A 16-bit WAV whose header says what it is told to."""
    fmt = struct.pack("<HHIIHH", 1, channels, rate, rate * channels * 2 & 0xFFFFFFFF, channels * 2 & 0xFFFF, 16)
    body = b"fmt " + struct.pack("<I", 16) + fmt + b"data" + struct.pack("<I", data_bytes) + tone(held // 2)
    return b"RIFF" + struct.pack("<I", data_bytes + 36 & 0xFFFFFFFF) + b"WAVE" + body


def tone(samples: int) -> bytes:
    return (3000 * np.sin(np.arange(samples) / 7)).astype("<i2").tobytes()


def everything(data: Path) -> Iterator[tuple[dict, str, bytes]]:
    """(metadata, name, bytes) of every clip; of the many spoken digits, the test half."""
    for listing in sorted(data.glob("*/metadata.jsonl")):
        clips = [json.loads(line) for line in listing.read_text(encoding="utf-8").splitlines()]
        for clip in clips:
            if not clip.get("member"):
                yield clip, clip["audio"], (listing.parent / clip["audio"]).read_bytes()
        packed = {clip["member"]: clip for clip in clips if clip.get("member") and clip["audio"] != "fsdd_train.tar"}
        for path in sorted({listing.parent / clip["audio"] for clip in packed.values()}):
            if path.suffix == ".zip":
                with zipfile.ZipFile(path) as archive:
                    yield from (
                        (packed[name], name, archive.read(name)) for name in archive.namelist() if name in packed
                    )
                continue
            with tarfile.open(path) as tar:
                for entry in tar:
                    file = tar.extractfile(entry)
                    if file is not None and entry.name in packed:
                        yield packed[entry.name], entry.name, file.read()


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder(AudioSettings()) as decoder:
        yield decoder


# What libsndfile or FFmpeg make of the broken ones; a change of a library may change a line, and should be seen.
BROKEN = {
    "aeneas_mono.zero.wav": "empty_audio",
    "claxon_fuzz_02947f56c6c14d3d3d756dbe.flac": "too_short",
    "claxon_fuzz_23d1288573bb3485769da0a9.flac": "undecodable",
    "claxon_fuzz_64a18b4b38239295b0c2c9f8.flac": "absurd_header",
    "claxon_fuzz_7620659fe8f2e9751072660c.flac": "empty_audio",
    "claxon_fuzz_b6d30db8ca1f537835a149e4.flac": "empty_audio",
    "claxon_fuzz_ca1081b95516599c96ace742.flac": "empty_audio",
    "flac_faulty_01_-_wrong_max_blocksize.flac": "silent",
    "flac_faulty_06_-_missing_streaminfo_metadata_block.flac": "undecodable",
    "flac_faulty_11_-_incorrect_metadata_block_length.flac": "empty_audio",
    "gitlink_text.wav": "undecodable",
    "hound_fuzz_crash-24728523ef4be15c83.wav": "absurd_header",
    "hound_fuzz_crash-e879de4eb4d206c59e.wav": "undecodable",
}


def test_every_recording_decodes_as_measured_or_is_rejected(shared_data: Path, decoder: Decoder) -> None:
    clips = list(everything(shared_data))
    answers = decoder.decode_many((name, data, None) for _, name, data in clips)
    broken = {}
    for (clip, name, _), answer in zip(clips, answers, strict=True):
        if isinstance(answer, MemberError):
            if clip["kind"] == "broken":
                broken[name] = str(answer.reason)
            elif clip.get("raw"):
                assert answer.reason == "headerless_audio"
            else:
                assert (answer.reason, clip["kind"]) == ("silent", "silence"), name
            continue
        assert clip["kind"] != "broken", name
        recording = answer.recording
        assert recording.sample_rate == clip["sample_rate"], name
        assert recording.channels == clip["channels"], name
        assert recording.duration_s == pytest.approx(clip["duration"], abs=0.001), name
        assert recording.format == clip["format"], name
        assert answer.samples.shape == (1, pytest.approx(16_000 * clip["duration"], abs=20)), name
        assert answer.samples.dtype == np.float32
    assert broken == BROKEN


@pytest.mark.parametrize("path", ["jfk/jfk.flac", "ljspeech/LJ001-0001.mp3", "lyra/sample1_48kHz.wav"])
def test_samples_are_those_of_librosa(path: str, shared_data: Path, decoder: Decoder) -> None:
    ours = decoder.decode(path, (shared_data / path).read_bytes()).samples[0]
    theirs, _ = librosa.load(shared_data / path, sr=16_000)
    assert abs(len(ours) - len(theirs)) <= 1
    n = min(len(ours), len(theirs))
    np.testing.assert_allclose(ours[:n], theirs[:n], atol=1e-6)


def test_one_recording_is_the_same_in_every_container(shared_data: Path, decoder: Decoder) -> None:
    folder = shared_data / "librivox-sonnet"
    heard = {path.suffix: decoder.decode(path.name, path.read_bytes()) for path in folder.glob("p001.*")}
    assert set(heard) == {".mp3", ".ogg", ".mp4", ".webm", ".aac"}
    reference = heard.pop(".ogg").samples[0][16_000:80_000]
    for suffix, decoded in heard.items():  # codecs begin with delays of their own: look for the best lag
        samples = decoded.samples[0]
        size = 1 << 18
        lag = np.fft.irfft(np.fft.rfft(samples[:200_000], size) * np.conj(np.fft.rfft(reference, size))).argmax()
        assert np.corrcoef(reference, samples[lag : lag + len(reference)])[0, 1] > 0.95, suffix


@pytest.mark.parametrize(
    ("name", "data", "reason", "says"),
    [
        ("empty.wav", b"", "empty_file", "zero bytes"),
        ("page.wav", b"<!DOCTYPE html><html><body>404</body></html>", "undecodable", "a web page"),
        ("a.flac", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "undecodable", "git lfs pull"),
        ("error.mp3", b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "undecodable", "XML"),
        ("notes.wav", "día uno\n".encode() * 50, "undecodable", "not a recording: text"),
        ("zeros.mp3", bytes(10_000), "undecodable", "zero bytes"),
        ("list.wav", b"#EXTM3U\n#EXTINF:1,\n/etc/hostname\n#EXT-X-ENDLIST\n", "undecodable", "text"),
        ("a.raw", tone(8000), "headerless_audio", "rate and depth are unknown"),
        ("384k.wav", riff(rate=384_000), "absurd_header", "384000 Hz"),
        ("64.wav", riff(channels=64), "absurd_header", "64 channels"),
        ("many.wav", riff(channels=65_535), "absurd_header", "65535 channels"),
        ("billions.flac", None, "absurd_header", "4294967040 samples"),
        ("short.wav", riff(data_bytes=320, held=320), "too_short", "0.0100 s"),
        ("nothing.wav", riff(data_bytes=0, held=0), "empty_audio", "without a single sample"),
        ("silent.wav", wav(np.zeros(16_000), 16_000), "silent", "all samples are zero"),
        ("faint.wav", wav(np.full((8000, 2), 1e-5), 8000, subtype="FLOAT"), "silent", "the mix of 2 channels"),
        ("nan.wav", wav(np.full(16_000, np.nan), 16_000, subtype="FLOAT"), "non_finite", "not a number"),
        ("inf.wav", wav(np.r_[np.ones(999), np.inf], 8000, subtype="DOUBLE"), "non_finite", "infinite"),
    ],
)
def test_what_is_not_a_recording_is_a_reject_that_says_why(
    name: str, data: bytes | None, reason: str, says: str, decoder: Decoder, shared_data: Path
) -> None:
    if data is None:
        data = (shared_data / "broken" / "claxon_fuzz_64a18b4b38239295b0c2c9f8.flac").read_bytes()
    with pytest.raises(MemberError) as caught:
        decoder.decode(name, data)
    assert (caught.value.reason, says in caught.value.message) == (reason, True), caught.value


def test_a_header_that_is_wrong_about_the_length_gives_what_is_there(decoder: Decoder, shared_data: Path) -> None:
    assert decoder.decode("a.wav", riff(data_bytes=0xFFFFFFFF, held=32_000)).recording.duration_s == 1.0
    for size in (0, 0xFFFFFFFF):
        au = bytearray(wav(np.sin(np.arange(16_000) / 5), 16_000, format="AU"))
        au[8:12] = struct.pack(">I", size)
        assert decoder.decode("a.au", bytes(au)).recording.duration_s == 1.0
    flac = (shared_data / "jfk/jfk.flac").read_bytes()
    assert 4 < decoder.decode("a.flac", flac[: len(flac) // 2]).recording.duration_s < 7


def test_too_long_by_its_header_and_by_its_samples() -> None:
    samples = wav(np.tile(np.sin(np.arange(8000) / 5), 20), 8000, format="FLAC")
    with Decoder(AudioSettings(max_hours=10 / 3600)) as decoder:
        for data in (
            samples,
            samples[:21] + bytes([samples[21] & 0xF0, 0, 0, 0, 0]) + samples[26:],
        ):  # the second does not say how long
            with pytest.raises(MemberError, match="too_long"):
                decoder.decode("a.flac", data)


def test_channels_are_mixed_or_kept_apart(shared_data: Path) -> None:
    data = (shared_data / "lhotse-fixtures/real_8ch.wav").read_bytes()
    original, rate = sf.read(io.BytesIO(data), dtype="float32")
    with Decoder(AudioSettings(channels="each")) as each, Decoder(AudioSettings()) as mix:
        apart, mixed = each.decode("a.wav", data).samples, mix.decode("a.wav", data).samples
    assert rate == 16_000
    np.testing.assert_array_equal(apart, original.T)
    np.testing.assert_allclose(mixed[0], original.mean(axis=1), atol=1e-6)


def test_eight_channels_of_aac_do_not_crash(decoder: Decoder) -> None:
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=48_000, layout="7.1")
        planar = av.AudioResampler("fltp", "7.1", 48_000, 1024)
        noise = np.random.default_rng(0).normal(0, 3000, (1, 8 * 48_000)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(noise, format="s16", layout="7.1")
        frame.sample_rate = 48_000
        for piece in planar.resample(frame):
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    recording = decoder.decode("a.m4a", file.getvalue()).recording
    assert (recording.channels, recording.duration_s) == (8, pytest.approx(1, abs=0.1))


@pytest.mark.parametrize("path", ["jfk/jfk.flac", "jfk/jfk_441khz.m4a"])
def test_a_clip_is_that_piece_of_the_recording(path: str, shared_data: Path, decoder: Decoder) -> None:
    data = (shared_data / path).read_bytes()
    whole = decoder.decode(path, data)
    piece = decoder.decode(path, data, (3.0, 2.5))
    assert piece.samples.shape == (1, 40_000)
    assert piece.recording.duration_s == pytest.approx(whole.recording.duration_s, abs=0.05)
    np.testing.assert_allclose(piece.samples[0, 500:-500], whole.samples[0, 48_500:87_500], atol=2e-4)
    with pytest.raises(MemberError, match="empty_audio"):
        decoder.decode(path, data, (60.0, 2.5))


PIECES = [(0.5, 1.0), (1.5, 0.7), (1.9, 2.0), (1.9, 0.1), (8.0, None), (9.0, 1.0), (2.0, 1.0), (60.0, 1.0), (3.0, 2.0)]


@pytest.mark.parametrize("path", ["jfk/jfk.flac", "jfk/jfk.mp3", "jfk/jfk_441khz.m4a"])
def test_the_pieces_of_a_recording_are_sent_and_decoded_once(
    path: str, shared_data: Path, decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = (shared_data / path).read_bytes()
    sent = []
    send = ChildProcess.send
    monkeypatch.setattr(ChildProcess, "send", lambda self, *message: sent.append(message[2]) or send(self, *message))
    clips = [*PIECES, None, PIECES[0]]
    together = list(decoder.decode_many((path, data, clip) for clip in clips))
    assert list(map(len, sent)) == [len(data)] + [0] * (len(clips) - 1)
    alone = list(decoder.decode_many((path, bytes(bytearray(data)), clip) for clip in clips))
    assert list(map(len, sent[len(clips) :])) == [len(data)] * len(clips)
    for one, other in zip(together, alone, strict=True):
        if isinstance(one, MemberError):
            assert (one.reason, str(one)) == ("empty_audio", str(other))
            continue
        assert one.recording == other.recording
        np.testing.assert_array_equal(one.samples, other.samples)


def test_pieces_in_order_need_one_reading(shared_data: Path) -> None:
    read = 0

    class Counted(io.BytesIO):
        def read(self, *size: int) -> bytes:
            nonlocal read
            read += len(data := super().read(*size))
            return data

    data = (shared_data / "jfk/jfk_441khz.m4a").read_bytes()
    held = Held(Counted(data), len(data))
    for start in np.arange(0, 10, 0.25):
        with held.open_ffmpeg((start, 0.5)) as source:
            assert sum(map(len, source.blocks)) == 22_050
    held.close()
    assert read < 1.5 * len(data)


@pytest.mark.parametrize("how", [{"format": "OGG", "subtype": "VORBIS"}, {"format": "OGG", "subtype": "OPUS"},
                                 {"format": "MP3", "subtype": "MPEG_LAYER_III"}])  # fmt: skip
def test_recordings_joined_in_one_file_are_heard_to_the_end(how: dict, decoder: Decoder) -> None:
    first, second = (wav(np.sin(np.arange(48_000) / pitch) / 2, 24_000, **how) for pitch in (9, 3))
    tags = b"ID3\x03\0\0\0\0\x10\0" + bytes(2048) if how["format"] == "MP3" else b""
    alone = decoder.decode("a", tags + first + (b"TAG" + bytes(125) if tags else b""))
    assert alone.recording.format == "/".join(how.values())  # by libsndfile
    joined = decoder.decode("a", tags + first + tags + second)
    assert joined.recording.duration_s == pytest.approx(4, abs=0.1)
    np.testing.assert_allclose(joined.samples[0, 800:31_200], alone.samples[0, 800:31_200], atol=0.02)
    tail = joined.samples[0, -16_000:-1600]
    assert np.abs(np.fft.rfft(tail)).argmax() / len(tail) * 16_000 == pytest.approx(24_000 / 3 / 2 / np.pi, abs=2)
    piece = decoder.decode("a", first + second, (2.5, 1.0))
    assert piece.samples.shape == (1, 16_000)


def test_a_chain_of_other_codecs_rates_and_channels_is_heard_to_the_end(decoder: Decoder) -> None:
    def link(rate: int, subtype: str, channels: int = 1) -> bytes:
        sine = np.sin(2 * np.pi * 440 * np.arange(rate) / rate) / 2
        return wav(np.tile(sine[:, None], (1, channels)), rate, format="OGG", subtype=subtype)

    first, *others = link(44_100, "VORBIS"), link(8_000, "VORBIS"), link(48_000, "OPUS", 2), link(44_100, "VORBIS", 2)
    answer = decoder.decode("a.ogg", b"".join([first, *others]))
    assert (answer.recording.sample_rate, answer.recording.channels) == (44_100, 1)
    assert answer.recording.duration_s == pytest.approx(4, abs=0.05)
    for second in range(4):
        part = answer.samples[0, second * 16_000 + 4000 :][:8000]
        assert np.abs(np.fft.rfft(part)).argmax() * 2 == 440
        assert np.abs(part).max() == pytest.approx(0.5, abs=0.1)


class _Pipe(io.BytesIO):
    """What a writer cannot go back in."""

    def seekable(self) -> bool:
        return False


def aac(samples: np.ndarray, rate: int, layout: str, form: str = "adts", file: io.BytesIO | None = None) -> bytes:
    import av

    file = file or _Pipe()
    with av.open(file, "w", format=form) as container:
        stream = container.add_stream("aac", rate=rate, layout=layout)
        channels = 2 if layout == "stereo" else 1
        for start in range(0, len(samples), 1024):
            block = np.tile(samples[start : start + 1024].astype(np.float32), (channels, 1))
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
            frame.sample_rate, frame.pts = rate, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def test_a_piece_does_not_say_how_long_its_recording_is_where_no_header_does(decoder: Decoder) -> None:
    data = aac(np.sin(2 * np.pi * 440 * np.arange(160_000) / 16_000) / 2, 16_000, "mono", "matroska")
    clips = [None, (0.0, 2.0), (5.0, 2.0), (9.0, 2.0), (9.0, None)]
    found = [decoder.decode("a.mka", data, clip).recording.duration_s for clip in clips]
    assert found == [pytest.approx(10, abs=0.1), None, None, found[0], found[0]]


def test_a_length_that_ffmpeg_guesses_is_no_promise() -> None:
    """ADTS says no length. By the rate of its first, quiet packets this minute would take ten."""
    rng = np.random.default_rng(0)
    samples = np.concatenate([np.zeros(800_000), rng.uniform(-0.5, 0.5, 160_000)])
    data = aac(samples, 16_000, "mono")
    clips = [None, (51.0, 2.0), (58.0, 2.0), (59.0, 30.0)]
    with Decoder(AudioSettings(max_hours=0.02)) as decoder:
        found = [decoder.decode("a.aac", data, clip).recording.duration_s for clip in clips]
    assert found == [pytest.approx(60, abs=0.1), None, None, found[0]]


def test_a_piece_that_ends_before_its_recording_does_has_the_headers_length(decoder: Decoder) -> None:
    """Also where both its ends lie between two samples, and are rounded."""
    data = wav(np.full(40_000, 0.5), 8_000)
    for clip in ((1.0, 2.0), (2.5 / 8_000, 8_000.5 / 8_000), (4.0, 1.0), (4.5, 1.0)):
        assert decoder.decode("a.wav", data, clip).recording.duration_s == 5.0


def test_a_header_that_is_too_short_tells_no_piece_behind_it_how_long_its_recording_is(decoder: Decoder) -> None:
    samples = np.sin(2 * np.pi * 440 * np.arange(160_000) / 16_000) / 2
    data = bytearray(aac(samples, 16_000, "mono", "matroska", io.BytesIO()))
    at = data.index(b"\x44\x89\x88") + 3  # Matroska's Duration, a float of 8 bytes, in milliseconds
    data[at : at + 8] = struct.pack(">d", 4_000.0)
    clips = [(0.0, 2.0), (5.0, 2.0), (9.0, 2.0)]
    found = [decoder.decode("a.mka", bytes(data), clip).recording.duration_s for clip in clips]
    assert found == [4.0, None, pytest.approx(10, abs=0.1)]


def test_a_stream_that_changes_its_rate_and_channels_is_heard_to_the_end(decoder: Decoder) -> None:
    def tones(rate: int, layout: str) -> bytes:
        return aac(np.sin(2 * np.pi * 440 * np.arange(2 * rate) / rate) / 2, rate, layout)

    data = tones(44_100, "mono") + tones(16_000, "stereo") + tones(22_050, "mono")
    answer = decoder.decode("a.aac", data)
    assert (answer.recording.sample_rate, answer.recording.channels) == (44_100, 1)
    assert answer.recording.duration_s == pytest.approx(6, abs=0.4)  # each part begins with the codec's delay
    for second in (1.0, 3.0, 5.0):
        part = answer.samples[0, round(second * 16_000) :][:8000]
        assert np.abs(np.fft.rfft(part)).argmax() * 2 == pytest.approx(440, abs=4)
        assert np.abs(part).max() == pytest.approx(0.5, abs=0.1)


def test_a_dead_or_stuck_decoder_costs_one_member(shared_data: Path) -> None:
    data = (shared_data / "jfk/jfk.mp3").read_bytes()
    with Decoder(AudioSettings(decode_timeout_s=5.0)) as decoder:
        for by, reason in ((signal.SIGKILL, "decoder_crashed"), (signal.SIGSTOP, "decoder_timeout")):
            decoder.decode("first.mp3", data)
            assert decoder._child is not None
            process = decoder._child._process
            os.kill(process.pid, by)
            answers = list(decoder.decode_many((f"{index}.mp3", data, None) for index in range(4)))
            assert [getattr(answer, "reason", None) for answer in answers] == [reason, None, None, None]
            assert process.poll() is not None


def test_answers_left_behind_are_not_taken_for_others(decoder: Decoder) -> None:
    short, long = wav(np.ones(1600) / 2, 16_000), wav(np.ones(3200) / 2, 16_000)
    for answer in decoder.decode_many([("a.wav", short, None)] * 5):
        assert isinstance(answer, Decoded)
        break
    assert decoder.decode("b.wav", long).samples.shape == (1, 3200)


def test_memory_of_the_decoder_does_not_grow_with_the_recording(decoder: Decoder) -> None:
    data = wav(
        np.random.default_rng(0).integers(-9000, 9000, (300 * 44_100, 2)).astype(np.int16), 44_100, format="FLAC"
    )
    assert decoder.decode("a.flac", data).samples.shape == (1, 300 * 16_000)
    assert decoder._child is not None
    status = Path(f"/proc/{decoder._child._process.pid}/status").read_text()
    (peak,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    assert peak < 200 * 1024  # kB; one second of this recording decoded is 344 kB, all of it 103 MB


def test_stage_accounts_for_every_member(shared_data: Path) -> None:
    def member(name: str, **fields: float) -> tuple[Member, bytes]:
        data = (shared_data / name).read_bytes()
        return Member(name=name, size=len(data), uri=name, **fields), data  # type: ignore[arg-type]

    noise = wav(np.random.default_rng(0).normal(0, 0.01, 40 * 16_000), 16_000)
    payloads: list[tuple[Member, bytes | MemberError]] = [
        member("long/silero_test.wav"),
        member("jfk/jfk.flac", clip_start_s=2.0, clip_duration_s=3.0),
        member("broken/gitlink_text.wav"),
        (Member(name="gone.wav", size=1, uri="gone.wav"), MemberError("member_missing", "nothing there")),
        (Member(name="noise.wav", size=len(noise), uri="noise.wav"), noise),
    ]
    work = Work(Shard("shard", Archive("folder", Layout.FOLDER), "print"), 16_000)
    stage = Decode(Recipe())
    stage.process(work, payloads)
    stage.close()
    names = [utterance.member.name for utterance in work.utterances]
    assert set(names) == {"long/silero_test.wav", "jfk/jfk.flac"}
    assert [(reject.member, reject.stage, reject.reason) for reject in work.rejects] == [
        ("broken/gitlink_text.wav", "decode", "undecodable"),
        ("gone.wav", "decode", "member_missing"),
        ("noise.wav", "segment", "no_speech"),
    ]
    for utterance in work.utterances:
        assert utterance.raw.shape == (round((utterance.end_s - utterance.start_s) * 16_000),)
        assert utterance.end_s <= utterance.recording.duration_s
        assert {"snr_db", "peak", "rms_dbfs", "clipped_ratio"} <= set(utterance.levels)
    clip = work.utterances[-1]
    assert (clip.start_s, clip.end_s, clip.recording.duration_s) == (2.0, 5.0, pytest.approx(11.0))
