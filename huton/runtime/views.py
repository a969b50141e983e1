"""Views: the state of this node at one moment, to be read for a while.

An open view keeps memory and disk from forgetting: generations of the overlay, and pages of the map. So each ends in
time, whether it was closed or not, and there are not too many of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Literal, NoReturn

import trio

from huton.env import Clock
from huton.errors import Overloaded, ViewExpired
from huton.kv.commands import check_bucket_name, check_key, check_keys
from huton.kv.machine import KeyValue, buckets, count, get_entry, get_value, scan
from huton.kv.statemachine import StateReader
from huton.runtime.bell import Bell
from huton.storage.interface import LiveState, PinnedState

__all__ = ["BucketView", "View", "Views"]

VIEWS_MAX: Final = 64
"""Views open at once on one node."""


class View:
    """Everything in this node's copy as of one moment; a context manager. From ``Node.view``.

    It is read without await, and shows the same for as long as it is open, whatever is written meanwhile: also
    across awaits, and page by page.

    Errors of every read: ``InvalidRequest``, ``ViewExpired``, and ``trio.ClosedResourceError`` once the view or its
    node is closed.
    """

    def __init__(self, state: PinnedState, revision: int, closed: Callable[[View], None]) -> None:
        self._state = state
        self._revision = revision
        self._closed = closed
        self._error: Exception | None = None

    @property
    def revision(self) -> int:
        """The last log index whose change it shows; no ``mod_revision`` in it is higher."""
        return self._revision

    def bucket(self, name: str | bytes) -> BucketView:
        """Return the bucket *name*, as ``Node.bucket`` does."""
        return BucketView(self.state, check_bucket_name(name))

    def buckets(self) -> list[bytes]:
        """Return the names of all buckets, in byte order."""
        return buckets(self.state())

    def state(self) -> StateReader:
        """Return what is behind it, without buckets: the records of the state machine."""
        if self._error is not None:
            raise self._error.with_traceback(None)
        return self._state

    def close(self) -> None:
        """Let go of what it shows. Idempotent."""
        self.end(trio.ClosedResourceError("this view is closed"))

    def end(self, error: Exception) -> None:
        """Close it; every later read raises *error*."""
        if self._error is None:
            self._error = error
            self._state.close()
            self._closed(self)

    def __enter__(self) -> View:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        self.close()
        return False


class BucketView:
    """A bucket as of one moment. From ``View.bucket``; its methods are those of ``Bucket``, without await."""

    def __init__(self, state: Callable[[], StateReader], name: bytes) -> None:
        self._state = state
        self._name = name

    @property
    def name(self) -> bytes:
        """The bucket's name."""
        return self._name

    def get(self, key: bytes) -> bytes | None:
        """Return the value of *key*, or None if there was no such key."""
        return get_value(self._state(), self._name, check_key(key))

    def get_entry(self, key: bytes) -> KeyValue | None:
        """Return *key* with its value, revisions and version, or None if there was no such key."""
        return get_entry(self._state(), self._name, check_key(key))

    def get_many(self, keys: Sequence[bytes]) -> list[KeyValue | None]:
        """Return all *keys*, 1 to 10,000 of them, in their order; None for a missing one."""
        state = self._state()
        return [get_entry(state, self._name, key) for key in check_keys(keys)]

    def scan(
        self,
        prefix: bytes = b"",
        *,
        start: bytes | None = None,
        stop: bytes | None = None,
        limit: int | None = None,
        reverse: bool = False,
    ) -> list[KeyValue]:
        """As ``Bucket.scan``; pages of one view fit together."""
        return scan(self._state(), self._name, prefix, start=start, stop=stop, limit=limit, reverse=reverse)

    def count(self) -> int:
        """Return how many keys there were."""
        return count(self._state(), self._name)


class Views:
    """The open views of one node, oldest first.

    Args:
        clock: time.
        age_max_ns: how long a view may be open.
    """

    def __init__(self, clock: Clock, age_max_ns: int) -> None:
        self._clock = clock
        self._age_max_ns = age_max_ns
        self._deadlines: dict[View, int] = {}
        self._bell = Bell()

    def open(self, state: LiveState, revision: int) -> View:
        """Return a view of *state* as it is now.

        Raises:
            Overloaded: there are too many.
        """
        if len(self._deadlines) >= VIEWS_MAX:
            raise Overloaded(f"{VIEWS_MAX} views are open on this node; close one")
        view = View(state.pin(), revision, self._forget)
        self._deadlines[view] = self._clock.now() + self._age_max_ns
        self._bell.ring()
        return view

    async def run(self) -> NoReturn:
        """End each view in time; all of them when this is cancelled."""
        try:
            while True:
                await self._bell.wait()
                while self._deadlines:
                    oldest, deadline = next(iter(self._deadlines.items()))
                    await self._clock.sleep_until(deadline)
                    seconds = self._age_max_ns / 1e9
                    oldest.end(ViewExpired(f"the view was open for {seconds:g} seconds (view_age_max); open another"))
        finally:
            for view in tuple(self._deadlines):
                view.end(trio.ClosedResourceError("this node is closed"))

    def _forget(self, view: View) -> None:
        del self._deadlines[view]
