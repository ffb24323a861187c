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
from workers.sources.tables import Row, Side, as_key, is_readers, own_side, readers, rows_of, stem_key

AUDIO_FOLDERS = frozenset(("wav", "wavs", "wav48", "wav48_silence_trimmed", "wav16", "audio", "audios", "clips", "flac",
                            "mp3", "sounds", "recordings"))  # fmt: skip
_TEXT_FOLDERS = frozenset(("txt", "text", "texts", "transcripts", "transcript", "lab", "labels", "json"))
_SUFFIXES = (".normalized", ".original", ".transcript")  # LibriTTS: x.normalized.txt beside x.wav
_MICROPHONE = re.compile(r"_mic\d+$")  # VCTK: two microphones, one text
_LIBRISPEECH_ID = re.compile(r"(\d+)-\d+-\d+$")
_FEW = 8  # rows that are looked at one by one
_OWN = ("txt", "text", "transcript", "lab", "json", "lang", "cls")
_FIELD = ".audio"  # WebDataset's key ends at the first dot: x.json beside x.audio.wav


class _Same:
    """The rows that share a base name, each with the folder its table lies in."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, Row]] = []
        self.is_one = True  # whether all name the very same file
        # Places in ``rows``, once they are many, by all that a recording may be found by.
        self._paths: dict[str, list[int]] = defaultdict(list)  # the path as the table gives it, or from its folder on
        self._ends: dict[str, list[int]] = defaultdict(list)  # every end of that path
        self._scopes: dict[str, list[int]] = defaultdict(list)  # the folder of the table, of rows without a path
        self._indexed = 0

    def add(self, scope: str, row: Row) -> None:
        self.rows.append((scope, row))
        self.is_one = self.is_one and self.first == (scope, row.file)

    @property
    def first(self) -> tuple[str, str]:
        return self.rows[0][0], self.rows[0][1].file

    def near(self, name: str) -> list[tuple[str, Row]]:
        """The rows that may fit ``name``, in order."""
        if len(self.rows) <= _FEW or self.is_one:
            return self.rows
        for place in range(self._indexed, len(self.rows)):
            self._index(place, *self.rows[place])
        self._indexed = len(self.rows)
        plain, folders = stem(name), name.split("/")[:-1]
        found = {place for end in _ends(plain) for place in self._paths.get(end, ())}
        found.update(self._ends.get(plain, ()) if "/" in plain else ())
        for depth in range(len(folders) + 1):
            found.update(self._scopes.get("/".join(folders[:depth]), ()))
        return [self.rows[place] for place in sorted(found)]

    def _index(self, place: int, scope: str, row: Row) -> None:
        path, ending = _path(scope, row), _ending(row)
        if "/" not in row.file:
            self._scopes[scope].append(place)
            return
        for one in {path, stem(path), ending, stem(ending)}:
            self._paths[one].append(place)
        for one in {*_ends(ending), *_ends(stem(ending))}:
            self._ends[one].append(place)


def _ends(path: str) -> list[str]:
    """``path`` and what is left of it without its first folder, its first two, and so on.

    >>> _ends("a/b/c")
    ['a/b/c', 'b/c', 'c']
    """
    parts = path.split("/")
    return ["/".join(parts[at:]) for at in range(len(parts))]


class Table:
    """Rows found by the base name of their file, each with the folder its table lies in."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], _Same] = defaultdict(_Same)  # by the archive's base name, if any, and key

    def add(self, scope: str, rows: Iterable[Row]) -> None:
        """``scope`` is the table's folder: its rows speak of files in and below it."""
        scope = as_key(scope)
        for row in rows:
            file = as_key(row.file.replace("\\", "/")).removeprefix("./")
            archive = as_key(posixpath.basename(row.archive))
            if row.utterance:  # ids are told apart by the folder of their tables; paths start anywhere
                file = file if row.offset is None else posixpath.join(scope, file)
                row = row._replace(utterance=posixpath.join(scope, as_key(row.utterance)))
            self._rows[archive, stem_key(file)].add("" if row.utterance else scope, row._replace(file=file))

    def find(self, name: str, key: str, archive: str, crowded: bool) -> list[Row]:
        """The rows that fit ``name`` best, of equals all. ``crowded``: others share its ``key``, so paths decide."""
        same = [self._rows[at, key] for at in dict.fromkeys(("", archive)) if (at, key) in self._rows]
        # Base names alone are believed where they are unique, on both sides.
        is_unique = not crowded and all(one.is_one for one in same) and len({one.first for one in same}) == 1
        rated = [(_fit(name, scope, row, crowded, is_unique), row) for one in same for scope, row in one.near(name)]
        best = max((fit for fit, _ in rated), default=0)
        return [row for fit, row in rated if fit == best > 0]


def _path(scope: str, row: Row) -> str:
    return posixpath.normpath(posixpath.join(scope, row.file))


def _ending(row: Row) -> str:
    return posixpath.normpath(row.file).lstrip("./")


def _fit(name: str, scope: str, row: Row, crowded: bool, is_unique: bool) -> int:
    """3: the very path; 2: the path's end; 1: the base name alone; 0: not this recording."""
    path = _path(scope, row)
    plain = stem(name)
    if name == path or plain == path or plain == stem(path):
        return 3
    if scope and not name.startswith(f"{scope}/"):
        return 0
    if "/" in row.file:
        ending = _ending(row)
        endings = (f"/{ending}", f"/{stem(ending)}")
        is_longer = "/" in plain and any(end.endswith(f"/{plain}") for end in endings)
        return 2 if plain.endswith(endings) or is_longer else int(is_unique)
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
        self._archive = as_key(archive_name)
        self._table = Table()
        self._tables = (self._table, *tables)
        self._own: dict[str, tuple[str, Side]] = {}  # path without extension -> sidecar's name and content
        self._parallel: dict[str, tuple[str, Side]] = {}  # the same without the folder of texts
        self._readers: frozenset[str] = frozenset()
        self._unused: dict[str, str] = {}  # names as they are looked up -> as they are
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
        if extension(name) == "json" and stem_key(stem(name)).isdigit():  # 0.json tells its segments' ids, not files
            rows = [row for row in rows if not row.file.isdigit()]
        self._table.add(posixpath.dirname(name), rows)
        # A JSON object may be a recording's own sidecar (WebDataset) as well as a manifest of one line (NeMo).
        if len(rows) > 1 or (rows and (extension(name) != "json" or b'"audio_filepath"' in data)):
            return
        self._unused[as_key(name)] = name
        if extension(name) in _OWN and (side := own_side(name, data)) is not None:
            self._offer_own(as_key(name), side)

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
        name = as_key(name)
        rows = self._rows(name)
        cuts = sorted((row for row in rows if row.offset is not None), key=lambda row: row.offset or 0.0)
        if not any(row.offset or row.duration for row in cuts):  # all that there is, from the start on
            cuts = []
        whole = [row for row in rows if row.offset is None or not cuts]
        side = reduce(Side.over, (self._own_of(name), *(row.side for row in whole), self._reader(name)))
        return Known(side, tuple(cuts), next((row.duration for row in whole if row.duration), None))

    def unused(self) -> list[str]:
        """Files offered that turned out to belong to no recording asked for."""
        return list(self._unused.values())

    def _rows(self, name: str) -> list[Row]:
        """The rows of a recording, and what tables say of it, or of its pieces, under the ids Kaldi gives them."""
        rows = self._found(name)
        for row in rows[:]:
            if row.utterance and row.offset is None:
                rows += (one for one in self._found(row.utterance) if one.offset is not None or not one.utterance)
        return [
            row._replace(side=reduce(Side.over, (one.side for one in self._found(row.utterance)), row.side))
            if row.utterance and row.offset is not None
            else row
            for row in rows
        ]

    def _found(self, name: str) -> list[Row]:
        key = stem_key(name)
        crowded = key in self.crowded
        return [row for table in self._tables for row in table.find(name, key, self._archive, crowded)]

    def _own_of(self, name: str) -> Side:
        for key in (stem(name), stem(name).removesuffix(_FIELD), name):
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
