"""Reading headers spread over a remote file: little where the reader leaps far, more and more where it does not."""

from __future__ import annotations

from fsspec.caching import BaseCache, Fetcher, register_cache

LEAP = 64 * 1024  # bytes; members at least this long are leapt over, shorter ones are read over
_MOST = 1024 * 1024  # bytes read ahead among short members: some hundreds of them to a request


class LeapCache(BaseCache):
    """One window of a file, read ahead of where the reader is.

    A read that comes from afar fetches ``blocksize`` bytes ahead. One that goes on near the window's end fetches twice
    as far ahead as the last one did, up to 1 MB: short members then share requests, long ones cost one small request.
    """

    name = "leaps"

    def __init__(self, blocksize: int, fetcher: Fetcher, size: int) -> None:
        super().__init__(blocksize, fetcher, size)
        self._window, self._start, self._ahead = b"", 0, blocksize

    def _fetch(self, start: int | None, stop: int | None) -> bytes:
        start, stop = start or 0, self.size if stop is None else min(stop, self.size)
        if start >= stop:
            return b""
        end = self._start + len(self._window)
        if self._start <= start and stop <= end:
            self.hit_count += 1
            return self._window[start - self._start : stop - self._start]
        self.miss_count += 1
        is_near = self._start <= start <= end + LEAP and end > 0
        self._ahead = min(2 * self._ahead, _MOST) if is_near else self.blocksize
        known = self._window[start - self._start :] if self._start <= start < end else b""
        start += len(known)
        upto = min(self.size, stop + self._ahead)
        self.total_requested_bytes += upto - start
        self._window, self._start = self.fetcher(start, upto), start
        return known + self._window[: stop - start]


register_cache(LeapCache, clobber=True)
