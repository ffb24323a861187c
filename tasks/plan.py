"""Decide what a run has to do."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from schemas.config import CorpusParameters
from schemas.records import Discovery, Plan, Published
from workers.sources.planning import make_plan


@task(name="plan", cache_policy=NO_CACHE)
def plan(discovery: Discovery, fingerprint: str, parameters: CorpusParameters, published: Published) -> Plan:
    """List the archives, leave out what is published for the same settings, cut the rest into shards."""
    return make_plan(discovery, fingerprint, parameters, published)
