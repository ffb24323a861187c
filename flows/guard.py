"""The command in a child process, so that its sudden death is told too: by a kill, or by Ray's core, which ends a
driver whose node has died without a word."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1  # Linux, prctl(2)
_DONE = b"."
INTERRUPTED = 128 + signal.SIGINT  # exit code of a command that Ctrl-C ended, as shells have it


def guarded(main: Callable[[], object]) -> NoReturn:
    """Run ``main`` in a fork of this process and exit as it does; say so where it ends without having returned.

    Call it before threads are started. A first request to stop reaches the child, and it alone, as Ctrl-C, for which
    the command knows how to end cleanly; a second one as it is. The child has a process group of its own, for a
    terminal sends Ctrl-C to the whole group, and Prefect's server would be gone before the flow has told it how it
    ended.
    """
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)  # until both know what to do with them
    child = os.fork()
    if not child:
        os.close(reading)
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, where a shell has started us with an &
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
        _die_with_parent()
        try:
            main()
        finally:  # the command's own way out is SystemExit
            os.write(writing, _DONE)
        sys.exit(0)
    os.close(writing)

    requests: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        requests.append(number)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGINT if len(requests) == 1 else number)

    for number in _FORWARDED:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has asked of SIGHUP, a shell's & of SIGINT
            signal.signal(number, forward)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if not _returned(reading):
        print(f"error: {last_words(code)}", file=sys.stderr)
    elif code == INTERRUPTED:
        sys.exit(128 + requests[0] if requests else code)
    sys.exit(code if code >= 0 else 128 - code)


def last_words(code: int) -> str:
    """What to say of a process that ended with exit code ``code`` (below zero: by that signal) in the middle.

    >>> last_words(-15)
    'stopped by SIGTERM. What is finished is kept: the same command goes on from there'
    """
    if code == -signal.SIGKILL:
        what = "killed by SIGKILL, most often because memory ran out (see dmesg)"
    elif code < 0:
        what = f"stopped by {signal.Signals(-code).name}"
    else:
        what = f"broke off with exit code {code}: Ray's processes here have died (see /tmp/ray/session_latest/logs)"
    return f"{what}. What is finished is kept: the same command goes on from there"


def _returned(reading: int) -> bool:
    try:
        return os.read(reading, 1) == _DONE
    except BlockingIOError:  # a process that the child left behind holds the other end
        return False


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
