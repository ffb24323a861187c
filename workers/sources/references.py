"""Which reference belongs to which recording: by its own sidecar first, then by the tables."""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable
from functools import reduce
from typing import NamedTuple

from schemas.records import Seconds
from workers.sources.kinds import extension, stem
from workers.sources.tables import Row, Side, is_readers, own_side, readers, rows_of, stem_key

AUDIO_FOLDERS = frozenset(("wav", "wavs", "wav48", "wav48_silence_trimmed", "wav16", "audio", "audios", "clips", "flac",
                            "mp3", "sounds", "recordings"))  # fmt: skip
_TEXT_FOLDERS = frozenset(("txt", "text", "texts", "transcripts", "transcript", "lab", "labels", "json"))
_SUFFIXES = (".normalized", ".original", ".transcript")  # LibriTTS: x.normalized.txt beside x.wav
_MICROPHONE = re.compile(r"_mic\d+$")  # VCTK: two microphones, one text
_LIBRISPEECH_ID = re.compile(r"(\d+)-\d+-\d+$")
_OWN = ("txt", "lab", "json", "cls")


class Table:
    """Rows found by the base name of their file, each with the folder its table lies in."""

    def __init__(self) -> None:
        self._rows: dict[str, list[tuple[str, Row]]] = defaultdict(list)

    def add(self, scope: str, rows: Iterable[Row]) -> None:
        """``scope`` is the table's folder: its rows speak of files in and below it."""
        for row in rows:
            self._rows[stem_key(row.file)].append((scope, row))

    def find(self, name: str, key: str, archive: str, crowded: bool) -> list[Row]:
        """The rows that fit ``name`` best, of equals all. ``crowded``: others share its ``key``, so paths decide."""
        if not (candidates := self._rows.get(key)):
            return []
        # Base names alone are believed where they are unique, on both sides.
        is_unique = not crowded and len({(scope, row.file) for scope, row in candidates}) == 1
        rated = [(_fit(name, scope, row, archive, crowded, is_unique), row) for scope, row in candidates]
        best = max(fit for fit, _ in rated)
        return [row for fit, row in rated if fit == best > 0]


def _fit(name: str, scope: str, row: Row, archive: str, crowded: bool, is_unique: bool) -> int:
    """3: the very path; 2: the path's end; 1: the base name alone; 0: not this recording."""
    if row.archive and posixpath.basename(row.archive) != archive:
        return 0
    file = row.file.replace("\\", "/").removeprefix("./")
    path = posixpath.normpath(posixpath.join(scope, file))
    plain = stem(name)
    if name == path or plain == path or plain == stem(path):
        return 3
    if scope and not name.startswith(f"{scope}/"):
        return 0
    if "/" in file:
        ending = posixpath.normpath(file).lstrip("./")
        endings = (f"/{ending}", f"/{stem(ending)}")
        return 2 if plain.endswith(endings) or any(end.endswith(f"/{plain}") for end in endings) else int(is_unique)
    between = posixpath.dirname(name)[len(scope) :].strip("/").split("/")
    return int(not crowded or between[0] in AUDIO_FOLDERS | {""})


class Known(NamedTuple):
    """What is known of a recording: as a whole, as the pieces a manifest cuts it into, and how long it is."""

    side: Side
    pieces: tuple[Row, ...] = ()
    duration: Seconds | None = None


class References:
    """The references of one archive, from what was offered so far."""

    def __init__(self, archive_name: str, tables: Iterable[Table] = ()) -> None:
        """``archive_name`` is the archive's base name; ``tables`` are those found beside it."""
        self._archive = archive_name
        self._table = Table()
        self._tables = (self._table, *tables)
        self._own: dict[str, tuple[str, Side]] = {}  # path without extension -> sidecar's name and content
        self._parallel: dict[str, tuple[str, Side]] = {}  # the same without the folder of texts
        self._readers: frozenset[str] = frozenset()
        self._unused: dict[str, None] = {}
        self.crowded: set[str] = set()  # base names that several folders share
        self.version = 0  # counts what was offered

    def offer(self, name: str, data: bytes | None) -> None:
        """Take in a file that may be a sidecar. Where it is none it stays in :meth:`unused`."""
        self.version += 1
        data = data or b""
        if is_readers(name):
            self._readers |= readers(data)
            return
        rows = rows_of(name, data)
        self._table.add(posixpath.dirname(name), rows)
        # A JSON object may be a recording's own sidecar (WebDataset) as well as a manifest of one line (NeMo).
        if len(rows) > 1 or (rows and (extension(name) != "json" or b'"audio_filepath"' in data)):
            return
        self._unused[name] = None
        if extension(name) in _OWN and (side := own_side(name, data)) is not None:
            self._offer_own(name, side)

    def _offer_own(self, name: str, side: Side) -> None:
        key = stem(name)
        key = next((key.removesuffix(suffix) for suffix in _SUFFIXES if key.endswith(suffix)), key)
        known = self._own.get(key)
        merged = side if known is None else side.over(known[1]) if name < known[0] else known[1].over(side)
        self._own[key] = (name, merged)
        for variant in _without(key, _TEXT_FOLDERS):
            self._parallel[variant] = (name, merged)

    def of(self, name: str) -> Known:
        """What is known of a recording by now."""
        rows = self._rows(name)
        whole = [row for row in rows if not row.offset]
        side = reduce(Side.over, (self._own_of(name), *(row.side for row in whole), self._reader(name)))
        cuts = sorted((row for row in rows if row.offset is not None), key=lambda row: row.offset or 0.0)
        is_cut = len({row.offset for row in cuts}) > 1 or any(row.offset for row in cuts)
        return Known(side, tuple(cuts) if is_cut else (), next((row.duration for row in whole if row.duration), None))

    def unused(self) -> list[str]:
        """Files offered that turned out to belong to no recording asked for."""
        return list(self._unused)

    def _rows(self, name: str) -> list[Row]:
        key = stem_key(name)
        crowded = key in self.crowded
        return [row for table in self._tables for row in table.find(name, key, self._archive, crowded)]

    def _own_of(self, name: str) -> Side:
        for key in (stem(name), name):
            if found := self._own.get(key):
                self._use(key, found[0])
                return found[1]
        for variant in _without(stem(name), AUDIO_FOLDERS):
            key = _MICROPHONE.sub("", variant)
            if found := self._parallel.get(key):
                self._unused.pop(found[0], None)
                speaker = posixpath.basename(posixpath.dirname(key))
                is_vctk = speaker and posixpath.basename(key).startswith(f"{speaker}_")
                return found[1].over(Side(speaker=speaker if is_vctk else None))
        return Side()

    def _use(self, key: str, name: str) -> None:
        self._unused.pop(name, None)
        for ext in _OWN:
            for suffix in ("", *_SUFFIXES):
                self._unused.pop(f"{key}{suffix}.{ext}", None)

    def _reader(self, name: str) -> Side:
        match = _LIBRISPEECH_ID.match(stem_key(name)) if self._readers else None
        return Side(speaker=match[1]) if match and match[1] in self._readers else Side()


def _without(path: str, folders: frozenset[str]) -> list[str]:
    """``path`` without each one of its folders that is called as ``folders`` say: parallel trees meet there."""
    parts = path.split("/")
    return ["/".join(parts[:i] + parts[i + 1 :]) for i, part in enumerate(parts[:-1]) if part.lower() in folders]
