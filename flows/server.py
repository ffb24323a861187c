"""Prefect's embedded server, begun while this process still imports and prepares what is to run on it."""

from __future__ import annotations

import contextlib
from threading import Thread

from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_ALLOW_EPHEMERAL_MODE

_starting: list[Thread] = []


def start_ahead() -> None:
    """Start the server in the background, where flows are to have an embedded one. It ends with this process.

    It is the one that Prefect starts at the first call of a flow otherwise. Calls of flows must :func:`await_start`.
    """
    if PREFECT_API_URL.value() or not PREFECT_SERVER_ALLOW_EPHEMERAL_MODE.value() or _starting:
        return
    from prefect.server.api.server import SubprocessASGIServer

    server = SubprocessASGIServer()

    def start() -> None:
        with contextlib.suppress(Exception):  # the flow's own start of it tells why
            server.start()

    _starting.append(Thread(target=start, name="prefect-server", daemon=True))
    _starting[0].start()


def await_start() -> None:
    """Return when the server that was started ahead, if any, answers or has failed to start."""
    for thread in _starting:
        thread.join()
