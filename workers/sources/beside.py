"""References that lie beside an archive, in its folder: the tables corpora ship next to their tars."""

from __future__ import annotations

import posixpath
import re
from bisect import bisect_left
from threading import Lock
from typing import Any

from schemas.config import Storage
from schemas.records import Archive, Layout
from workers.sources.entries import is_wanted
from workers.sources.folder import is_pattern, name_below, root_of
from workers.sources.kinds import archive_stem, extension, is_archive_name, stem
from workers.sources.references import AUDIO_FOLDERS, References, Table
from workers.sources.store import StoreError, followed, size_of, uri_of, version_of
from workers.sources.tables import as_key, rows_of
from workers.storage import open_filesystem

# Tables that speak of all archives of a folder: Hugging Face, NeMo, Common Voice, Azure, Kaldi, LibriSpeech.
_COMMON = re.compile(
    r"(metadata|manifest|transcripts?|trans|train|dev|test|valid|validated|validation|invalidated|other)"
    r"\.(tsv|csv|jsonl|ndjson|json|txt)$|(text|utt2spk|utt2lang|wav\.scp|segments|speakers\.txt)$",
    re.IGNORECASE,
)
_NAMED = re.compile(r"trans(cripts?|criptions?)?\.txt$", re.IGNORECASE)


def _is_wanted(name: str, info: dict[str, Any]) -> bool:
    """Whether a file may hold references and is no longer than they can be. A web server may not say how long it is."""
    return is_wanted(name, size_of(info))


class Beside:
    """Side data beside archives. Folders are listed and tables parsed once, however many archives share them.

    Nothing here is needed to read an archive: what cannot be listed is taken as not there.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._lock = Lock()
        self._folders: dict[str, dict[str, dict[str, Any]]] = {}
        self._infos: dict[str, dict[str, Any]] = {}  # of all folders: a web page's links may lead out of its own
        self._names: dict[str, tuple[dict[str, str], list[str], list[str]]] = {}
        self._tables: dict[str, Table] = {}

    def references(self, archive: Archive) -> References:
        """What is known of ``archive``'s members before it is opened. Raises StoreError for tables out of reach."""
        files = self._files(archive)
        if archive.layout is Layout.FILE or self._is_pattern(archive):
            references = References(posixpath.basename(archive.uri))
            for name, uri in files:
                references.offer(name, self._read(uri))
            return references
        return References(posixpath.basename(archive.uri), [self._table(name, uri) for name, uri in files])

    def versions(self, archive: Archive) -> list[list[str]]:
        """Names and versions of what lies beside; empty where nothing does."""
        files = self._files(archive)
        return [[name, version_of(self._infos[uri])] for name, uri in files]

    def _is_pattern(self, archive: Archive) -> bool:
        fs, path = open_filesystem(archive.uri, self._storage)
        return archive.layout is Layout.FOLDER and is_pattern(fs, path)

    def _files(self, archive: Archive) -> list[tuple[str, str]]:
        """Names and URIs of sidecars: named like the archive, or by the names that all corpora use."""
        if archive.layout is Layout.MANIFEST:
            return []
        if self._is_pattern(archive):
            return self._below(archive)
        folder, base = posixpath.split(archive.uri.rstrip("/"))
        own = stem(base) if archive.layout is Layout.FILE else archive_stem(base)
        own = as_key(base if archive.layout is Layout.FOLDER else own)
        # A folder beside which tables lie is their audio only where its name says so (Common Voice's clips/).
        shares = archive.layout is not Layout.FOLDER or base.lower() in AUDIO_FOLDERS
        infos = self._folder(folder)
        uris, names, common = self._names_in(folder)
        beside = {name for name in (common if shares else ()) if _is_wanted(name, infos[uris[name]])}
        for name in names[bisect_left(names, f"{own}.") :]:  # a folder may hold archives by the ten thousand
            if not name.startswith(f"{own}."):
                break
            if _is_wanted(name, infos[uris[name]]):
                beside.add(name)
        found = [(name, uris[name]) for name in sorted(beside, key=lambda name: (not name.startswith(f"{own}."), name))]
        # FLEURS: audio/test.tar.gz and test.tsv beside audio/
        if posixpath.basename(folder).lower() in AUDIO_FOLDERS and archive.layout is not Layout.FILE:
            above = self._folder(posixpath.dirname(folder))
            table = f"{own}.tsv"
            found += [
                (table, uri)
                for uri, info in above.items()
                if as_key(posixpath.basename(uri)) == table and _is_wanted(table, info)
            ]
        return found

    def _below(self, archive: Archive) -> list[tuple[str, str]]:
        """All sidecars in and below a pattern's folder: the pattern itself names recordings only."""
        fs, path = open_filesystem(archive.uri, self._storage)
        root = root_of(fs, path)
        found = sorted(fs.find(root, detail=True).items())
        wanted = [name for name, info in found if _is_wanted(name[len(root) + 1 :], info)]
        return [(name_below(root, name), uri_of(fs, name)) for name in wanted]

    def _folder(self, url: str) -> dict[str, dict[str, Any]]:
        """The files of a folder by URI."""
        with self._lock:
            if url not in self._folders:
                self._folders[url] = self._list(url)
                self._infos |= self._folders[url]
            return self._folders[url]

    def _names_in(self, url: str) -> tuple[dict[str, str], list[str], list[str]]:
        """The files of a folder: URIs by name, names sorted, and those among them that all corpora use: test.tsv is not
        where test.tar lies there, of which alone it speaks."""
        infos = self._folder(url)
        with self._lock:
            if url not in self._names:
                uris = {as_key(posixpath.basename(uri)): uri for uri in infos}
                archives = {archive_stem(name) for name in uris if is_archive_name(name)}
                common = [name for name in uris if _COMMON.match(name) and stem(name) not in archives]
                self._names[url] = uris, sorted(uris), common
            return self._names[url]

    def _list(self, url: str) -> dict[str, dict[str, Any]]:
        if not url or url.endswith(":/"):  # above a bucket, or above the root
            return {}
        try:
            fs, path = open_filesystem(url, self._storage)
            infos = fs.ls(path, detail=True)
        except Exception:  # whatever a backend raises: a folder that may not be listed offers nothing
            return {}
        files = [info for one in infos if (info := followed(fs, one["name"], one))["type"] == "file"]
        return {uri_of(fs, info["name"]): info for info in sorted(files, key=lambda info: str(info["name"]))}

    def _table(self, name: str, uri: str) -> Table:
        with self._lock:
            if uri not in self._tables:
                table = Table()
                # <archive>.txt is a table by its place; by its name it would be one recording's text.
                as_name = "transcripts.txt" if extension(name) == "txt" and not _NAMED.search(name) else name
                table.add("", rows_of(as_name, self._read(uri)))
                self._tables[uri] = table
            return self._tables[uri]

    def _read(self, uri: str) -> bytes:
        try:
            fs, path = open_filesystem(uri, self._storage)
            return bytes(fs.cat_file(path))
        except Exception as error:  # whatever a backend raises
            raise StoreError(error, uri) from error
