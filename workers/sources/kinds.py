"""What a file is by its name: a recording, something that may hold references, or neither."""

from __future__ import annotations

import posixpath
from enum import StrEnum

from schemas.records import Seconds


class Kind(StrEnum):
    """What a name promises. An unknown or missing extension is a candidate: the decoder has the last word."""

    RECORDING = "recording"
    SIDECAR = "sidecar"  # may hold references; what turns out to hold none is no audio
    HEADERLESS = "headerless"
    ARCHIVE = "archive"
    OTHER = "other"


# Bytes per second by extension, for cutting shards where durations are unknown. Uncompressed speech is taken as 16 kHz
# 16-bit mono (32 kB/s); FLAC at its usual 55 to 60% of that; lossy formats at the bit rates of speech corpora
# (Common Voice mp3 64 kbit/s; Opus 24 to 32 kbit/s; AAC 128 kbit/s of video and podcasts). Only balance rests on it.
BYTES_PER_S: dict[str, float] = {
    **dict.fromkeys(("wav", "wave", "w64", "rf64", "aif", "aiff", "aifc", "au", "snd", "caf", "sph", "nist"), 32_000.0),
    **dict.fromkeys(("flac", "ape", "wv", "tta", "alac", "shn"), 18_000.0),
    **dict.fromkeys(("mp3", "mp2", "mpga", "wma"), 8_000.0),
    **dict.fromkeys(("ogg", "oga", "opus", "spx", "amr", "awb", "gsm", "webm", "weba"), 4_000.0),
    **dict.fromkeys(("m4a", "m4b", "aac", "ac3", "mka", "3gp", "3ga"), 16_000.0),
    **dict.fromkeys(("mp4", "mkv", "mov", "avi", "mpg", "mpeg", "ts", "flv", "wmv", "m4v", "ogv"), 120_000.0),
}  # fmt: skip
DEFAULT_BYTES_PER_S = 32_000.0

ARCHIVE_SUFFIXES = (
    ".tar", ".zip", ".tar.gz", ".tgz", ".tar.bz2", ".tbz", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".tar.zstd",
)  # fmt: skip
_NESTED = (*ARCHIVE_SUFFIXES, ".7z", ".rar", ".gz", ".bz2", ".xz", ".zst", ".lz4", ".jar", ".whl", ".iso")
_SIDECARS = frozenset(("txt", "lab", "json", "jsonl", "ndjson", "csv", "tsv", "cls", "text", "transcript", "lang"))
_SIDECAR_NAMES = frozenset(("text", "utt2spk", "utt2lang", "wav.scp", "segments", "transcripts", "transcript", "trans"))
_HEADERLESS = frozenset(
    ("raw", "pcm", "s16", "s16le", "s16be", "s8", "u8", "s24le", "s32le", "f32", "f32le", "ul", "ulaw", "al", "alaw",
     "mulaw", "sln", "vox", "adc")
)  # fmt: skip
_OTHER_EXTENSIONS = """md rst html htm xml pdf doc docx odt rtf xls xlsx ppt pptx tex bib log yaml yml toml ini cfg conf
    properties png jpg jpeg gif bmp tif tiff svg webp ico heic psd py pyc ipynb sh bash bat ps1 pl rb js java class c cc
    cpp h hpp go rs r m mat cmake lock npy npz pt pth ckpt pkl pickle onnx safetensors nemo h5 hdf5 tfrecord parquet
    arrow feather orc avro db sqlite sqlite3 textgrid rttm uem eaf trs stm ctm srt vtt ass ssa sbv mlf phn wrd align ark
    scp fst far arpa lm model vocab dict lexicon md5 sha1 sha256 sha512 asc sig torrent url lnk exe dll so dylib bak tmp
    swp part crdownload nfo cue m3u m3u8 pls mid midi font ttf otf woff css"""
_OTHER_BASE_NAMES = """readme license licence copying authors changelog changes makefile dockerfile notice version
    thumbs.db desktop.ini spk2utt spk2gender reco2dur utt2dur utt2num_frames feats.scp cmvn.scp
    _success"""
_OTHER = frozenset(_OTHER_EXTENSIONS.split())
_OTHER_NAMES = frozenset(_OTHER_BASE_NAMES.split())


def extension(name: str) -> str:
    """The last extension of ``name`` in lower case, without the dot.

    >>> extension("a.b/Clip.WAV")
    'wav'
    """
    return posixpath.splitext(posixpath.basename(name))[1][1:].lower()


def stem(name: str) -> str:
    """``name`` without its last extension, folders kept."""
    return posixpath.splitext(name)[0]


def is_archive_name(name: str) -> bool:
    return name.lower().endswith(ARCHIVE_SUFFIXES)


def archive_stem(name: str) -> str:
    """The base name of an archive without its suffixes.

    >>> archive_stem("s3://b/train-clean-100.tar.gz")
    'train-clean-100'
    """
    base = posixpath.basename(name)
    for suffix in sorted(ARCHIVE_SUFFIXES, key=len, reverse=True):
        if base.lower().endswith(suffix):
            return base[: -len(suffix)]
    return posixpath.splitext(base)[0]


def is_hidden(name: str) -> bool:
    """Files that operating systems and version control leave behind: ``.DS_Store``, ``__MACOSX/``, ``.git/``."""
    parts = [part for part in name.split("/") if part not in ("", ".", "..")]
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)


def kind_of(name: str) -> Kind:
    """What ``name`` promises.

    >>> kind_of("a/b.flac").value, kind_of("trans.txt").value, kind_of("x.pcm").value, kind_of("._a.wav").value
    ('recording', 'sidecar', 'headerless', 'other')
    """
    if is_hidden(name):
        return Kind.OTHER
    base, ext = posixpath.basename(name).lower(), extension(name)
    if base in _SIDECAR_NAMES:
        return Kind.SIDECAR
    if base in _OTHER_NAMES or ext in _OTHER:
        return Kind.OTHER
    if ext in _SIDECARS:
        return Kind.SIDECAR
    if ext in _HEADERLESS:
        return Kind.HEADERLESS
    if base.endswith(_NESTED):
        return Kind.ARCHIVE
    return Kind.RECORDING


def estimate_s(name: str, size: int) -> Seconds:
    """Duration of a recording guessed from its size (bytes) and :data:`BYTES_PER_S`; 0 where that is not told."""
    return max(0, size) / BYTES_PER_S.get(extension(name), DEFAULT_BYTES_PER_S)
