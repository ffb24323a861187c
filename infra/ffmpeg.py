"""FFmpeg's shared libraries for programs that load them by name, on a machine without FFmpeg.

PyAV's wheel brings FFmpeg 8 under names of its own (``libavcodec-5e6b81c2.so.62.28.102``); torchcodec, through which
Hugging Face ``datasets`` decodes audio, asks for ``libavcodec.so.62``. Links under the plain names are all it takes::

    export LD_LIBRARY_PATH="$(python -m infra.ffmpeg ~/.cache/voxmill/ffmpeg)"

The variable must stand before Python starts. torchcodec must be a build for the CPU (0.12 or older from PyPI) unless
torch is built for CUDA.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
from pathlib import Path

# auditwheel's file names: stem, eight hex digits, the library's version, of which the loader asks for the first number
_BUNDLED = re.compile(r"(?P<stem>lib(?:av|sw)\w+)-[0-9a-f]{8}\.so\.(?P<major>\d+)[\d.]*")


def link_libraries(folder: Path) -> str:
    """Link PyAV's FFmpeg libraries under their plain names in ``folder``; returns the value for ``LD_LIBRARY_PATH``.

    Raises FileNotFoundError where PyAV is not installed from a Linux wheel.
    """
    found = importlib.util.find_spec("av")
    libraries = Path(found.origin or "").parent.parent / "av.libs" if found else Path("av.libs")
    bundled = {match: path for path in sorted(libraries.glob("*.so*")) if (match := _BUNDLED.fullmatch(path.name))}
    if not bundled:
        raise FileNotFoundError(
            f"no FFmpeg libraries in {libraries}: install PyAV from its Linux wheel (pip install av)"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for match, path in bundled.items():
        link = folder / f"{match['stem']}.so.{match['major']}"
        link.unlink(missing_ok=True)
        link.symlink_to(path)
    return f"{folder.absolute()}:{libraries}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Link PyAV's FFmpeg libraries under their plain names.")
    parser.add_argument("folder", type=Path)
    print(link_libraries(parser.parse_args().folder))


if __name__ == "__main__":
    main()
