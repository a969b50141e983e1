"""Read a range of a bucket in pieces whose memory is bounded, also when values are long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from huton.kv.machine import KeyValue
    from huton.runtime.bucket import Bucket

__all__ = ["PAGE_BYTES_MAX", "Page", "Range", "read_page"]

PAGE_BYTES_MAX: Final = 4 << 20
"""A page that holds as many bytes of keys and values is cut short."""

FIRST_READ: Final = 64
"""Entries asked for while nothing is known of how long the values are."""

READ_MAX: Final = 4_096
"""Entries asked for at once, however short they are: a read happens in one piece."""


@attrs.frozen(kw_only=True)
class Range:
    """Which keys: those that start with ``prefix`` and lie in ``start <= key < stop``.

    Attributes:
        reverse: from the last key to the first.
    """

    prefix: bytes = b""
    start: bytes | None = None
    stop: bytes | None = None
    reverse: bool = False

    def beyond(self, key: bytes) -> Range:
        """Return what is left of this range after *key*."""
        if self.reverse:
            return self if self.stop is not None and self.stop <= key else attrs.evolve(self, stop=key)
        return self if self.start is not None and self.start > key else attrs.evolve(self, start=key + b"\0")


@attrs.frozen
class Page:
    """Some entries, in order.

    Attributes:
        more: whether there are more; if there are, ``entries`` isn't empty.
    """

    entries: list[KeyValue]
    more: bool


async def read_page(bucket: Bucket, within: Range, limit: int, *, local: bool = False) -> Page:
    """Read up to *limit* entries, at least 1, and not much more than ``PAGE_BYTES_MAX`` bytes.

    A page of many bytes takes several reads: a key that comes or goes meanwhile may be in it or not.

    Args:
        local: read this node's own copy, which may lag, instead of a linearizable read.

    Raises:
        RequestError: what a scan raises.
    """
    entries: list[KeyValue] = []
    size = 0
    step = FIRST_READ
    while True:
        # One more than the limit, to know whether there is more.
        wanted = min(step, limit + 1 - len(entries))
        found = await _scan(bucket, within, wanted, local=local)
        entries += found
        if len(entries) > limit:
            return Page(entries[:limit], True)
        if len(found) < wanted:
            return Page(entries, False)
        size += sum(len(entry.key) + len(entry.value) for entry in found)
        if size >= PAGE_BYTES_MAX:
            following = await _scan(bucket, within.beyond(entries[-1].key), 1, local=local)
            return Page(entries, bool(following))
        within = within.beyond(entries[-1].key)
        step = max(1, min(READ_MAX, (PAGE_BYTES_MAX - size) * len(entries) // (size or 1)))


async def _scan(bucket: Bucket, within: Range, limit: int, *, local: bool) -> list[KeyValue]:
    start, stop, reverse = within.start, within.stop, within.reverse
    if local:
        return bucket.scan_local(within.prefix, start=start, stop=stop, limit=limit, reverse=reverse)
    return await bucket.scan(within.prefix, start=start, stop=stop, limit=limit, reverse=reverse)
