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


STOPPING = """
import os, signal, sys, time
from flows.guard import INTERRUPTED, guarded

def main():
    try:
        for name in sys.argv[1:]:
            os.kill(os.getppid(), getattr(signal, name))
        time.sleep(60)
    except KeyboardInterrupt:
        print("finished shards are kept")
        sys.exit(INTERRUPTED)

guarded(main)
"""


@pytest.mark.parametrize(
    ("ignored", "sent"),
    [("", ["SIGTERM"]), ("trap '' HUP INT;", ["SIGHUP", "SIGINT", "SIGTERM"])],  # the second: nohup in a script, with &
)
def test_a_request_to_stop_ends_the_command_as_ctrl_c_does(ignored: str, sent: list[str]) -> None:
    shell = f'{ignored} exec "$@"'
    ended = subprocess.run(
        ["sh", "-c", shell, "sh", sys.executable, "-c", STOPPING, *sent],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout, ended.stderr) == (143, "finished shards are kept\n", "")
