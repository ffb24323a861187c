"""The guard around the command: how it ends is told, and passed on."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = "import os, signal, sys; from flows.guard import guarded; guarded(lambda: {})"


def run(body: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body)], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("body", "code", "told"),
    [
        ("print('done')", 0, ""),
        ("sys.exit(3)", 3, ""),
        ("os._exit(1)", 1, "error: broke off with exit code 1: Ray's processes here have died"),
        ("os.kill(os.getpid(), signal.SIGKILL)", 137, "error: killed by SIGKILL, most often because memory ran out"),
        ("os.kill(os.getpid(), signal.SIGTERM) or signal.pause()", 143, "error: stopped by SIGTERM."),
    ],
)
def test_every_end_is_told_once_and_passed_on(body: str, code: int, told: str) -> None:
    ended = run(body)
    assert ended.returncode == code
    assert ended.stderr.startswith(told)
    assert len(ended.stderr.splitlines()) == bool(told)


def test_a_request_to_stop_ends_the_command_as_ctrl_c_does() -> None:
    command = """
import os, signal, sys
from flows.guard import INTERRUPTED, guarded

def main():
    try:
        os.kill(os.getppid(), signal.SIGTERM)
        signal.pause()
    except KeyboardInterrupt:
        print("finished shards are kept")
        sys.exit(INTERRUPTED)

guarded(main)
"""
    ended = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (143, "finished shards are kept\n", "")
