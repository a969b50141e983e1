"""The state in memory that the disk does not have yet: what was applied since the last checkpoint.

    get, scan ──► active ──► sealed ──► base       the first that knows the key decides
                  written     a checkpoint          the newest durable
                  by apply    of it is under way    checkpoint

A generation is a dict of changes; None deletes. ``seal`` freezes the active one so that it can be
written to disk while apply goes on, and ``drop_sealed`` forgets it once its checkpoint is durable and
the base shows the same. Everything here belongs to one thread; only the base may have others.

Who pins the state keeps its generations, and its base as it is. The active one still changes; so it hands to
everybody who has pinned it what its keys were before.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from itertools import islice
from typing import Final

from huton.kv.statemachine import FIRST_KEY, STATE_KEY_BYTES_MAX
from huton.storage.interface import LiveState, PinnedState

__all__ = ["ENTRY_OVERHEAD_BYTES", "Overlay", "Transaction"]

ENTRY_OVERHEAD_BYTES: Final = 200
"""What one change costs in memory beside its key and value: two bytes objects, a dict slot, a list slot."""

INSERT_MAX: Final = 32
"""Up to so many new keys are inserted one by one into the sorted ones; more are cheaper to merge by a sort."""

Change = tuple[bytes, "bytes | None"]


class _Missing:
    """Tells "this generation says nothing about the key" from None, which says "deleted"."""


_MISSING: Final = _Missing()


class _Generation:
    """Changes by key. Keys are only ever added, for a deletion is an entry, too: a dict ends with the new ones.

    Attributes:
        pasts: for each who has pinned it, what was here under the keys that have changed since.
    """

    __slots__ = ("_sorted", "changes", "pasts", "size")

    def __init__(self) -> None:
        self.changes: dict[bytes, bytes | None] = {}
        self.pasts: list[dict[bytes, bytes | _Missing | None]] = []
        self.size = 0
        self._sorted: list[bytes] = []

    def sorted_keys(self) -> list[bytes]:
        """Return all keys in byte order; the list is good until the next commit."""
        fresh_count = len(self.changes) - len(self._sorted)
        if fresh_count:
            fresh = islice(reversed(self.changes), fresh_count)
            if fresh_count <= INSERT_MAX:
                for key in fresh:
                    insort(self._sorted, key)
            else:
                self._sorted.extend(fresh)
                self._sorted.sort()
        return self._sorted

    def scan(self, start: bytes, stop: bytes | None, reverse: bool) -> Iterator[Change] | None:
        """Return the changes in the range, or None if there are none."""
        if not self.changes:
            return None
        keys = self.sorted_keys()
        low = bisect_left(keys, start)
        high = len(keys) if stop is None else bisect_left(keys, stop)
        if low >= high:
            return None
        return self._walk(keys, range(high - 1, low - 1, -1) if reverse else range(low, high))

    def _walk(self, keys: list[bytes], positions: range) -> Iterator[Change]:
        changes = self.changes
        for position in positions:
            key = keys[position]
            yield key, changes[key]


class Overlay:
    """A LiveState over *base* that takes changes, one transaction at a time.

    Invariants:
        at most one generation is sealed;
        a change in the active generation is newer than one in the sealed, and both are newer than *base*.

    Args:
        base: the newest durable checkpoint; it may start to show the sealed generation at any time
            between ``seal`` and ``drop_sealed``.
    """

    def __init__(self, base: LiveState) -> None:
        self._base = base
        self._base_get = base.get
        self._commits = 0
        self._active = _Generation()
        self._sealed: _Generation | None = None
        # Bound once: get is the hottest call of a node.
        self._active_get = self._active.changes.get
        self._sealed_get = _Generation().changes.get

    @property
    def bytes_active(self) -> int:
        """Bytes of keys and values in the active generation, and ``ENTRY_OVERHEAD_BYTES`` for each."""
        return self._active.size

    @property
    def bytes_total(self) -> int:
        """The same for the active and the sealed generation."""
        return self._active.size + (0 if self._sealed is None else self._sealed.size)

    def get(self, key: bytes) -> bytes | None:
        value = self._active_get(key, _MISSING)
        if value is _MISSING:
            value = self._sealed_get(key, _MISSING)
            if value is _MISSING:
                return self._base_get(key)
        return value  # type: ignore[return-value]  # mypy does not narrow by identity with an instance

    def scan(self, start: bytes, stop: bytes | None, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, value) with ``start <= key < stop`` as they were when the scan was asked for.

        Raises:
            RuntimeError: a commit came before the scan was over; going on would mix two states.
        """
        base = self._base.scan(max(start, FIRST_KEY), stop, reverse=reverse)
        sealed = None if self._sealed is None else self._sealed.scan(start, stop, reverse)
        active = self._active.scan(start, stop, reverse)
        if sealed is None and active is None:
            return base
        merged: Iterator[Change] = base
        if sealed is not None:
            merged = _merge(sealed, merged, reverse)
        if active is not None:
            merged = _merge(active, merged, reverse)
        return self._present(merged, self._commits)

    def _present(self, merged: Iterator[Change], commits: int) -> Iterator[tuple[bytes, bytes]]:
        for key, value in merged:
            if self._commits != commits:
                raise RuntimeError("the state changed during a scan")
            if value is not None:
                yield key, value

    def pin(self) -> PinnedState:
        """Return the state as it is now; open it costs a little with each change, and generations are kept for it."""
        generations = (self._active,) if self._sealed is None else (self._active, self._sealed)
        return _Pinned(self._base.pin(), generations)

    def begin(self) -> Transaction:
        """Return a transaction; one at a time."""
        return Transaction(self)

    def seal(self) -> tuple[tuple[bytes, bytes | None], ...]:
        """Freeze the active generation for a checkpoint; return its changes, sorted by key.

        Raises:
            RuntimeError: the generation that was sealed before has not been dropped yet.
        """
        if self._sealed is not None:
            raise RuntimeError("a generation is sealed already: its checkpoint is not known to be durable")
        sealed = self._sealed = self._active
        self._sealed_get = self._active_get
        self._active = _Generation()
        self._active_get = self._active.changes.get
        return tuple((key, sealed.changes[key]) for key in sealed.sorted_keys())

    def drop_sealed(self) -> None:
        """Forget the sealed generation: its checkpoint is durable, and *base* shows it.

        Raises:
            RuntimeError: nothing is sealed.
        """
        if self._sealed is None:
            raise RuntimeError("no generation is sealed")
        self._sealed = None
        self._sealed_get = _Generation().changes.get

    def restore(self, base: LiveState) -> None:
        """Forget every change: *base*, another one, holds the state from now on."""
        self._base = base
        self._base_get = base.get
        self._commits += 1
        self._active = _Generation()
        self._active_get = self._active.changes.get
        self._sealed = None
        self._sealed_get = _Generation().changes.get

    def _commit(self, changes: dict[bytes, bytes | None], begun_at: int) -> None:
        if begun_at != self._commits:
            raise RuntimeError("another transaction was committed since this one began")
        self._commits += 1
        active, pasts = self._active.changes, self._active.pasts
        size = self._active.size
        for key, value in changes.items():
            old = active.get(key, _MISSING)
            for past in pasts:
                past.setdefault(key, old)
            if old is _MISSING:
                size += len(key) + ENTRY_OVERHEAD_BYTES
            elif old is not None:
                size -= len(old)  # type: ignore[arg-type]  # narrowed by the line before
            if value is not None:
                size += len(value)
            active[key] = value
        self._active.size = size


class Transaction:
    """A StateWriter over an overlay: reads its own writes, shows them to others at ``commit`` and not before.

    Dropping it changes nothing. It is over after ``commit``, and when another one was committed.
    """

    __slots__ = ("_begun_at", "_changes", "_overlay", "_overlay_get")

    def __init__(self, overlay: Overlay) -> None:
        self._overlay = overlay
        self._overlay_get = overlay.get
        self._begun_at = overlay._commits
        self._changes: dict[bytes, bytes | None] = {}

    def get(self, key: bytes) -> bytes | None:
        if key in self._changes:
            return self._changes[key]
        return self._overlay_get(key)

    def scan(self, start: bytes, stop: bytes | None, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, value) as they were when the scan was asked for: writes in between are not seen by it."""
        below = self._overlay.scan(start, stop, reverse=reverse)
        own = sorted(
            (item for item in self._changes.items() if start <= item[0] and (stop is None or item[0] < stop)),
            reverse=reverse,
        )
        if not own:
            return below
        return ((key, value) for key, value in _merge(iter(own), below, reverse) if value is not None)

    def put(self, key: bytes, value: bytes) -> None:
        _check_key(key)
        self._changes[key] = value

    def delete(self, key: bytes) -> None:
        _check_key(key)
        self._changes[key] = None

    def commit(self) -> None:
        """Make every change visible at once.

        Raises:
            RuntimeError: this or another transaction was committed since this one began.
        """
        self._overlay._commit(self._changes, self._begun_at)


class _Pinned:
    """A PinnedState of an overlay: *base*, already pinned, under *generations*, of which the first is the newest."""

    def __init__(self, base: PinnedState, generations: tuple[_Generation, ...]) -> None:
        self._base = base
        self._layers: list[tuple[_Generation, dict[bytes, bytes | _Missing | None]]] = []
        for generation in generations:
            past: dict[bytes, bytes | _Missing | None] = {}
            generation.pasts.append(past)
            self._layers.append((generation, past))

    def get(self, key: bytes) -> bytes | None:
        for generation, past in self._layers:
            value = past[key] if key in past else generation.changes.get(key, _MISSING)
            if not isinstance(value, _Missing):
                return value
        return self._base.get(key)

    def scan(self, start: bytes, stop: bytes | None, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        merged: Iterator[Change] = self._base.scan(max(start, FIRST_KEY), stop, reverse=reverse)
        for generation, past in reversed(self._layers):
            merged = _merge(_scan_past(generation, past, start, stop, reverse), merged, reverse)
        return ((key, value) for key, value in merged if value is not None)

    def close(self) -> None:
        for generation, past in self._layers:
            generation.pasts[:] = [other for other in generation.pasts if other is not past]
        self._layers.clear()
        self._base.close()


def _scan_past(
    generation: _Generation,
    past: dict[bytes, bytes | _Missing | None],
    start: bytes,
    stop: bytes | None,
    reverse: bool,
) -> Iterator[Change]:
    """Yield what the changes in the range were, while others are made: keys may come, and are not of *past*."""
    keys = generation.sorted_keys()
    key: bytes | None = None
    while True:
        if reverse:
            end = key if key is not None else stop
            position = (len(keys) if end is None else bisect_left(keys, end)) - 1
        else:
            position = bisect_left(keys, start) if key is None else bisect_right(keys, key)
        if not 0 <= position < len(keys):
            return
        key = keys[position]
        if key < start if reverse else stop is not None and key >= stop:
            return
        value = past[key] if key in past else generation.changes[key]
        if not isinstance(value, _Missing):
            yield key, value


def _check_key(key: bytes) -> None:
    # Here it fails the command that does it; in a checkpoint it would end every member, again and again.
    if not 0 < len(key) <= STATE_KEY_BYTES_MAX:
        raise ValueError(f"a key of {len(key)} bytes: 1 to {STATE_KEY_BYTES_MAX}")
    if key < FIRST_KEY:
        raise ValueError(f"a key that begins with byte 0: {key!r}")


def _merge(upper: Iterator[Change], lower: Iterator[Change], reverse: bool) -> Iterator[Change]:
    """Merge two iterators in byte order (falling if *reverse*); where both have a key, *upper* decides."""
    low = next(lower, None)
    for high in upper:
        key = high[0]
        while low is not None and (low[0] > key if reverse else low[0] < key):
            yield low
            low = next(lower, None)
        if low is not None and low[0] == key:
            low = next(lower, None)
        yield high
    if low is not None:
        yield low
        yield from lower
