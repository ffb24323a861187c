"""What is in an archive: its recordings with their references, and what is refused at sight."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace

from schemas.config import Storage
from schemas.reasons import Reason
from schemas.records import Archive, Layout, Member, Reject
from workers.sources import folder, manifest, tar, zip
from workers.sources.beside import Beside
from workers.sources.entries import Entry, Screen, archive_reject, decode_name, is_wanted
from workers.sources.kinds import Kind, kind_of
from workers.sources.read import read_contents
from workers.sources.references import References
from workers.sources.store import ArchiveError, StoreError, StoreFile
from workers.sources.tables import Side, stem_key
from workers.storage import open_filesystem


@dataclass(frozen=True)
class Listing:
    """Members and rejects in archive order; ``problems`` are rejects of the archive as a whole."""

    members: tuple[Member, ...] = ()
    rejects: tuple[Reject, ...] = ()
    problems: tuple[Reject, ...] = ()


def list_archive(archive: Archive, storage: Storage, max_bytes: int, beside: Beside | None = None) -> Listing:
    """List one archive of any layout but a one-way stream, reading no more than headers and sidecars.

    ``max_bytes`` is the size from which members are refused. Raises nothing for bad input or a store that fails.
    """
    kept: list[Entry] = []
    rejects: list[Reject] = []
    problems: list[Reject] = []
    is_manifest = archive.layout is Layout.MANIFEST
    screen = Screen(archive.uri, max_bytes, is_manifest=is_manifest)
    references = References(posixpath.basename(archive.uri))
    try:
        references = (beside or Beside(storage)).references(archive)
        for entry in _entries(archive, storage):
            judged = screen(entry)
            if isinstance(judged, Reject):
                rejects.append(judged)
                continue
            if judged.data is not None:  # what is in it is kept, not its bytes
                references.offer(judged.member.name, judged.data)
                judged = replace(judged, data=b"")
            kept.append(judged)
        if not is_manifest:
            kept = _read_sidecars(kept, archive, storage, references)
    except ArchiveError as error:
        problems.append(archive_reject(archive.uri, error.reason, error.message, archive.version))
    except StoreError as error:
        return Listing(problems=(archive_reject(archive.uri, error.reason, f"{error.what}. {error.do}"),))
    if is_manifest:
        members = [entry.member for entry in kept]
    else:
        members, refused = _resolve(kept, references, screen)
        rejects += refused
    if not members and not rejects and not problems:
        what = "no lines" if is_manifest else "no recordings and no other files"
        problems.append(archive_reject(archive.uri, Reason.ARCHIVE_EMPTY, f"{what} in it", archive.version))
    rejects.sort(key=lambda reject: reject.ordinal or 0)
    return Listing(tuple(members), tuple(rejects), tuple(problems))


def _entries(archive: Archive, storage: Storage) -> Iterator[Entry]:
    if archive.layout is Layout.TAR:
        with StoreFile(archive.uri, storage, leaps=True) as file:
            yield from (entry for entry, _ in tar.entries(file, archive.uri, archive.size))
    elif archive.layout is Layout.ZIP:
        with StoreFile(archive.uri, storage) as file:
            yield from zip.entries(file, archive.uri)
    elif archive.layout is Layout.FOLDER:
        yield from folder.entries(archive.uri, storage)
    elif archive.layout is Layout.MANIFEST:
        yield from manifest.entries(archive, storage)
    else:
        fs, path = open_filesystem(archive.uri, storage)
        info = {"size": archive.size, "mtime": archive.version, "type": "file"}
        yield folder.entry_of(fs, path, info, decode_name(posixpath.basename(path)), 0)


def _read_sidecars(entries: list[Entry], archive: Archive, storage: Storage, references: References) -> list[Entry]:
    """The entries, with what may hold references read where the listing has not brought it along."""
    wanted = [e.member for e in entries if e.data is None and is_wanted(e.member.name, e.member.size)]
    read = set()
    for member, data in read_contents(wanted, archive.layout, storage):
        references.offer(member.name, data if isinstance(data, bytes) else b"")
        read.add(member.ordinal)
    return [replace(entry, data=b"") if entry.member.ordinal in read else entry for entry in entries]


def _resolve(entries: list[Entry], references: References, screen: Screen) -> tuple[list[Member], list[Reject]]:
    """Recordings joined with their references; sidecars that belong to none are refused as other files."""
    recordings, sidecars = [], {}
    folders: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        name = entry.member.name
        if kind_of(name) is Kind.SIDECAR:
            if entry.data is None:  # blank, or beyond where the archive ends
                references.offer(name, b"")
            sidecars[name] = entry.member
        else:
            recordings.append(entry.member)
            folders[stem_key(name)].add(posixpath.dirname(name))
    references.crowded = {stem for stem, where in folders.items() if len(where) > 1}
    pieces = [piece for member in recordings for piece in with_references(member, references, screen)]
    members = [piece for piece in pieces if isinstance(piece, Member)]
    unused = [sidecars[name] for name in references.unused() if name in sidecars]
    refused = [piece for piece in pieces if isinstance(piece, Reject)]
    return members, refused + [refuse_sidecar(member, screen) for member in unused]


def refuse_sidecar(member: Member, screen: Screen) -> Reject:
    base = posixpath.basename(member.name)
    return screen.reject(member, Reason.NOT_AUDIO, f"{base} is no recording, and no transcript of one")


def with_references(member: Member, references: References, screen: Screen) -> list[Member | Reject]:
    """The member with its text, language and speaker, or the pieces that a manifest cuts it into, a piece that is cut
    again refused after its first."""
    known = references.of(member.name)
    if not known.pieces:
        return [replace(with_side(member, known.side), estimated_s=known.duration or member.estimated_s)]
    pieces: dict[str, list[Member | Reject]] = {}
    names = manifest.PieceNames()
    for row in known.pieces:
        name = names(member.name, row.offset, row.duration)
        whole = replace(member, name=name, clip_start_s=row.offset, clip_duration_s=row.duration)
        if name in pieces:
            message = "the same piece came before in this archive; the first one is processed"
            pieces[name].append(screen.reject(whole, Reason.DUPLICATE_MEMBER, message))
            continue
        side = row.side.over(known.side._replace(text=None))
        pieces[name] = [replace(with_side(whole, side), estimated_s=row.duration or member.estimated_s)]
    return [item for items in pieces.values() for item in items]


def with_side(member: Member, side: Side) -> Member:
    return replace(member, text=side.text, language=side.language, speaker=side.speaker)
