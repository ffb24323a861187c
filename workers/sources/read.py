"""The bytes of a shard's members: neighbouring ranges in one request, the next requests under way meanwhile."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from schemas.config import Storage
from schemas.errors import MemberError
from schemas.reasons import Reason
from schemas.records import UNTOLD, Layout, Member, Shard
from workers.sources import zip
from workers.sources.store import StoreError
from workers.storage import is_local, open_filesystem

REQUEST = 16 * 1024 * 1024  # most bytes of one coalesced request; a larger member is a request of its own
GAP = 256 * 1024  # bytes read and thrown away rather than asked around: about what a remote request's latency costs
WINDOW = 32 * 1024 * 1024  # bytes of requests under way or waiting to be consumed
THREADS = 8  # requests at once on a remote store

Content = tuple[Member, bytes | MemberError]


@dataclass(frozen=True)
class _Request:
    """Members served by one read of ``uri``, from ``start`` to ``end`` (None: the whole object)."""

    uri: str
    members: tuple[Member, ...]
    start: int | None = None
    end: int | None = None

    @property
    def bytes(self) -> int:
        if self.start is not None and self.end is not None:
            return self.end - self.start
        return REQUEST if self.members[0].size == UNTOLD else self.members[0].size


def read_members(shard: Shard, storage: Storage) -> Iterator[Content]:
    """Each of the shard's members, in order, with its bytes, or with why it has none (MemberError).

    Memory is bounded by :data:`WINDOW` and the largest member, not by the shard. Raises StoreError where the store
    fails as a whole (out of reach, credentials expired, archive denied or gone): the shard can be tried again.
    """
    yield from read_contents(shard.members, shard.archive.layout, storage)


def read_contents(members: Sequence[Member], layout: Layout, storage: Storage) -> Iterator[Content]:
    """As :func:`read_members`, for any members of one archive."""
    if not members:
        return
    fs, _ = open_filesystem(members[0].uri, storage)
    # Local disks are read by one thread ahead of the consumer: more would only compete with the decoders.
    threads = 1 if is_local(fs) else THREADS
    waiting: deque[tuple[_Request, Future[list[Content]]]] = deque()
    held = 0
    pool = ThreadPoolExecutor(threads, thread_name_prefix="read")
    try:
        for request in _requests(members, layout):
            while waiting and (held + request.bytes > WINDOW or len(waiting) > 4 * threads):
                first, future = waiting.popleft()
                yield from future.result()
                held -= first.bytes
            waiting.append((request, pool.submit(_serve, request, layout, storage)))
            held += request.bytes
        while waiting:
            yield from waiting.popleft()[1].result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _requests(members: Sequence[Member], layout: Layout) -> Iterator[_Request]:
    """Consecutive members grouped while they lie close together in the same object, in ascending order.

    All pieces of one recording are one group, however large it is: its bytes are read once, and are the same object.
    """
    group: list[Member] = []
    start = end = 0
    for member in members:
        begin, stop = _range(member, layout)
        if (
            group
            and member.uri == group[0].uri
            and (
                (member.offset == group[-1].offset and len(group) < 1000)  # pieces of one recording
                or (member.offset is not None and start <= begin <= end + GAP and stop - start <= REQUEST)
            )
        ):
            group.append(member)
            end = max(end, stop)
            continue
        if group:
            yield _request(group, start, end)
        group, start, end = [member], begin, stop
    if group:
        yield _request(group, start, end)


def _request(group: list[Member], start: int, end: int) -> _Request:
    whole = group[0].offset is None
    return _Request(group[0].uri, tuple(group), None if whole else start, None if whole else end)


def _range(member: Member, layout: Layout) -> tuple[int, int]:
    start = member.offset or 0
    return start, start + (zip.span(member) if layout is Layout.ZIP else member.size)


def _serve(request: _Request, layout: Layout, storage: Storage) -> list[Content]:
    def read(start: int | None, end: int | None) -> bytes:
        try:
            fs, path = open_filesystem(request.uri, storage)
            data: bytes = fs.cat_file(path, start=start, end=end)
        except Exception as error:  # whatever a backend raises
            raise StoreError(error, request.uri) from error
        return data

    try:
        data = read(request.start, request.end)
    except StoreError as problem:
        if request.start is not None or problem.is_general:
            raise
        lost = problem.reason == Reason.SOURCE_MISSING
        reason = Reason.MEMBER_MISSING if lost else Reason.ACCESS_DENIED
        message = "gone since it was listed; run again" if lost else problem.what
        return [(member, MemberError(reason, message)) for member in request.members]
    contents: list[Content] = []
    for member in request.members:
        same = contents and contents[-1][0].offset == member.offset  # another piece of the recording before
        contents.append((member, contents[-1][1] if same else _content(member, layout, data, request.start, read)))
    return contents


def _content(
    member: Member, layout: Layout, data: bytes, start: int | None, read: Callable[[int, int], bytes]
) -> bytes | MemberError:
    """One member cut out of what was read; errors are values here, so that neighbours go on."""
    if start is None:
        return data or MemberError(Reason.EMPTY_FILE, "zero bytes")
    offset, size = member.offset or 0, member.size
    begin = offset - start
    try:
        if layout is Layout.ZIP:
            ahead = zip.data_start(data[begin : begin + zip.LOCAL_HEADER])
            begin, size = begin + ahead, member.stored_size or 0
            if len(data) < begin + size:  # fields longer than usual
                data, begin = read(offset, offset + ahead + size), ahead
        stored = data[begin : begin + size]
        if len(stored) < size:
            message = f"{len(stored):,} of {size:,} bytes are there; the archive is cut or has changed: run again"
            raise MemberError(Reason.MEMBER_MISSING, message)
        return zip.inflate(member, stored) if layout is Layout.ZIP else stored
    except MemberError as error:
        return error
