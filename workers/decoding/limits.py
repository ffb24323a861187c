"""What a header may claim before it is called absurd, and what a decoding process may take."""

from __future__ import annotations

from schemas.errors import MemberError
from schemas.reasons import Reason

# The highest rate of studio recorders and the lowest of telemetry; beyond them a header is a mistake or an attack.
MIN_SAMPLE_RATE = 1_000
MAX_SAMPLE_RATE = 192_000
MAX_CHANNELS = 32

# Frames per stored byte that a header may promise. Speech codecs stay far below: Codec 2 at 700 bit/s packs 92 frames
# of 8 kHz into a byte, Opus in discontinuous transmission about 960 of 48 kHz. Above it only digital silence remains.
MAX_FRAMES_PER_BYTE = 1_000

# Address space of the decoding process: libraries, codec state and blocks take well under 1 GiB, whatever the member.
MEMORY_BYTES = 3 << 30


def check_header(sample_rate: int, channels: int, frames: int | None, size: int) -> None:
    """Refuse what no recording of ``size`` bytes is; ``frames`` None where the header does not say.

    Raises MemberError (absurd_header) with the limit that was passed.
    """
    if not MIN_SAMPLE_RATE <= sample_rate <= MAX_SAMPLE_RATE:
        raise MemberError(
            Reason.ABSURD_HEADER,
            f"header says {sample_rate} Hz; sample rates from {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz are read",
        )
    if not 1 <= channels <= MAX_CHANNELS:
        raise MemberError(Reason.ABSURD_HEADER, f"header says {channels} channels; 1 to {MAX_CHANNELS} are read")
    if frames is not None and frames > MAX_FRAMES_PER_BYTE * size:
        raise MemberError(Reason.ABSURD_HEADER, f"header promises {frames} samples in a file of {size} bytes")
