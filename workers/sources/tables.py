"""The tables corpora keep their transcripts in, read into rows: whatever the format, a file and what is known of it."""

from __future__ import annotations

import csv
import io
import json
import math
import posixpath
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any, Literal, NamedTuple

from schemas.records import Seconds
from workers.sources.entries import clean, decode_text, readable
from workers.sources.kinds import BYTES_PER_S, extension, stem

csv.field_size_limit(16 * 1024 * 1024)


class Side(NamedTuple):
    """What is known of a recording; None where not given."""

    text: str | None = None
    language: str | None = None
    speaker: str | None = None

    def over(self, other: Side) -> Side:
        """This, completed by ``other`` where it says nothing."""
        return Side(*(mine if mine is not None else theirs for mine, theirs in zip(self, other, strict=True)))


class Row(NamedTuple):
    """One line: ``file`` as it names the recording (a path or an utterance id), ``archive`` where it lies in one."""

    file: str
    side: Side
    archive: str = ""
    offset: Seconds | None = None
    duration: Seconds | None = None
    utterance: str = ""  # Kaldi's wav.scp and segments: the id under which other tables say more of it


# Column and key names of Common Voice, Hugging Face, NeMo, DeepSpeech, SpeechBrain, FLEURS and WebDataset, first wins.
FILE = ("audio_filepath", "member", "file_name", "filename", "file", "path", "audio_file", "audio_path", "wav_filename",
        "wav_path", "wav", "clip", "audio", "utterance_id", "utt_id", "utt", "segment_id", "id", "key")  # fmt: skip
TEXT = ("text", "sentence", "transcript", "transcription", "raw_transcription", "reference", "ref_text", "raw_text",
        "normalized_text", "txt")  # fmt: skip
LANGUAGE = ("language", "lang", "locale", "language_id")
SPEAKER = ("speaker", "speaker_id", "client_id", "spk", "spk_id", "speaker_name")
_KNOWN = frozenset((*FILE, *TEXT, *LANGUAGE, *SPEAKER, "offset", "duration"))

# Kaldi, LibriSpeech
_WHITESPACE_TABLES = re.compile(r"(^|/)(text|utt2spk|utt2lang|wav\.scp|segments|[^/]*\.trans\.txt)$", re.IGNORECASE)
_TAB_TABLES = re.compile(r"(^|/)[^/]*(trans|transcripts?|transcriptions?)(\.txt)?$", re.IGNORECASE)  # Azure, MLS
# Names under which two columns without a header are a file and its text.
_PAIRS = re.compile(
    r"(^|[/._-])(text|sentences?|trans(cripts?|criptions?)?|metadata|manifest|train|dev|test|valid|validated|validation)"
    r"\.tsv$", re.IGNORECASE,
)  # fmt: skip
_TIMIT = re.compile(r"^0 [1-9]\d{3,8} (?=\S)")  # first and last sample of a recording of a tenth of a second or more
_LABEL = re.compile(r"(\d{1,18})\s+(\d{1,18})\s+\S")
_LOOK_AT = 20  # lines by which a table's delimiter is told
_LIBRISPEECH = re.compile(r"(^|/)\d+-\d+\.trans\.txt$", re.IGNORECASE)
_READERS = re.compile(r"(^|/)speakers\.txt$", re.IGNORECASE)


def is_readers(name: str) -> bool:
    """LibriSpeech's SPEAKERS.TXT."""
    return bool(_READERS.search(name))


def readers(data: bytes) -> frozenset[str]:
    """The reader ids of SPEAKERS.TXT (``id | sex | subset | minutes | name``, comments begin with ;)."""
    lines = (line for line in decode_text(data).splitlines() if line and not line.startswith(";"))
    return frozenset(line.partition("|")[0].strip() for line in lines if "|" in line)


def rows_of(name: str, data: bytes) -> list[Row]:
    """The rows of a table; empty where ``name`` and content are not those of a table of recordings.

    Recognised: tables with a header (tsv, csv, also separated by | or ;), JSON lines, JSON arrays, LJ Speech's
    metadata.csv, FLEURS's headerless TSV, Azure's and MLS's tab-separated transcripts, LibriSpeech's ``.trans.txt``,
    Kaldi's ``text``, ``utt2spk``, ``utt2lang``, ``wav.scp`` and ``segments``.
    """
    if b"\0" in data[:4096] and data[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        return []
    text, ext = decode_text(data), extension(name)
    if ext in ("jsonl", "ndjson", "json"):
        return list(_json_rows(text))
    if ext in ("tsv", "csv"):
        rows = list(_delimited(name, text))
    elif _WHITESPACE_TABLES.search(name):
        rows = list(_keyed(name, text))
    elif _TAB_TABLES.search(name):
        rows = list(_delimited(name, text))
    else:
        rows = []
    return rows


def first(fields: Mapping[str, Any], names: Iterable[str]) -> str | None:
    """The first of ``names`` that ``fields`` holds as text or number, as it stands; None where blank or absent."""
    for name in names:
        value = fields.get(name)
        if isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value)):  # pandas' NaN is a blank
            continue
        if isinstance(value, str | int | float) and str(value).strip():
            return str(value).strip()
    return None


def side_of(fields: Mapping[str, Any]) -> Side:
    found = (first(fields, names) for names in (TEXT, LANGUAGE, SPEAKER))
    return Side(*(None if value is None else clean(value) for value in found))


def row_of(fields: Mapping[str, Any]) -> Row | None:
    """The row of one record by its field names; None where it names no file."""
    file = first(fields, FILE)
    if file is None:
        return None
    archive = first(fields, ("audio", "archive", "shard")) if first(fields, ("member",)) == file else None
    return Row(
        file, side_of(fields), archive or "", seconds_of(fields.get("offset")), seconds_of(fields.get("duration"))
    )


def seconds_of(value: Any) -> float | None:
    """Seconds from 0 on; None for anything else."""
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return seconds if 0 <= seconds < math.inf else None


def _json_rows(text: str) -> Iterator[Row]:
    for record in json_records(text):
        if isinstance(record, dict) and (row := row_of(record)):
            yield row


def json_records(text: str) -> Iterator[Any]:
    """The values of JSON lines, or of one JSON array; lines that are no JSON are left out."""
    if text.lstrip().startswith("["):
        try:
            yield from json.loads(text)
        except (ValueError, RecursionError):
            return
        return
    for line in io.StringIO(text):
        try:
            yield json.loads(line)
        except (ValueError, RecursionError):
            continue


def _delimited(name: str, text: str) -> Iterator[Row]:
    delimiter = _delimiter(name, text)
    lines = _lenient(_split(text, delimiter))
    first_line = next((values for values in lines if any(value.strip() for value in values)), [])
    cells = _header(first_line)
    if set(cells) & set(FILE) and not any(extension(cell) in BYTES_PER_S for cell in cells):
        if not set(cells) & _KNOWN - set(FILE):
            return  # Common Voice's clip_durations.tsv, and whatever else is said of files
        # Common Voice lists clips whose speakers said something else than the sentence: it is no reference for them.
        is_invalid = posixpath.basename(name).lower() == "invalidated.tsv"
        for values in lines:
            row = row_of(dict(zip(cells, values, strict=False)))
            if row:
                yield row._replace(side=row.side._replace(text=None)) if is_invalid else row
        return
    yield from _headerless(name, delimiter, chain([first_line], lines))


def _split(text: str, delimiter: str) -> Iterator[list[str]]:
    """The cells of each line. Quotes quote in comma-separated tables only: Common Voice and LJ Speech write them as
    part of the text."""
    quoting: Literal[0, 3] = 0 if delimiter in ",;" else 3  # csv.QUOTE_MINIMAL, csv.QUOTE_NONE
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting)


def _lenient(lines: Iterator[list[str]]) -> Iterator[list[str]]:
    """The lines that can be read: csv refuses NUL bytes and fields without end."""
    while True:
        try:
            yield next(lines)
        except csv.Error:
            continue
        except StopIteration:
            return


def _header(values: list[str]) -> list[str]:
    return [value.strip().strip('"').lower() for value in values]


def _delimiter(name: str, text: str) -> str:
    """Tabs, but where ``name`` ends in csv: LJ Speech's pipes where all lines have as many (its texts have commas by
    the dozen), else what gives most of the column names that are known."""
    if extension(name) != "csv":
        return "\t"
    lines = list(islice((line for line in io.StringIO(text, newline=None) if line.strip()), _LOOK_AT))
    pipes = {line.count("|") for line in lines}
    if len(pipes) == 1 and pipes <= {1, 2}:
        return "|"
    head = lines[0] if lines else ""
    return max("\t,|;", key=lambda one: len(_KNOWN.intersection(_header(next(_lenient(_split(head, one)), [])))))


def _headerless(name: str, delimiter: str, lines: Iterable[list[str]]) -> list[Row]:
    """Lines without a header: LJ Speech ``id|raw|normalised``, FLEURS ``number, file, raw, ...``, ``file, text``.

    Whether the second of two columns is the text shows in the table's name alone, and in that it is no number.
    """
    is_named, may_be_pairs = bool(_TAB_TABLES.search(name)), bool(_PAIRS.search(name))
    rows, are_numbers = [], not is_named
    for values in lines:
        values = [value.strip() for value in values]
        if delimiter == "|" and 2 <= len(values) <= 3 and values[0]:
            text = values[2] if len(values) == 3 and values[2] else values[1]
        elif delimiter == "\t" and len(values) >= 4 and values[0].isdigit() and extension(values[1]) in BYTES_PER_S:
            values, text = values[1:], values[2]
        elif delimiter == "\t" and len(values) == 2 and values[0] and (is_named or may_be_pairs):
            text = values[1]
        else:
            continue
        rows.append(Row(values[0], Side(text or None)))
        are_numbers = are_numbers and seconds_of(text) is not None
    return [] if are_numbers else rows


def _keyed(name: str, text: str) -> Iterator[Row]:
    """``utterance-id rest of the line``; LibriSpeech's ids begin with the speaker's."""
    base = posixpath.basename(name).lower()
    for line in io.StringIO(text):
        key, _, rest = line.strip().replace("\t", " ").partition(" ")
        value = rest.strip() or None
        if not key:
            continue
        if base == "utt2spk":
            yield Row(key, Side(speaker=value))
        elif base == "utt2lang":
            yield Row(key, Side(language=value))
        elif base == "wav.scp":
            yield Row(_scp_file(rest), Side(), utterance=key)
        elif base == "segments":
            if row := _segment(key, rest.split()):
                yield row
        else:
            yield Row(key, Side(value, speaker=key.partition("-")[0] if _LIBRISPEECH.search(name) else None))


def _scp_file(rest: str) -> str:
    """The recording of a line of wav.scp: a path, or a command that ends in a pipe and names one."""
    if not rest.rstrip().endswith("|"):
        return rest.strip()
    return next((word for word in reversed(rest.split()) if extension(word) in BYTES_PER_S), "")


def _segment(utterance: str, cells: list[str]) -> Row | None:
    """A line of segments after its first word: the recording's id, where the piece starts and where it ends."""
    if len(cells) < 3 or (start := seconds_of(cells[1])) is None:
        return None
    end = seconds_of(cells[2])  # -1: that of the recording
    if end is not None and end <= start:
        return None
    return Row(cells[0], Side(), "", start, None if end is None else round(end - start, 6), utterance)


def own_side(name: str, data: bytes) -> Side | None:
    """What a sidecar with a recording's own name says of it; None where it is no transcript.

    Text is taken whole; TIMIT's leading sample numbers are left out, and HTK's time-aligned labels are no transcript.
    """
    if b"\0" in data and data[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        return None
    if extension(name) == "cls":
        return Side()  # WebDataset's class index: known, but no reference
    text = decode_text(data).strip()
    if extension(name) == "lang":
        return Side(language=text or None)
    if extension(name) == "json":
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError):
            return None
        return side_of(fields) if isinstance(fields, dict) else None
    if extension(name) == "lab" and _are_labels(text):
        return Side()
    text = _TIMIT.sub("", text) if "\n" not in text else text
    return Side(" ".join(text.split()) or None)


def _are_labels(text: str) -> bool:
    """Whether every line is HTK's ``start end label``, in 100 ns and a millisecond long at least: no spoken numbers."""
    lines = [_LABEL.match(line) for line in text.splitlines()]
    return all(line is not None and int(line[2]) - int(line[1]) >= 10_000 for line in lines) and bool(lines)


def as_key(name: str) -> str:
    """A name as it is looked up by: macOS writes letters and accents apart (NFD), tables have them in one (NFC)."""
    return name if name.isascii() else unicodedata.normalize("NFC", readable(name))


def stem_key(file: str) -> str:
    """What a file is looked up by: its base name, without an extension of audio.

    >>> stem_key("wavs/LJ001-0001.wav"), stem_key("p225_001.v2")
    ('LJ001-0001', 'p225_001.v2')
    """
    base = posixpath.basename(as_key(file).replace("\\", "/"))
    return stem(base) if extension(base) in BYTES_PER_S else base
