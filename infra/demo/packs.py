"""Archives whose bytes depend on their members alone: fixed times, owners and order."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

EPOCH = 1_704_067_200  # 2024-01-01 00:00 UTC, what every file and member claims as its time
Members = Mapping[str, bytes]  # name -> content, in the archive's order


def tar_bytes(members: Members) -> bytes:
    """A plain USTAR archive."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members.items():
            header = tarfile.TarInfo(name)
            header.size, header.mtime, header.mode = len(data), EPOCH, 0o644
            archive.addfile(header, io.BytesIO(data))
    return out.getvalue()


def tar_gz_bytes(members: Members) -> bytes:
    """A gzipped tar; the gzip header carries neither name nor time."""
    return gzip.compress(tar_bytes(members), compresslevel=6, mtime=0)


def zip_bytes(members: Members) -> bytes:
    """A zip: text deflated, audio stored."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members.items():
            header = zipfile.ZipInfo(name, date_time=(2024, 1, 1, 0, 0, 0))
            header.create_system = 3  # Unix, whatever this runs on
            header.external_attr = 0o644 << 16
            text = name.endswith((".csv", ".jsonl", ".txt"))
            header.compress_type = zipfile.ZIP_DEFLATED if text else zipfile.ZIP_STORED
            archive.writestr(header, data)
    return out.getvalue()


def write(path: Path, data: bytes) -> None:
    """Write a file with the time :data:`EPOCH`, so that a rebuilt corpus is the same to whoever compares times."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (EPOCH, EPOCH))
