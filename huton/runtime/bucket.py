"""Buckets: the keys and values of the user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from huton.errors import RemoteError
from huton.kv.commands import (
    Answer,
    Command,
    CompareAndSet,
    Delete,
    Deleted,
    Increment,
    Incremented,
    OnlyIf,
    Revised,
    Set,
    SetMany,
    check_amount,
    check_items,
    check_key,
    check_keys,
    check_only_if,
    check_range,
    check_revision,
    check_value,
    decode_answer,
    encode_command,
)
from huton.kv.machine import KeyValue, count, get_entry, get_value, scan
from huton.kv.statemachine import StateReader
from huton.runtime.assembly import Assembly

__all__ = ["Bucket"]

A = TypeVar("A", Revised, Deleted, Incremented)


class Bucket:
    """A named, ordered map of keys to values, the same on every node. From ``Node.bucket``.

    Keys are 1 to 400 bytes, values 0 to ``Config.max_value_bytes``. A bucket comes to be with its first key and
    goes with its last.

    Writes return once they are applied on this node's leader, and survive from then on as long as a majority of
    the disks does. Each write is atomic. A *cancelled* write is ambiguous: it may have happened, or may still
    happen; so is one that raises ``OutcomeUnknown``.

    Reads with ``await`` are linearizable: they see every write that had returned anywhere when they were called.
    Reads named ``..._local`` answer from this node's copy, without await, and may lag behind.

    Errors of every write, besides those that it names itself: ``InvalidRequest`` (nothing was proposed),
    ``NoLeader``, ``Overloaded`` (nothing was written), ``OutcomeUnknown``, and ``trio.ClosedResourceError`` on a
    node that is closed. Of every linearizable read the same but ``OutcomeUnknown``. Of every local read
    ``InvalidRequest``, ``NoLeader`` on a node that belongs to no cluster yet, and ``trio.ClosedResourceError``.
    """

    def __init__(self, assembly: Assembly, name: bytes) -> None:
        self._assembly = assembly
        self._name = name
        self._value_bytes_max = assembly.config.max_value_bytes

    @property
    def name(self) -> bytes:
        """The bucket's name."""
        return self._name

    def __repr__(self) -> str:
        return f"<huton bucket {self._name!r}>"

    # ------------------------------------------------------------------ writes

    async def set(self, key: bytes, value: bytes, *, only_if: OnlyIf | None = None) -> int:
        """Set *key* and return the revision, which is the key's ``mod_revision`` now.

        Raises:
            CompareFailed: the key is not "absent" or "present", as *only_if* asks.
        """
        command = Set(self._name, check_key(key), check_value(value, self._value_bytes_max), check_only_if(only_if))
        return (await self._submit(command, Revised)).revision

    async def set_many(self, items: Mapping[bytes, bytes]) -> int:
        """Set all *items* at once, 1 to 10,000 of them, and return their common revision."""
        command = SetMany(self._name, check_items(items, self._value_bytes_max))
        return (await self._submit(command, Revised)).revision

    async def compare_and_set(self, key: bytes, value: bytes, *, expected_revision: int) -> int:
        """Set *key* if its ``mod_revision`` is *expected_revision*; 0 means that it must not exist.

        Returns:
            The new revision.

        Raises:
            CompareFailed: the key is at another revision.
        """
        command = CompareAndSet(
            self._name, check_key(key), check_value(value, self._value_bytes_max), check_revision(expected_revision)
        )
        return (await self._submit(command, Revised)).revision

    async def delete(self, *keys: bytes) -> int:
        """Remove all *keys* at once, 1 to 10,000 of them, and return how many existed."""
        return (await self._submit(Delete(self._name, check_keys(keys)), Deleted)).count

    async def increment(self, key: bytes, amount: int = 1) -> int:
        """Add *amount* to the decimal number at *key*, 0 if there is none, and return the sum.

        Raises:
            NotAnInteger: the value is no 64-bit integer, or the sum would be none.
        """
        return (await self._submit(Increment(self._name, check_key(key), check_amount(amount)), Incremented)).value

    # ------------------------------------------------------------------ linearizable reads

    async def get(self, key: bytes) -> bytes | None:
        """Return the value of *key*, or None if there is no such key."""
        check_key(key)
        return get_value(await self._newest(), self._name, key)

    async def get_entry(self, key: bytes) -> KeyValue | None:
        """Return *key* with its value, revisions and version, or None if there is no such key."""
        check_key(key)
        return get_entry(await self._newest(), self._name, key)

    async def get_many(self, keys: Sequence[bytes]) -> list[KeyValue | None]:
        """Return all *keys*, 1 to 10,000 of them, as of one moment and in their order; None for a missing one."""
        checked = check_keys(keys)
        state = await self._newest()
        return [get_entry(state, self._name, key) for key in checked]

    async def scan(
        self,
        prefix: bytes = b"",
        *,
        start: bytes | None = None,
        stop: bytes | None = None,
        limit: int | None = None,
        reverse: bool = False,
    ) -> list[KeyValue]:
        """Return the keys that begin with *prefix* and lie in ``start <= key < stop``, in byte order.

        All are of one moment, and everything else on this node waits while they are collected: take many
        keys page by page, with *limit*, and go on from ``start=last_key + b"\\0"``.

        Args:
            prefix: none by default.
            start: the first key to return; by default the first there is.
            stop: the first key not to return; by default none.
            limit: at most so many, the first of them or, if *reverse*, the last.
            reverse: in falling order.
        """
        check_range(prefix, start, stop, limit)
        state = await self._newest()
        return scan(state, self._name, prefix, start=start, stop=stop, limit=limit, reverse=reverse)

    async def count(self) -> int:
        """Return how many keys there are."""
        return count(await self._newest(), self._name)

    # ------------------------------------------------------------------ local reads

    def get_local(self, key: bytes) -> bytes | None:
        """As ``get``, from this node's copy, which may lag behind."""
        return get_value(self._assembly.state(), self._name, check_key(key))

    def get_entry_local(self, key: bytes) -> KeyValue | None:
        """As ``get_entry``, from this node's copy, which may lag behind."""
        return get_entry(self._assembly.state(), self._name, check_key(key))

    def get_many_local(self, keys: Sequence[bytes]) -> list[KeyValue | None]:
        """As ``get_many``, from this node's copy, which may lag behind."""
        state = self._assembly.state()
        return [get_entry(state, self._name, key) for key in check_keys(keys)]

    def scan_local(
        self,
        prefix: bytes = b"",
        *,
        start: bytes | None = None,
        stop: bytes | None = None,
        limit: int | None = None,
        reverse: bool = False,
    ) -> list[KeyValue]:
        """As ``scan``, from this node's copy, which may lag behind."""
        state = self._assembly.state()
        return scan(state, self._name, prefix, start=start, stop=stop, limit=limit, reverse=reverse)

    def count_local(self) -> int:
        """As ``count``, from this node's copy, which may lag behind."""
        return count(self._assembly.state(), self._name)

    # ------------------------------------------------------------------ inside

    async def _submit(self, command: Command, expected: type[A]) -> A:
        data = encode_command(command)
        driver = await self._assembly.working()
        answer: Answer = decode_answer(await driver.submit(data))
        if not isinstance(answer, expected):
            raise RemoteError(f"{type(answer).__name__} is no answer to {type(command).__name__}")
        return answer

    async def _newest(self) -> StateReader:
        """Return the state once it holds everything that was committed when this was called."""
        driver = await self._assembly.working()
        await driver.confirm_read()
        return driver.replica.state
