"""The parent's side of decoding: bytes in, samples or a reject out, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np

from schemas.config import AudioSettings
from schemas.errors import MemberError
from schemas.reasons import Reason
from workers.decoding import wire
from workers.decoding.process import ChildDied, ChildProcess
from workers.decoding.render import Wanted
from workers.decoding.source import Clip
from workers.work import Recording

# How far ahead of the answers items are handed to the child: enough to keep it busy, little enough to hold in memory.
_AHEAD_BYTES = 16 << 20
_AHEAD_ITEMS = 256

Item = tuple[str, bytes | MemberError, Clip | None]


@dataclass(frozen=True)
class Decoded:
    """``samples``: float32, shape (channels_out, n), at the working rate; channels_out is 1 for the mono mix."""

    samples: np.ndarray
    recording: Recording


@dataclass
class _Pending:
    """An item whose answer is still to come, and what has come of it."""

    name: str
    data: bytes | MemberError
    clip: Clip | None
    samples: bytearray = field(default_factory=bytearray)
    limit_s: float = 0.0


class Decoder:
    """Decodes members in one child process, which is replaced when a member takes it down.

    >>> with Decoder(AudioSettings()) as decoder:  # doctest: +SKIP
    ...     decoder.decode("a.wav", data).samples.shape
    (1, 16000)
    """

    def __init__(self, settings: AudioSettings) -> None:
        self.settings = settings
        self._child: ChildProcess | None = None
        self._sent: bytes | None = None  # what the child was given last
        wanted = Wanted(
            sample_rate=settings.sample_rate,
            each_channel=settings.channels == "each",
            min_s=settings.min_s,
            max_s=settings.max_hours * 3600,
            silence_peak=10 ** (settings.silence_dbfs / 20),
        )
        self._child_settings = {"wanted": wanted.as_json(), "timeout_s": settings.decode_timeout_s}

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the child; the next item starts another."""
        if self._child is not None:
            self._child.close()
            self._child = None

    def decode(self, name: str, data: bytes, clip: Clip | None = None) -> Decoded:
        """Decode one member (``name`` for messages and its suffix), or the piece ``clip`` of it. Raises MemberError."""
        (answer,) = self.decode_many([(name, data, clip)])
        if isinstance(answer, MemberError):
            raise answer
        return answer

    def decode_many(self, items: Iterable[Item]) -> Iterator[Decoded | MemberError]:
        """Answers in the order of ``items``; a MemberError in place of the bytes is passed through.

        The child works ahead while the caller uses an answer. Raises VoxmillError when no child can be started.
        """
        source = iter(items)
        pending: deque[_Pending] = deque()
        exhausted = False
        try:
            while True:
                while not exhausted and self._may_take(pending):
                    item = next(source, None)
                    if item is None:
                        exhausted = True
                        break
                    pending.append(_Pending(*item))
                    if self._child is not None:
                        self._submit(self._child, pending[-1])
                if not pending:
                    return
                answer = pending[0].data if isinstance(pending[0].data, MemberError) else self._await(pending)
                pending.popleft()
                yield answer
        finally:
            self._sent = None  # not to hold a recording in memory for what may never come
            if pending and self._child is not None:  # left in the middle: its answers would be taken for others'
                self._child.kill()
                self._child = None

    def _may_take(self, pending: deque[_Pending]) -> bool:
        if not pending:
            return True
        if self._child is not None and self._child.has_unsent:
            return False
        ahead = sum({id(item.data): len(item.data) for item in pending if isinstance(item.data, bytes)}.values())
        return ahead < _AHEAD_BYTES and len(pending) < _AHEAD_ITEMS

    def _submit(self, child: ChildProcess, item: _Pending) -> None:
        """Send ``item``; bytes that the child has from the item before, as of a recording cut in pieces, stay there."""
        if not isinstance(item.data, MemberError):
            item.limit_s = self.settings.decode_timeout_s
            again = item.data is self._sent
            self._sent = item.data
            meta = {"name": item.name, "clip": item.clip, "again": again}
            child.send(wire.ITEM, meta, b"" if again else item.data)

    def _running(self, pending: Iterable[_Pending]) -> ChildProcess:
        """The child; a new one, the first or after a crash, is given all that is pending."""
        if self._child is None:
            self._child, self._sent = ChildProcess(self._child_settings), None
            for item in pending:
                self._submit(self._child, item)
        return self._child

    def _await(self, pending: deque[_Pending]) -> Decoded | MemberError:
        """The answer to the first pending item. Time the caller spends elsewhere does not count against it."""
        item = pending[0]
        while True:
            child = self._running(pending)
            try:
                message = child.receive(item.limit_s)
            except ChildDied as death:
                self.close()
                if death.timed_out:
                    return self._timeout(item)
                return MemberError(Reason.DECODER_CRASHED, f"took the decoder process down ({death})")
            if message is None:
                child.kill()
                self._child = None
                return self._timeout(item)
            kind, meta, body = message
            if kind == wire.DURATION:
                item.limit_s = self.settings.decode_timeout_s + 0.1 * meta["seconds"]
            elif kind == wire.RESET:
                item.samples.clear()
            elif kind == wire.ERROR:
                return MemberError(meta["reason"], meta["message"])
            else:
                item.samples += body
                if kind == wire.DONE:
                    return self._decoded(item.samples, meta)

    def _decoded(self, data: bytearray, meta: dict[str, Any]) -> Decoded:
        channels = meta["channels"] if self.settings.channels == "each" else 1
        samples = np.frombuffer(data, np.float32)
        samples = samples.reshape(1, -1) if channels == 1 else np.ascontiguousarray(samples.reshape(-1, channels).T)
        return Decoded(samples, Recording(**meta))

    def _timeout(self, item: _Pending) -> MemberError:
        return MemberError(Reason.DECODER_TIMEOUT, f"not decoded within {item.limit_s:.1f} s")
