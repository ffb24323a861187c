"""Flows started from a terminal, in this process: parameters checked, noise down, the outcome in a few lines."""

from __future__ import annotations

from typing import Any, cast

from prefect import Flow
from prefect.client.schemas.objects import State
from prefect.exceptions import ParameterBindError, ParameterTypeError, SignatureMismatchError

from flows import terminal
from flows.form import problems
from flows.server import await_start, start_ahead
from schemas.config import Layout
from schemas.manifest import RunManifest


def begin(verbose: bool) -> None:
    """Log little, and have Prefect's server start meanwhile; call it before anything that takes long."""
    terminal.quiet(verbose)
    start_ahead()


def launch_corpus(form: dict[str, Any], verbose: bool) -> None:
    """Run the corpus flow and print its summary; exits 1 where shards are left to do."""
    begin(verbose)
    from flows.corpus import NOTHING_NEW, corpus
    from tasks.summary import print_summary

    checked = checked_form(corpus, form)
    state = started(corpus, checked)
    manifest = state.result(raise_on_failure=False)
    if not isinstance(manifest, RunManifest):
        terminal.console().print(f"{NOTHING_NEW}: {state.message} Use --reprocess to do it again.")
        return
    destination = manifest.parameters["destination"]
    print_summary(manifest, destination, Layout(destination=destination).report(manifest.run_id), terminal.console())
    if state.is_failed():
        terminal.fail(state.message or str(state.name))


def launch_plan(form: dict[str, Any], verbose: bool) -> None:
    """Print what the corpus flow would do."""
    from flows.corpus import corpus
    from flows.preview import preview, table

    terminal.quiet(verbose)
    terminal.console().print(table(preview(checked_form(corpus, form))))


def launch_report(form: dict[str, Any], verbose: bool) -> None:
    """Build a run's report again and print where it lies."""
    begin(verbose)
    from flows.report import report

    state = started(report, checked_form(report, form))
    terminal.console().print(state.result(raise_on_failure=False), soft_wrap=True, markup=False)


def launch_regenerate(form: dict[str, Any], verbose: bool) -> None:
    """Run the regenerate flow and print what it made; exits 1 where shards are left to do."""
    begin(verbose)
    from flows.regenerate import regenerate

    state = started(regenerate, checked_form(regenerate, form))
    if state.is_failed():
        terminal.fail(state.message or str(state.name))
    terminal.console().print(f"{state.name}: {state.message}", soft_wrap=True, markup=False)


def launch_export(form: dict[str, Any], verbose: bool) -> None:
    """Write clips out for training and print what was written."""
    begin(verbose)
    from flows.export import export

    state = started(export, checked_form(export, form))
    terminal.console().print(f"{state.name}: {state.message}", soft_wrap=True, markup=False)


def checked_form(flow: Flow[..., Any], form: dict[str, Any]) -> dict[str, Any]:
    """``form`` as ``flow`` takes it, defaults filled in; where it does not, a line per field, and exit 1."""
    unknown = [name for name in form if name not in flow.parameters.properties]
    if unknown:
        names = ", ".join(flow.parameters.properties)
        terminal.fail(*(f"{name}: no parameter of this name; there are {names}" for name in unknown))
    missing = [name for name in flow.parameters.required if name not in form]
    if missing:
        terminal.fail(*(f"{name}: must be given" for name in missing))
    try:
        return flow.validate_parameters(form)
    except ParameterTypeError as error:
        terminal.fail(*problems(str(error)))
    except (ParameterBindError, SignatureMismatchError) as error:
        terminal.fail(str(error))


def started(flow: Flow[..., Any], form: dict[str, Any]) -> State[Any]:
    """The final state of a run of ``flow``; raises what it broke off with, for :func:`flows.terminal.reported`."""
    await_start()
    state: Any = flow(**form, return_state=True)
    outcome = state.result(raise_on_failure=False)
    if isinstance(outcome, BaseException):
        raise outcome
    return cast("State[Any]", state)
