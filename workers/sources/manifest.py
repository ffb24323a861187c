"""NeMo manifests: JSON lines that name recordings, or pieces of them, with their text."""

from __future__ import annotations

import io
import json
import posixpath
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from schemas.config import Storage
from schemas.ids import stable_id
from schemas.reasons import Reason
from schemas.records import Archive, Member, Seconds
from workers.sources.entries import Entry, clean, decode_text, readable
from workers.sources.kinds import estimate_s
from workers.sources.sniff import compression_of, decompressor
from workers.sources.store import ArchiveError, StoreError, StoreFile, followed, size_of, uri_of, version_of
from workers.sources.tables import as_key, row_of, seconds_of
from workers.storage import escaped, open_filesystem

THREADS = 16
_URI = "uri of voxmill"  # added to what a store says of a recording that lies under another spelling of its name
LISTED = 8  # recordings of one folder from which listing it is cheaper than asking for each

Info = dict[str, Any] | StoreError


class _BadLine(ValueError):
    pass


class PieceNames:
    """Names of the pieces of one archive's recordings: where a piece starts, to the millisecond. How long it is comes
    along only where another piece has that name already, and all digits only where that is not enough.

    The same piece has the same name again, which marks it as a duplicate.

    >>> name = PieceNames()
    >>> name("a.wav", None, None), name("a.wav", 12.5, 3.0), name("a.wav", 1234.561, 2.0)
    ('a.wav', 'a.wav@12.5', 'a.wav@1234.561')
    >>> name("a.wav", 12.5, 4.25), name("a.wav", 12.5, None), name("a.wav", 0.0, 3.0), name("a.wav", 12.5, 3.0)
    ('a.wav@12.5+4.25', 'a.wav@12.5+rest', 'a.wav@0+3', 'a.wav@12.5')
    """

    def __init__(self) -> None:
        self._pieces: dict[str, tuple[str, Seconds, Seconds | None]] = {}

    def __call__(self, recording: str, offset: Seconds | None, duration: Seconds | None) -> str:
        piece = (recording, offset or 0.0, duration)
        for name in self._candidates(*piece):
            if self._pieces.setdefault(name, piece) == piece:
                break
        return name

    @staticmethod
    def _candidates(recording: str, start: Seconds, duration: Seconds | None) -> Sequence[str]:
        length = "rest" if duration is None else _digits(duration)
        return (
            f"{recording}@{_digits(start)}" if start else recording,
            f"{recording}@{_digits(start)}+{length}",
            f"{recording}@{start!r}+{duration!r}",
        )


def _digits(seconds: Seconds) -> str:
    """Seconds to the millisecond, without zeros at the end.

    >>> _digits(12.5), _digits(1234.5614), _digits(100000.0), _digits(0.1 + 0.2)
    ('12.5', '1234.561', '100000', '0.3')
    """
    return f"{seconds:.3f}".rstrip("0").rstrip(".")


def entries(archive: Archive, storage: Storage) -> Iterator[Entry]:
    """One entry per line; lines that say nothing usable and recordings that are not there are refused.

    Relative paths are taken from the manifest's own folder. Raises StoreError, and ArchiveError for damaged data.
    """
    lines = list(_lines(_read(archive, storage)))
    parsed: list[tuple[str, Member | str]] = []
    names = PieceNames()
    for number, line in lines:
        try:
            parsed.append((line, _member(line, archive.uri, len(parsed), names)))
        except _BadLine as error:
            parsed.append((line, f"line {number}: {error}"))
    infos = _infos((item.uri for _, item in parsed if isinstance(item, Member)), storage)
    for ordinal, ((number, _), (line, item)) in enumerate(zip(lines, parsed, strict=True)):
        if isinstance(item, str):
            bad = Member(f"line {number}", len(line), archive.uri, stable_id(line, length=16), ordinal=ordinal)
            yield Entry(bad).refuse(Reason.MANIFEST_LINE, item)
        else:
            yield _found(item, infos[item.uri])


def _read(archive: Archive, storage: Storage) -> str:
    with StoreFile(archive.uri, storage) as file:
        data = file.read()
    if kind := compression_of(data[:16]):
        try:
            data = decompressor(io.BytesIO(data), kind).read_all()
        except Exception as error:  # each library has errors of its own for damage
            raise ArchiveError(Reason.ARCHIVE_UNREADABLE, f"damaged {kind} data ({error}). Fetch it again") from error
    return decode_text(data)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Numbered lines that are not blank; the items of a JSON array likewise."""
    if text.lstrip().startswith("["):
        try:
            for number, item in enumerate(json.loads(text), 1):
                yield number, json.dumps(item)
            return
        except ValueError:
            pass
    yield from ((number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip())


def _member(line: str, manifest: str, ordinal: int, names: PieceNames) -> Member:
    """The member that a line names, its size and version still unknown. Raises _BadLine."""
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _BadLine(f"is no JSON ({error})") from error
    if not isinstance(fields, dict):
        raise _BadLine("is no JSON object")
    row = row_of(fields)
    if row is None or row.archive:
        raise _BadLine("lies inside an archive; give the archive as a source" if row else "names no audio_filepath")
    for name in ("offset", "duration"):
        value = fields.get(name)
        if value is not None and not _is_time(value):
            raise _BadLine(f"{name} {str(value)[:40]!r} is no number of seconds from 0 on")
    uri = escaped(resolve(row.file, manifest))
    if uri != clean(uri):
        raise _BadLine(f"names {clean(uri)}, which no file can be called: half of a surrogate pair is in it")
    if _is_local(uri) and not _is_local(manifest):  # whoever may write to the store is not to choose what is read here
        raise _BadLine(f"names {uri}, a file of the machine that reads it; name what lies in a store by its full URL")
    start = row.offset if row.duration else row.offset or None
    length = row.duration if row.offset is not None else None
    return Member(
        name=names(readable(row.file), start, length), size=0, uri=uri, ordinal=ordinal,
        estimated_s=row.duration or 0.0, clip_start_s=start, clip_duration_s=length,
        text=row.side.text, language=row.side.language, speaker=row.side.speaker,
    )  # fmt: skip


def _is_local(uri: str) -> bool:
    """Whether ``uri``, or what a chain of fsspec's ends in, is a file of this machine."""
    scheme, mark, _ = uri.rpartition("::")[2].partition("://")
    return not mark or scheme.lower() in ("file", "local")


def _is_time(value: Any) -> bool:
    return not isinstance(value, bool) and seconds_of(value) is not None


def resolve(file: str, manifest: str) -> str:
    """The URI of a recording as ``manifest`` names it.

    >>> resolve("wavs/a.wav", "s3://b/x/m.jsonl"), resolve("../a.wav", "/d/x/m.jsonl"), resolve("/c/a.wav", "/d/m")
    ('s3://b/x/wavs/a.wav', '/d/a.wav', '/c/a.wav')
    """
    if "://" in file or file.startswith("/"):
        return file
    scheme, mark, path = manifest.rpartition("://")
    return scheme + mark + posixpath.normpath(posixpath.join(posixpath.dirname(path), file))


def _infos(uris: Iterable[str], storage: Storage) -> dict[str, Info]:
    folders: dict[str, list[str]] = defaultdict(list)
    for uri in dict.fromkeys(uris):
        folders[posixpath.dirname(uri)].append(uri)
    with ThreadPoolExecutor(THREADS, thread_name_prefix="manifest") as pool:
        found = pool.map(lambda folder: _folder_infos(folder, folders[folder], storage), folders)
        return {uri: info for infos in found for uri, info in infos.items()}


def _folder_infos(folder: str, uris: list[str], storage: Storage) -> dict[str, Info]:
    """What the store says of recordings of one folder: from one listing where they are many."""
    listed = _listed(folder, storage) if len(uris) >= LISTED else {}
    infos: dict[str, Info] = {uri: listed[uri] for uri in uris if uri in listed}
    for uri in uris:
        if uri not in infos:
            infos[uri] = _info(uri, storage)
    missing = [uri for uri, info in infos.items() if not uri.isascii() and _is_missing(info)]
    if missing:  # perhaps their accents are written apart: listed once more, by names as they are looked up
        by_key = {as_key(uri): (uri, info) for uri, info in (listed or _listed(folder, storage)).items()}
        for uri in missing:
            real, info = by_key.get(as_key(uri), (uri, infos[uri]))
            infos[uri] = info if isinstance(info, StoreError) else info | {_URI: real}
    return infos


def _is_missing(info: Info) -> bool:
    return isinstance(info, StoreError) and info.reason == Reason.SOURCE_MISSING


def _listed(folder: str, storage: Storage) -> dict[str, dict[str, Any]]:
    """The files of a folder by URI; nothing where it may not be listed."""
    try:
        fs, path = open_filesystem(folder, storage)
        infos = [followed(fs, info["name"], info) for info in fs.ls(path, detail=True)]
        return {uri_of(fs, info["name"]): info for info in infos if info["type"] not in ("directory", "missing")}
    except Exception:  # whatever a backend raises: then each recording is asked for
        return {}


def _info(uri: str, storage: Storage) -> Info:
    try:
        fs, path = open_filesystem(uri, storage)
        info: dict[str, Any] = fs.info(path)
        if info["type"] == "directory":
            raise FileNotFoundError(path)
    except Exception as error:  # whatever a backend raises
        return StoreError(error, uri)
    return info


def _found(member: Member, info: Info) -> Entry:
    if isinstance(info, StoreError):
        if info.is_general and info.reason != Reason.SOURCE_MISSING:
            raise info
        if info.reason == Reason.SOURCE_MISSING:
            message = f"{member.uri}: nothing is there; relative paths start at the manifest"
            return Entry(member).refuse(Reason.MEMBER_MISSING, message)
        is_denied = info.reason == Reason.ACCESS_DENIED
        return Entry(member).refuse(Reason.ACCESS_DENIED if is_denied else Reason.MANIFEST_LINE, str(info))
    size = size_of(info)
    seconds = member.estimated_s or estimate_s(member.uri, size)
    uri = info.get(_URI, member.uri)
    return Entry(replace(member, uri=uri, size=size, version=version_of(info), estimated_s=seconds))
