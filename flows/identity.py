"""Which run this is: its id, its date, its name in Prefect's UI."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

from prefect.runtime import flow_run

from schemas.records import ID_TIME, Run
from tasks.wording import name_of


def new_run() -> Run:
    """A run that starts now (UTC). Its id sorts by time and ends in the first digits of Prefect's flow run id."""
    now = dt.datetime.now(dt.UTC)
    suffix = str(flow_run.get_id() or uuid.uuid4().hex)[:8]
    return Run(id=f"{now:{ID_TIME}}-{suffix}", date=f"{now:%Y-%m-%d}", started_at=now.isoformat(timespec="seconds"))


def run_name() -> str:
    """Name of a flow run: its date and the folder it publishes to."""
    parameters: dict[str, Any] = flow_run.get_parameters() or {}
    return f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} {name_of(str(parameters.get('destination', '')))}"
