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
        ("os.kill(os.getppid(), signal.SIGTERM) or signal.pause()", 143, "error: stopped by SIGTERM."),
    ],
)
def test_every_end_is_told_once_and_passed_on(body: str, code: int, told: str) -> None:
    ended = run(body)
    assert ended.returncode == code
    assert ended.stderr.startswith(told)
    assert len(ended.stderr.splitlines()) == bool(told)
