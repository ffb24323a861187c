"""The command line's manners: one console, little noise, errors in one line. Environment is read and set here alone."""

from __future__ import annotations

import functools
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer
from click import ClickException

from flows.guard import INTERRUPTED
from schemas.errors import VoxmillError

if TYPE_CHECKING:
    from rich.console import Console

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_OWN = tuple(os.path.join(_ROOT, package) for package in ("flows", "tasks", "workers"))


@functools.cache
def console() -> Console:
    """Standard output: results."""
    from rich.console import Console

    return Console(highlight=False)


@functools.cache
def errors() -> Console:
    """Standard error: progress, log lines and errors."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def prepare(home: Path | None = None) -> None:
    """Set what Prefect and Ray read from the environment when they are imported; call before either is.

    ``home``: a folder of its own for Prefect's settings and database, so that no profile of the user is touched.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if home is not None:
        home.mkdir(parents=True, exist_ok=True)
        for name in [name for name in os.environ if name.startswith("PREFECT_")]:
            del os.environ[name]
        os.environ["PREFECT_HOME"] = str(home)
        os.environ["PREFECT_PROFILES_PATH"] = str(home / "profiles.toml")
        os.environ["DO_NOT_TRACK"] = "1"
    # The embedded server says nothing on this terminal and calls nobody; one of the user's own is not touched by this.
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "CRITICAL")
    # Its cold start takes longer than Prefect's 20 s where cores are few or busy.
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "600")


def starting() -> None:
    """Say what the first seconds are spent on."""
    errors().print("Starting. Ctrl-C stops the run; the same command goes on with it.", style="dim", markup=False)


class _Lines(logging.Handler):
    """Log records as plain lines beside the progress bar: voxmill's own, and others' warnings."""

    def filter(self, record: logging.LogRecord) -> bool:
        own = os.path.dirname(record.pathname).startswith(_OWN)
        return record.levelno >= (logging.INFO if own else logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        style = "red" if record.levelno >= logging.ERROR else "yellow" if record.levelno >= logging.WARNING else "dim"
        first = record.getMessage().splitlines()[0] if record.getMessage() else ""
        errors().print(first, style=style, markup=False, soft_wrap=True)


def quiet(verbose: bool) -> None:
    """Show the run's own log lines and others' warnings, without tracebacks; all that is logged where ``verbose``."""
    from prefect.logging.configuration import setup_logging
    from prefect.logging.handlers import PrefectConsoleHandler

    setup_logging()
    if verbose:
        return
    root = logging.getLogger()
    root.handlers = [one for one in root.handlers if not isinstance(one, PrefectConsoleHandler | _Lines)] + [_Lines()]
    # Failures reach the reader as one line from `reported`; Prefect's own words for them come with a traceback.
    for name in ("prefect.flow_runs", "prefect.task_runs", "prefect.flows", "prefect.engine"):
        logging.getLogger(name).addFilter(_without_failures)
    queues = ("EventsWorker", "APILogWorker")  # Prefect's, which tell of every 4 s that sending takes at the end
    for name in ("prefect.server", "prefect._internal", *queues, "uvicorn", "fastapi", "httpx", "ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _without_failures(record: logging.LogRecord) -> bool:
    return record.levelno < logging.ERROR


@contextmanager
def reported(resume: str = "", verbose: bool = False) -> Iterator[None]:
    """Turn errors into one line and exit 1, and Ctrl-C into ``resume`` and exit 130.

    An error that nobody foresaw is one line as well; its traceback comes with ``verbose``.
    """
    try:
        yield
    except VoxmillError as error:
        fail(str(error))
    except (typer.Exit, typer.Abort, ClickException):
        raise
    except Exception as error:
        if verbose:
            errors().print("".join(traceback.format_exception(error)), markup=False, soft_wrap=True)
        reason = " ".join(str(error).split()) or type(error).__name__
        fail(f"{type(error).__name__}: {reason}" + ("" if verbose else " (--verbose shows where)"))
    except KeyboardInterrupt:
        errors().print(f"Stopped. {resume}", style="yellow", markup=False, soft_wrap=True)
        sys.stdout.flush()
        raise typer.Exit(INTERRUPTED) from None


def fail(*lines: str) -> NoReturn:
    """Print ``lines`` as errors and exit 1."""
    for line in lines:
        errors().print(f"error: {line}", style="red", markup=False, soft_wrap=True)
    raise typer.Exit(1)
