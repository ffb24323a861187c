"""Archives that nobody should have to read: built by hand, byte by byte where the libraries refuse to."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
from collections.abc import Iterable

import numpy as np
import soundfile

from infra.demo.packs import tar_bytes, zip_bytes


def wav(samples: np.ndarray, rate: int) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format="WAV", subtype="PCM_16")
    return out.getvalue()


def wav_header(channels: int, rate: int, data_bytes: int, data: bytes) -> bytes:
    """A 16-bit WAV whose header may say anything, whatever ``data`` follows it."""
    block = 2 * channels
    header = struct.pack("<4sI4s4sIHHII", b"RIFF", min(36 + data_bytes, 0xFFFFFFFF), b"WAVE", b"fmt ", 16, 1,
                         channels, rate, (rate * block) & 0xFFFFFFFF)  # fmt: skip
    return header + struct.pack("<HH4sI", block, 16, b"data", data_bytes) + data


def flac_of(frames: int, data: bytes) -> bytes:
    """A FLAC whose stream information promises ``frames`` samples (36 bits of them) over the rest of ``data``."""
    stream = bytearray(data)
    promised = struct.unpack(">Q", stream[18:26])[0] >> 36 << 36 | frames
    stream[18:26] = struct.pack(">Q", promised)
    return bytes(stream)


def special_tar(good: Iterable[tuple[str, bytes]]) -> bytes:
    """Links, devices, pipes, paths that lead out, and one name twice, among good members."""
    out = io.BytesIO()
    good = list(good)
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:

        def add(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> None:
            header = tarfile.TarInfo(name)
            header.size, header.type, header.linkname = len(data), kind, link
            archive.addfile(header, io.BytesIO(data))

        first, first_data = good[0]
        add(first, first_data)
        add("links/soft.wav", kind=tarfile.SYMTYPE, link="/etc/passwd")
        add("links/hard.wav", kind=tarfile.LNKTYPE, link=first)
        add("devices/null.wav", kind=tarfile.CHRTYPE)
        add("devices/disk.wav", kind=tarfile.BLKTYPE)
        add("devices/pipe.wav", kind=tarfile.FIFOTYPE)
        add("../outside.wav", first_data)
        add("/absolute.wav", first_data)
        add("a/../../outside.wav", first_data)
        add("folder", kind=tarfile.DIRTYPE)  # no member: folders are not counted
        add(first, good[1][1])
        for name, data in good[1:]:
            add(name, data)
    return out.getvalue()


def truncated(archive: bytes, last: bytes) -> bytes:
    """``archive`` cut in the middle of the data of its last member, ``last``."""
    return archive[: archive.rindex(last[-200:])]


def truncated_tar_gz(members: dict[str, bytes]) -> bytes:
    """A gzipped tar that breaks off within its last member; everything before inflates."""
    import zlib

    *_, last = members.values()
    tar = tar_bytes(members)
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    return packer.compress(tar[: tar.rindex(last[-200:])]) + packer.flush(zlib.Z_SYNC_FLUSH)


def encrypted_zip(members: dict[str, bytes], name: str) -> bytes:
    """A zip in which ``name`` is flagged as encrypted, in its local header and in the directory."""
    data = bytearray(zip_bytes(members))
    with zipfile.ZipFile(io.BytesIO(bytes(data))) as archive:
        local = archive.getinfo(name).header_offset
    entry = data.rindex(name.encode()) - 46  # a directory entry is 46 bytes, then the name (APPNOTE.TXT 4.3.12)
    data[local + 6] |= 1
    data[entry + 8] |= 1
    return bytes(data)
