"""Messages between the decoder and its child process: a kind, JSON, and raw bytes, over pipes.

JSON and not pickle: the child parses hostile bytes, and what it says must not be able to run code in the parent.
"""

from __future__ import annotations

import json
import struct
from typing import Any, BinaryIO

# kind, bytes of JSON, bytes of body
_PREFIX = struct.Struct("<cIQ")

# parent to child
ITEM = b"I"  # JSON: name, clip, and whether the bytes are those of the item before; body: else the member's bytes
# child to parent
READY = b"R"  # JSON: memory limit in force
DURATION = b"T"  # JSON: seconds the header promises, so that a long recording gets its time
CHUNK = b"C"  # body: float32 samples, to be followed by more
RESET = b"X"  # what was sent of this item is void: another library starts over
DONE = b"D"  # JSON: the recording; body: the last samples
ERROR = b"E"  # JSON: reason, message


def pack(kind: bytes, meta: dict[str, Any], body_bytes: int) -> bytes:
    """The head of a message: prefix and JSON; ``body_bytes`` bytes of body must follow."""
    text = json.dumps(meta).encode()
    return _PREFIX.pack(kind, len(text), body_bytes) + text


class Inbox:
    """Cuts a stream of bytes, fed in pieces of any size, into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def take(self) -> tuple[bytes, dict[str, Any], bytes] | None:
        """The next whole message (kind, JSON, body), or None while it is incomplete."""
        if len(self._buffer) < _PREFIX.size:
            return None
        kind, meta_bytes, body_bytes = _PREFIX.unpack_from(self._buffer)
        start = _PREFIX.size + meta_bytes
        end = start + body_bytes
        if len(self._buffer) < end:
            return None
        meta = json.loads(self._buffer[_PREFIX.size : start])
        with memoryview(self._buffer) as view:
            body = bytes(view[start:end])
        del self._buffer[:end]
        return kind, meta, body


def read_head(stream: BinaryIO) -> tuple[bytes, dict[str, Any], int] | None:
    """Blocking read of the next message's kind, JSON and body size; None at the end of the stream."""
    prefix = stream.read(_PREFIX.size)
    if len(prefix) < _PREFIX.size:
        return None
    kind, meta_bytes, body_bytes = _PREFIX.unpack(prefix)
    return kind, json.loads(stream.read(meta_bytes)), body_bytes
