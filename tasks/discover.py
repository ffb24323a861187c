"""Find the archives that the sources name."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import task
from prefect.cache_policies import NO_CACHE

from schemas.config import Storage
from schemas.records import Discovery
from workers.sources.discover import discover as find_archives


@task(name="discover", cache_policy=NO_CACHE)
def discover(urls: Sequence[str], storage: Storage) -> Discovery:
    """The archives behind ``urls``; sources that cannot be read are rejects, never exceptions."""
    return find_archives(urls, storage)
