"""The demo corpus: espeak-ng voices read digit strings through noise, packed the ways speech archives come.

``python -m infra.demo.corpus FOLDER`` writes, bit for bit the same every time,

- ``read.tar``: LibriSpeech layout, FLAC at 16 kHz with ``*.trans.txt``; one member is not audio;
- ``hotline.tar.gz``: WAV at 8 kHz with same-stem ``.txt``; one member is corrupt;
- ``broadcast.zip``: MP3 and WAV at 44.1 kHz with a Hugging Face ``metadata.csv``; one member is empty, and one is a
  recording of several minutes without a transcript;
- ``studio/``: WAV at 16 kHz under a NeMo ``manifest.jsonl``; half of its lines are pieces of one session;
- ``.truth.jsonl``: what is said, by whom, and in which noise at which SNR, of every recording.
"""

from __future__ import annotations

import argparse
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from infra.demo import noise
from infra.demo.packs import tar_bytes, tar_gz_bytes, write, zip_bytes
from workers.engines.espeak import EspeakSynthesizer

EDITION = 1  # raise it when the recordings change, so that a corpus of an older edition is made anew
SOURCES = ("read.tar", "hotline.tar.gz", "broadcast.zip", "studio/manifest.jsonl")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SNRS_DB = (None, 25.0, 15.0, 10.0, 5.0)  # None: no noise is added


@dataclass(frozen=True)
class Speaker:
    """A named espeak-ng voice with its pace (words per minute) and pitch (0 to 100)."""

    name: str
    voice: str
    rate_wpm: int
    pitch: int


SPEAKERS = (
    Speaker("amelia", "en-gb+f2", 150, 55),
    Speaker("benedict", "en-gb+m3", 140, 40),
    Speaker("clara", "en-us+f4", 155, 50),
    Speaker("douglas", "en-gb-scotland+m1", 145, 45),
    Speaker("edith", "en-gb-x-rp+f3", 135, 60),
    Speaker("franklin", "en-us+m7", 160, 35),
    Speaker("grace", "en-us+f1", 140, 52),
    Speaker("harold", "en-us+m2", 150, 42),
)


@dataclass(frozen=True)
class Recording:
    """``samples`` (n,) in [-1, 1] at ``rate`` Hz, and the truth about them; ``said`` is (start_s, end_s, words)."""

    samples: np.ndarray
    rate: int
    speaker: str
    noise: str
    snr_db: float | None
    said: tuple[tuple[float, float, str], ...]

    @property
    def text(self) -> str:
        return " ".join(words for _, _, words in self.said)

    @property
    def duration_s(self) -> float:
        return len(self.samples) / self.rate

    def encode(self, container: str, subtype: str | None = None) -> bytes:
        """The recording as a file libsndfile writes, such as FLAC or MP3."""
        out = io.BytesIO()
        soundfile.write(out, self.samples, self.rate, format=container, subtype=subtype)
        return out.getvalue()


class Studio:
    """Makes recordings, one after the other, from one seed."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.engine = EspeakSynthesizer("en-us")
        self.turns = 0
        self.crowd = [self._speak(speaker, "nine four seven one eight two five")[0] for speaker in SPEAKERS]

    def _speak(self, speaker: Speaker, words: str) -> tuple[np.ndarray, int]:
        """``words`` without the silence around them, at a common level; and their rate, Hz."""
        spoken = self.engine.speak(words, speaker.voice, rate_wpm=speaker.rate_wpm, pitch=speaker.pitch)
        loud = np.flatnonzero(np.abs(spoken.samples) > 0.01 * np.abs(spoken.samples).max())
        samples = spoken.samples[loud[0] : loud[-1] + 1].astype(np.float64)
        return samples * (0.1 / np.sqrt((samples**2).mean())), spoken.sample_rate

    def _words(self) -> str:
        return " ".join(DIGITS[d] for d in self.rng.integers(0, 10, int(self.rng.integers(3, 8))))

    def record(self, rate: int, strings: int = 1) -> Recording:
        """The next speaker reads ``strings`` digit strings with pauses of 0.7 to 1.5 s, in the next kind of noise."""
        speaker = SPEAKERS[self.turns % len(SPEAKERS)]
        snr_db = SNRS_DB[self.turns % len(SNRS_DB)]
        kind = noise.KINDS[self.turns // len(SNRS_DB) % len(noise.KINDS)]
        self.turns += 1
        position, pieces, said = 0, [], []
        for index in range(strings):
            words = self._words()
            samples, own = self._speak(speaker, words)
            pause = self.rng.uniform(0.7, 1.5) if index else self.rng.uniform(0.15, 0.3)
            pieces += [np.zeros(int(pause * rate)), soxr.resample(samples, own, rate)]
            start = position + len(pieces[-2])
            position = start + len(pieces[-1])
            said.append((round(start / rate, 3), round(position / rate, 3), words))
        speech = np.concatenate([*pieces, np.zeros(int(0.25 * rate))])
        if snr_db is not None:
            speech = noise.mix(speech, self._noise(kind, len(speech), rate), snr_db)
        speech = speech * (10 ** (self.rng.uniform(-12, -1) / 20) / np.abs(speech).max())
        return Recording(speech, rate, speaker.name, kind if snr_db is not None else "none", snr_db, tuple(said))

    def _noise(self, kind: str, n: int, rate: int) -> np.ndarray:
        if kind == "white":
            return noise.white(n, self.rng)
        if kind == "pink":
            return noise.pink(n, self.rng)
        if kind == "hum":
            return noise.hum(n, rate, self.rng)
        return noise.babble(n, self.crowd, self.rng)


@dataclass
class Truth:
    """Collects a line per recording for ``.truth.jsonl``."""

    lines: list[dict[str, object]]

    def add(self, archive: str, member: str, recording: Recording) -> None:
        self.lines.append(
            {
                "archive": archive,
                "member": member,
                "speaker": recording.speaker,
                "noise": recording.noise,
                "snr_db": recording.snr_db,
                "duration_s": round(recording.duration_s, 3),
                "said": [{"start_s": start, "end_s": end, "text": text} for start, end, text in recording.said],
            }
        )


def _read_tar(studio: Studio, count: int, truth: Truth) -> bytes:
    """LibriSpeech: ``speaker/chapter/speaker-chapter-number.flac`` with numbers for speakers, whom SPEAKERS.TXT names;
    one ``.trans.txt`` per chapter, in capitals."""
    chapters: dict[str, dict[str, bytes]] = {}
    numbers = {speaker.name: 11 + index for index, speaker in enumerate(SPEAKERS)}
    for number in range(count):
        recording = studio.record(16_000)
        chapter = f"{numbers[recording.speaker]}-{100 + number // len(SPEAKERS) // 8}"
        name = f"{chapter}-{number:04d}"
        folder = chapter.replace("-", "/")
        member = f"{folder}/{name}.flac"
        files = chapters.setdefault(f"{folder}/{chapter}.trans.txt", {})
        files[member] = recording.encode("FLAC")
        truth.add("read.tar", member, recording)
        files[""] = files.get("", b"") + f"{name} {recording.text.upper()}\n".encode()
    readers = "".join(f"{number} | - | demo | 1.0 | {name}\n" for name, number in numbers.items())
    members = {"SPEAKERS.TXT": f";ID | SEX | SUBSET | MINUTES | NAME\n{readers}".encode()}
    for transcript in sorted(chapters):
        files = chapters[transcript]
        lines = files.pop("")
        members |= {**files, transcript: lines}
    members["cover.png"] = b"\x89PNG\r\n\x1a\n" + bytes(24)
    return tar_bytes(members)


def _hotline_tar_gz(studio: Studio, count: int, truth: Truth) -> bytes:
    """Telephone calls: ``.wav`` in 8 kHz mu-law or PCM, the text in a ``.txt`` beside it."""
    members: dict[str, bytes] = {}
    for number in range(count):
        recording = studio.record(8_000)
        name = f"calls/{number:04d}"
        members[f"{name}.wav"] = recording.encode("WAV", "ULAW" if number % 2 else "PCM_16")
        members[f"{name}.txt"] = f"{recording.text}\n".encode()
        truth.add("hotline.tar.gz", f"{name}.wav", recording)
        if number == count // 2:
            members["calls/corrupt.wav"] = members[f"{name}.wav"][:12] + bytes(studio.rng.bytes(4_000))
    return tar_gz_bytes(members)


def _broadcast_zip(studio: Studio, count: int, strings: int, truth: Truth) -> bytes:
    """Hugging Face ``audiofolder``: files named by a ``metadata.csv``; the long recording has no line in it."""
    members: dict[str, bytes] = {"metadata.csv": b"", "jingle.wav": b""}
    rows = ["file_name,transcription,speaker,language"]
    for number in range(count):
        recording = studio.record(44_100)
        name = f"clips/{number:04d}." + ("wav" if number % 4 == 0 else "mp3")
        members[name] = recording.encode("WAV") if number % 4 == 0 else recording.encode("MP3")
        rows.append(f"{name},{recording.text},{recording.speaker},en")
        truth.add("broadcast.zip", name, recording)
    long = studio.record(16_000, strings)
    members["long/evening.flac"] = long.encode("FLAC")
    truth.add("broadcast.zip", "long/evening.flac", long)
    members["metadata.csv"] = ("\n".join(rows) + "\n").encode()
    return zip_bytes(members)


def _studio_folder(studio: Studio, count: int, truth: Truth) -> dict[str, bytes]:
    """NeMo: a JSONL manifest; the first half of its lines cut pieces out of one session by offset and duration."""
    session = studio.record(16_000, max(1, count // 2))
    files = {"session.wav": session.encode("WAV")}
    truth.add("studio", "session.wav", session)
    lines: list[dict[str, object]] = []
    for start, end, text in session.said:
        offset, duration = round(start - 0.15, 3), round(end - start + 0.35, 3)
        lines.append({"audio_filepath": "session.wav", "offset": offset, "duration": duration, "text": text,
                      "speaker": session.speaker, "lang": "en"})  # fmt: skip
    for number in range(count - len(session.said)):
        recording = studio.record(16_000)
        name = f"takes/{number:04d}.wav"
        files[name] = recording.encode("WAV")
        truth.add("studio", name, recording)
        lines.append({"audio_filepath": name, "duration": round(recording.duration_s, 3), "text": recording.text,
                      "speaker": recording.speaker, "lang": "en"})  # fmt: skip
    files["manifest.jsonl"] = "".join(json.dumps(line) + "\n" for line in lines).encode()
    return files


def build(folder: Path, minutes: float = 11.0, seed: int = 1) -> Path:
    """Make the corpus of about ``minutes`` of audio under ``folder`` and return it; what is there is kept if it fits.

    A third of the audio is the long recording. Raises ValueError below half a minute: each archive needs a clip.
    """
    if minutes < 0.5:
        raise ValueError(f"a demo corpus of {minutes} minutes has no room for its archives; ask for 0.5 or more")
    edition = {"edition": EDITION, "minutes": minutes, "seed": seed}
    path = folder / ".truth.jsonl"
    if path.is_file() and path.read_text().startswith(json.dumps(edition) + "\n"):
        return folder
    studio, truth = Studio(seed), Truth([])
    clips = round(minutes * 60 * 2 / 3 / 2.3)  # a string of 5 digits takes 2.3 s on average, its margins included
    strings = max(2, round(minutes * 60 / 3 / 3.0))  # and 3.0 s with the pause before it
    quarter = clips // 4
    write(folder / "read.tar", _read_tar(studio, quarter, truth))
    write(folder / "hotline.tar.gz", _hotline_tar_gz(studio, quarter, truth))
    write(folder / "broadcast.zip", _broadcast_zip(studio, quarter, strings, truth))
    for name, data in _studio_folder(studio, clips - 3 * quarter, truth).items():
        write(folder / "studio" / name, data)
    write(path, "".join(json.dumps(line) + "\n" for line in [edition, *truth.lines]).encode())
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the demo corpus.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=11.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(build(options.folder, options.minutes, options.seed))


if __name__ == "__main__":
    main()
