"""One generation of the state in LMDB: what it holds, and who reads it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import lmdb

from huton.errors import CorruptRecord
from huton.raft.types import Snapshot
from huton.storage import layout
from huton.storage.environment import Environment
from huton.storage.interface import PinnedState

__all__ = ["State"]


class State:
    """One generation of the state: its environment, and what it holds.

    Attributes:
        checkpoint: once it is loaded or written.
    """

    def __init__(self, path: Path, generation: int, map_size_bytes: int) -> None:
        self.generation = generation
        self.environment = Environment(path, map_size_bytes, readahead=False)
        self.reader = _Live(self.environment)
        self.checkpoint: Snapshot

    def become(self, owner: int) -> None:
        """Everything in it belongs to *owner*, a cluster."""
        self._owner = owner
        self.reader.checksum = layout.value_checksum(owner)

    def load(self, owner: int) -> None:
        """Read what it holds.

        Raises:
            CorruptRecord: it is damaged, or another owner's.
        """
        self.become(owner)
        with self.environment.read() as transaction:
            record = transaction.get(layout.CHECKPOINT_KEY)
            if record is None:
                raise CorruptRecord("state: checkpoint is missing")
            self.checkpoint = layout.decode_checkpoint(owner, record)

    def write(self, changes: Iterable[tuple[bytes, bytes | None]], snapshot: Snapshot) -> None:
        """Make it *snapshot* by *changes*, atomically and synced."""
        begin = self.reader.checksum
        prefix = layout.STATE_PREFIX
        with self.environment.write() as transaction:
            put, delete = transaction.put, transaction.delete
            for key, value in changes:
                if value is None:
                    delete(prefix + key)
                else:
                    put(prefix + key, layout.encode_value(begin, key, value))
            put(layout.CHECKPOINT_KEY, layout.encode_checkpoint(self._owner, snapshot))
        self.checkpoint = snapshot


class _Live:
    """A LiveState; each call has a read transaction of its own.

    An unfinished scan keeps its transaction, and with it every page it could still reach, until it is dropped.

    Attributes:
        pins: how many have pinned it.
    """

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.pins = 0
        self._begin = environment.lmdb.begin
        # Nothing can be read before birth, so whatever stands here until then is never used.
        self.checksum = layout.NOBODY

    def get(self, key: bytes) -> bytes | None:
        try:
            with self._begin() as transaction:
                record = transaction.get(layout.STATE_PREFIX + key)
        except lmdb.Error as error:
            raise self.environment.translate(error) from error
        return None if record is None else layout.decode_value(self.checksum, key, record)

    def scan(self, start: bytes, stop: bytes | None, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        self.environment.check_open()
        return self._scan(start, stop, reverse)

    def _scan(self, start: bytes, stop: bytes | None, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        with self.environment.read() as transaction:
            yield from _scan(transaction, self.checksum, start, stop, reverse)

    def pin(self) -> PinnedState:
        self.environment.check_open()
        return _Pinned(self)


class _Pinned:
    """A PinnedState: one read transaction, which keeps every page that it can reach."""

    def __init__(self, state: _Live) -> None:
        self._state = state
        try:
            self._transaction: lmdb.Transaction[bytes] | None = state.environment.lmdb.begin()
        except lmdb.Error as error:
            raise state.environment.translate(error) from error
        state.pins += 1

    def get(self, key: bytes) -> bytes | None:
        transaction = self._open()
        try:
            record = transaction.get(layout.STATE_PREFIX + key)
        except lmdb.Error as error:
            raise self._translate(error) from error
        return None if record is None else layout.decode_value(self._state.checksum, key, record)

    def scan(self, start: bytes, stop: bytes | None, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        return self._scan(self._open(), start, stop, reverse)

    def _scan(
        self, transaction: lmdb.Transaction[bytes], start: bytes, stop: bytes | None, reverse: bool
    ) -> Iterator[tuple[bytes, bytes]]:
        try:
            yield from _scan(transaction, self._state.checksum, start, stop, reverse)
        except lmdb.Error as error:
            raise self._translate(error) from error

    def close(self) -> None:
        if self._transaction is not None:
            self._transaction.abort()
            self._transaction = None
            self._state.pins -= 1

    def _open(self) -> lmdb.Transaction[bytes]:
        self._state.environment.check_open()
        if self._transaction is None:
            raise ValueError("what was pinned is closed")
        return self._transaction

    def _translate(self, error: lmdb.Error) -> Exception:
        if self._transaction is None:
            return ValueError("what was pinned is closed")
        return self._state.environment.translate(error)


def _scan(
    transaction: lmdb.Transaction[bytes], checksum: int, start: bytes, stop: bytes | None, reverse: bool
) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a state in the range."""
    first = layout.STATE_PREFIX + start
    end = layout.STATE_STOP if stop is None else layout.STATE_PREFIX + stop
    with transaction.cursor() as cursor:
        if reverse:
            found = cursor.prev() if cursor.set_range(end) else cursor.last()
        else:
            found = cursor.set_range(first)
        if not found:
            return
        for key, record in cursor.iterprev() if reverse else cursor.iternext():
            if key < first if reverse else key >= end:
                return
            key = key[1:]
            yield key, layout.decode_value(checksum, key, record)
