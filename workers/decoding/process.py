"""The child process seen from the parent: start, stop, and moving bytes both ways without ever blocking on one."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from typing import Any

from schemas.errors import VoxmillError
from workers.decoding import wire

_START_S = 120.0  # a cold disk and a busy machine; normally 0.3 s
_READ_BYTES = 1 << 20
_PIPE_BYTES = 1 << 20  # so that the child works on while the parent does something else


class ChildDied(Exception):
    """The child is gone; ``timed_out`` when its own clock ended it."""

    def __init__(self, status: int) -> None:
        self.timed_out = status == -signal.SIGPROF
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        super().__init__(how)


class ChildProcess:
    """One decoding child. Raises VoxmillError when it cannot be started at all."""

    def __init__(self, settings: dict[str, Any]) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        command = [sys.executable, "-P", "-W", "ignore", "-m", "workers.decoding.child", json.dumps(settings)]
        with tempfile.TemporaryFile() as errors:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment, bufsize=0
            )
            if self._process.stdin is None or self._process.stdout is None:
                raise VoxmillError("the decoder process has no pipes")
            self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
            self._inbox = wire.Inbox()
            self._outgoing: deque[memoryview] = deque()
            for descriptor in (self._in, self._out):
                os.set_blocking(descriptor, False)
                _widen(descriptor)
            try:
                message = self.receive(_START_S)
            except ChildDied as death:
                errors.seek(0)
                said = errors.read()[-2000:].decode(errors="replace")
                raise VoxmillError(f"the decoder process does not start ({death}): {said}") from death
            if message is None:
                self.kill()
                raise VoxmillError(f"the decoder process did not start within {_START_S:.0f} s")

    @property
    def has_unsent(self) -> bool:
        return bool(self._outgoing)

    def send(self, kind: bytes, meta: dict[str, Any], body: bytes) -> None:
        """Queue a message; it goes out while :meth:`receive` waits, as much as fits at once."""
        self._outgoing.append(memoryview(wire.pack(kind, meta, len(body))))
        if body:
            self._outgoing.append(memoryview(body))
        self._write()

    def receive(self, wait_s: float) -> tuple[bytes, dict[str, Any], bytes] | None:
        """The child's next message, or None when ``wait_s`` seconds have passed. Raises ChildDied."""
        until = time.monotonic() + wait_s
        while True:
            message = self._inbox.take()
            if message is not None:
                return message
            left = until - time.monotonic()
            if left <= 0:
                return None
            readable, writable, _ = select.select([self._out], [self._in] if self._outgoing else [], [], left)
            if writable:
                self._write()
            if readable:
                data = os.read(self._out, _READ_BYTES)
                if not data:
                    raise ChildDied(self._process.wait())
                self._inbox.feed(data)

    def _write(self) -> None:
        while self._outgoing:
            try:
                written = os.write(self._in, self._outgoing[0])
            except BlockingIOError:
                return
            except BrokenPipeError:  # its last words are still to be read
                self._outgoing.clear()
                return
            rest = self._outgoing[0][written:]
            if rest:
                self._outgoing[0] = rest
            else:
                self._outgoing.popleft()

    def close(self) -> None:
        """End the child by ending its input; kill it should it not go."""
        self._close_pipes()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        self._process.kill()
        self._close_pipes()
        self._process.wait()

    def _close_pipes(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def _widen(descriptor: int) -> None:
    """Ask for a large pipe; a system that gives none works all the same, with less overlap."""
    import fcntl

    if hasattr(fcntl, "F_SETPIPE_SZ"):
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        except PermissionError:
            return
