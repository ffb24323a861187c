"""The process in which untrusted bytes are parsed: ``python -m workers.decoding.child <settings as JSON>``.

Reads items from standard input and answers each on standard output (:mod:`workers.decoding.wire`), until the input
ends. Imports little, so that a new one is there in a fraction of a second after a crash.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
import tempfile
from typing import Any, BinaryIO

import numpy as np

from schemas.errors import MemberError
from schemas.reasons import Reason
from workers.decoding import wire
from workers.decoding.limits import MEMORY_BYTES
from workers.decoding.render import Events, Held, Wanted, render

_FLUSH_BYTES = 1 << 20  # samples are sent on in pieces of this size, so the child's memory stays flat
_COPY_BYTES = 1 << 20


class Answer:
    """Collects the samples of one item and sends them on."""

    def __init__(self, out: BinaryIO, timeout_s: float) -> None:
        self._out, self._timeout_s = out, timeout_s
        self._pieces: list[np.ndarray] = []
        self._held, self._sent = 0, False
        _limit(timeout_s)

    def samples(self, samples: np.ndarray) -> None:
        self._pieces.append(samples)
        self._held += samples.nbytes
        if self._held >= _FLUSH_BYTES:
            self._message(wire.CHUNK, {})
            self._sent = True

    def header(self, seconds: float) -> None:
        """A long recording gets a tenth of its duration on top of the time limit."""
        if seconds > 10:
            _limit(self._timeout_s + 0.1 * seconds)
            self._out.write(wire.pack(wire.DURATION, {"seconds": seconds}, 0))
            self._out.flush()

    def reset(self) -> None:
        self._pieces, self._held = [], 0
        if self._sent:
            self._message(wire.RESET, {})
            self._sent = False

    def done(self, recording: dict[str, Any]) -> None:
        self._message(wire.DONE, recording)

    def error(self, error: MemberError) -> None:
        self.reset()
        self._message(wire.ERROR, {"reason": str(error.reason), "message": error.message})

    def _message(self, kind: bytes, meta: dict[str, Any]) -> None:
        self._out.write(wire.pack(kind, meta, self._held))
        for piece in self._pieces:
            self._out.write(np.ascontiguousarray(piece).data.cast("B"))
        self._out.flush()
        self._pieces, self._held = [], 0


def _scratch_file() -> BinaryIO:
    """A nameless file in memory: a real descriptor, as the libraries read fastest."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("member"), "w+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


def _receive(stream: BinaryIO, size: int, file: BinaryIO) -> None:
    file.seek(0)
    file.truncate(0)
    left = size
    while left:
        data = stream.read(min(left, _COPY_BYTES))
        if not data:
            raise EOFError
        left -= len(data)
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]


def _limit(cpu_s: float) -> None:
    """Die by SIGPROF after ``cpu_s`` of computing: the parent's own clock ends when the parent is killed."""
    signal.setitimer(signal.ITIMER_PROF, cpu_s)


def main() -> None:
    settings = json.loads(sys.argv[1])
    wanted = Wanted(**settings["wanted"])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    stdin, out = sys.stdin.buffer, os.fdopen(os.dup(1), "wb", buffering=1 << 16)
    with open(os.devnull, "r+b") as null:  # decoders print warnings; they must not reach the pipe or the terminal
        os.dup2(null.fileno(), 1)
        os.dup2(null.fileno(), 2)
    out.write(wire.pack(wire.READY, {}, 0))
    out.flush()
    file = _scratch_file()
    held = Held(file, 0)
    with contextlib.suppress(EOFError, BrokenPipeError):
        while (head := wire.read_head(stdin)) is not None:
            _, item, size = head
            if not item["again"]:
                held.close()
                _receive(stdin, size, file)
                held = Held(file, size)
            answer = Answer(out, settings["timeout_s"])
            clip = tuple(item["clip"]) if item["clip"] else None
            events = Events(header=answer.header, samples=answer.samples, reset=answer.reset)
            try:
                recording = render(item["name"], held, clip, wanted, events)
                answer.done(recording)
            except MemberError as error:
                answer.error(error)
            except MemoryError:
                limit = f"more than {MEMORY_BYTES >> 20} MiB of memory"
                answer.error(MemberError(Reason.DECODER_CRASHED, f"needs {limit} to decode"))
            except (ArithmeticError, LookupError, TypeError, ValueError, RuntimeError, OSError) as error:
                # Bindings raise what they like on hostile bytes; whatever it is, it costs this member alone.
                if isinstance(error, BrokenPipeError):
                    raise
                kind = type(error).__name__
                answer.error(MemberError(Reason.UNDECODABLE, f"cannot be decoded ({kind}: {error})"))
            _limit(0)


if __name__ == "__main__":
    main()
